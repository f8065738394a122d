"""How a node's calls went: latency that rises at once and falls slowly, and a window that forgets."""

from __future__ import annotations

import math

import pytest

from rpcfw.balancer import Statistics


def test_a_slow_call_shows_at_once_and_fast_ones_pull_it_down_over_the_decay() -> None:
    statistics = Statistics(decay_s=10.0)
    statistics.succeeded(100.0, 0.01)
    statistics.succeeded(100.0, 1.0)
    assert statistics.latency_s(100.0) == 1.0
    statistics.succeeded(110.0, 0.01)
    assert statistics.latency_s(110.0) == pytest.approx(0.01 + 0.99 * math.exp(-1.0))


def test_failing_fast_keeps_the_latency_from_fading() -> None:
    statistics = Statistics(decay_s=1.0)
    statistics.succeeded(100.0, 0.5)
    for second in range(1, 20):
        statistics.failed(100.0 + second, 0.001)
        assert statistics.latency_s(100.0 + second) == 0.5


def test_the_latency_fades_while_nothing_is_observed() -> None:
    statistics = Statistics(decay_s=10.0)
    assert statistics.latency_s(100.0) == 0.0
    statistics.succeeded(100.0, 1.0)
    assert statistics.latency_s(120.0) == pytest.approx(math.exp(-2.0))


def test_the_window_holds_the_last_thirty_seconds() -> None:
    statistics = Statistics()
    statistics.succeeded(100.0, 0.2)
    statistics.succeeded(115.0, 0.4)
    statistics.failed(115.0, 9.0)
    assert statistics.window(116.0)[:2] == (2, 1)
    assert statistics.window(116.0)[2] == pytest.approx(0.3)
    assert statistics.window(131.0)[:2] == (1, 1)
    assert statistics.window(131.0)[2] == pytest.approx(0.4)
    assert statistics.window(150.0) == (0, 0, 0.0)


@pytest.mark.parametrize("now", [0.0, 1.0, 20.0, 1000.0])
def test_what_was_forgotten_does_not_come_back(now: float) -> None:
    """A loop's clock may have just begun."""
    statistics = Statistics()
    statistics.succeeded(now, 0.2)
    statistics.failed(now, 0.2)
    statistics.in_flight = 3
    statistics.forget()
    assert statistics.window(now) == (0, 0, 0.0)
    assert statistics.latency_s(now) == 0.0
    assert statistics.consecutive_failures == 0
    assert statistics.in_flight == 3


def test_failures_in_a_row_end_with_a_success() -> None:
    statistics = Statistics()
    statistics.failed(1.0, 0.1)
    statistics.failed(1.0, 0.1)
    assert statistics.consecutive_failures == 2
    statistics.succeeded(1.0, 0.1)
    assert statistics.consecutive_failures == 0
    assert (statistics.successes, statistics.failures) == (1, 2)


def test_failing_fast_makes_no_node_look_fast_and_failing_slowly_makes_it_slow() -> None:
    statistics = Statistics()
    statistics.succeeded(100.0, 0.5)
    statistics.failed(105.0, 0.001)
    assert statistics.latency_s(105.0) == 0.5, "nor does it fade while a node fails"
    statistics.failed(105.0, 2.0)
    assert statistics.latency_s(105.0) == 2.0
