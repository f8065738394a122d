"""What a call is likely to need: the median of late, once enough is known, and not for ever."""

from __future__ import annotations

import pytest

from rpcfw.limiter.durations import KEPT, LEAST, MAX_AGE_S, Durations


def test_nothing_is_expected_before_enough_is_known() -> None:
    durations = Durations()
    for number in range(LEAST):
        assert durations.expected_s(number) == 0
        durations.add(number, 2.0)
    assert durations.expected_s(LEAST) == 2.0


def test_it_is_the_median_and_follows_a_change() -> None:
    durations = Durations()
    for number in range(KEPT):
        durations.add(0.0, 100.0 if number % 3 == 0 else 1.0)
    assert durations.expected_s(0.0) == 1.0
    for _ in range(KEPT):
        durations.add(1.0, 5.0)
    assert durations.expected_s(1.0) == 5.0


def test_what_is_old_or_forgotten_is_expected_no_more() -> None:
    durations = Durations()
    for _ in range(LEAST):
        durations.add(0.0, 2.0)
    assert durations.expected_s(MAX_AGE_S) == 2.0
    assert durations.expected_s(MAX_AGE_S + 1) == 0
    durations.add(MAX_AGE_S + 2, 1.0)
    assert durations.expected_s(MAX_AGE_S + 2) == 0
    for _ in range(LEAST):
        durations.add(MAX_AGE_S + 2, 1.0)
    assert durations.expected_s(MAX_AGE_S + 2) == pytest.approx(1.0)
    durations.forget()
    assert durations.expected_s(MAX_AGE_S + 2) == 0
