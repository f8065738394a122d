"""Phi: what it learns, what it does not, and its numbers."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.detector import PhiAccrual
from rpcfw.detector.phi_accrual import _nines

EIGHT = 5.6120
"""So many deviations above the mean phi is 8."""


def patience_s(detector: PhiAccrual, intervals: list[float], start: float = 100.0) -> float:
    """How long after the last of these heartbeats the node is taken for gone."""
    now = start
    detector.heartbeat(now)
    for interval_s in intervals:
        now += interval_s
        detector.heartbeat(now)
    return detector.deadline() - now


def bare(interval_s: float = 1.0, window: int = 100, threshold: float = 8.0) -> PhiAccrual:
    """One that adds nothing to what it has seen."""
    return PhiAccrual(interval_s, window=window, threshold=threshold, min_std_s=0.001, acceptable_pause_s=0.0)


@pytest.mark.parametrize(
    ("deviations", "phi"),
    [
        (-20.0, 0.0),
        (-1.0, 0.0750),
        (0.0, 0.3010),
        (1.0, 0.7995),
        (2.0, 1.6430),
        (3.0, 2.8697),
        (4.0, 4.4993),
        (5.0, 6.5426),
        (6.0, 9.0059),
        (10.0, 23.1181),
        (30.0, 197.3092),
        (50.0, 544.9663),
        (1000.0, 217150.6400),
    ],
)
def test_phi_is_the_nines_of_the_normal_distribution(deviations: float, phi: float) -> None:
    """Values from tables of its upper tail."""
    detector = bare(interval_s=40.0)
    detector.heartbeat(1000.0)  # the guess: mean 40, deviation 10
    assert detector.phi(1040.0 + 10.0 * deviations) == pytest.approx(phi, abs=1e-4)


def test_phi_has_no_step_where_the_tail_is_computed_otherwise() -> None:
    below, above = _nines(math.nextafter(35.0, 0.0)), _nines(35.0)
    assert 0.0 <= above - below < 1e-9
    steps = [_nines(34.9 + step / 1000) for step in range(200)]
    assert all(earlier < later for earlier, later in itertools.pairwise(steps))


@given(st.floats(1.0, 300.0))
def test_the_deadline_is_where_phi_reaches_its_threshold(threshold: float) -> None:
    detector = bare(threshold=threshold)
    detector.heartbeat(0.0)
    assert detector.phi(detector.deadline()) == pytest.approx(threshold, rel=1e-9)


def test_the_first_heartbeat_already_has_a_deadline_from_what_is_expected() -> None:
    assert patience_s(bare(interval_s=2.0), []) == pytest.approx(2.0 + 0.5 * EIGHT, rel=1e-4)


def test_it_suspects_the_sooner_the_more_regular_heartbeats_were() -> None:
    seed = 4
    print(f"seed {seed}")
    rng = random.Random(seed)
    patience = {
        jitter_s: patience_s(bare(), [1.0 + rng.uniform(-jitter_s, jitter_s) for _ in range(300)])
        for jitter_s in (0.0, 0.05, 0.2, 0.5, 0.9)
    }
    for jitter_s, seconds in patience.items():
        print(f"jitter +-{jitter_s:.2f} s: taken for gone after {seconds:.2f} s")
        std_s = max(0.001, jitter_s / math.sqrt(3))
        assert seconds == pytest.approx(1.0 + std_s * EIGHT, rel=0.15)
    assert sorted(patience.values()) == list(patience.values())


def test_it_learns_another_interval_than_was_expected() -> None:
    seconds = patience_s(PhiAccrual(1.0, window=50, acceptable_pause_s=3.0), [2.0] * 200)
    assert seconds == pytest.approx(2.0 + 3.0 + 0.1 * EIGHT, rel=1e-4)


def test_the_last_intervals_alone_count() -> None:
    seed = 5
    print(f"seed {seed}")
    rng = random.Random(seed)
    wild = [rng.uniform(0.1, 2.0) for _ in range(100)]
    steady = [1.0 + rng.uniform(-0.1, 0.1) for _ in range(100)]
    detector = bare(window=100)
    assert patience_s(detector, wild + steady) == pytest.approx(
        statistics.fmean(steady) + statistics.pstdev(steady) * EIGHT, rel=1e-4
    )


def test_an_outage_is_not_learned() -> None:
    detector = bare(window=20)
    before = patience_s(detector, [1.0, 1.1, 0.9] * 10)
    now = detector.deadline() + 500.0
    detector.heartbeat(now)
    assert detector.deadline() - now == pytest.approx(before)


def test_a_pause_is_accepted_and_a_least_deviation_kept() -> None:
    detector = PhiAccrual(1.0, window=10, min_std_s=0.2, acceptable_pause_s=4.0)
    assert patience_s(detector, [1.0] * 50) == pytest.approx(1.0 + 4.0 + 0.2 * EIGHT, rel=1e-4)


def test_a_regular_node_is_never_suspected_by_the_defaults_when_its_loop_stalls_for_three_seconds() -> None:
    detector = PhiAccrual(3.0)
    patience_s(detector, [3.0] * 300, start=0.0)
    assert detector.suspicion(900.0 + 6.0) < 0.1
    assert detector.suspicion(900.0 + 6.7) >= 1.0


@given(
    st.lists(st.floats(0.001, 5.0), min_size=1, max_size=300),
    st.integers(2, 40),
    st.sampled_from([0.0, 1e6]),
)
def test_running_sums_give_what_counting_anew_gives(
    intervals: list[float], window: int, start: float
) -> None:
    detector = PhiAccrual(1.0, window=window, min_std_s=0.001, acceptable_pause_s=10.0)
    kept, now = [0.75, 1.25], start
    detector.heartbeat(now)
    for interval_s in intervals:
        before, now = now, now + interval_s
        detector.heartbeat(now)
        assert now > before
        kept = [*kept, now - before][-window:]
        std_s = max(0.001, statistics.pstdev(kept))
        expected = now + statistics.fmean(kept) + 10.0 + EIGHT * std_s
        assert detector.deadline() == pytest.approx(expected, abs=1e-5)


def test_what_rounding_leaves_behind_goes() -> None:
    """Huge intervals, once out of the window, leave no trace in the deviation of tiny ones."""
    seed = 6
    print(f"seed {seed}")
    rng = random.Random(seed)
    detector = PhiAccrual(1.0, window=10, min_std_s=0.001, acceptable_pause_s=1e7)
    intervals = [rng.uniform(0.0, 1e6) for _ in range(105)] + [1.0] * 20
    assert patience_s(detector, intervals, start=0.0) - 1e7 == pytest.approx(1.0 + 0.001 * EIGHT, abs=1e-6)


def test_it_remembers_no_more_than_its_window() -> None:
    detector = bare(window=30)
    patience_s(detector, [1.0] * 1000)
    assert len(detector._intervals) == 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhiAccrual(0.0), r"interval_s=0\.0"),
        (lambda: PhiAccrual(1.0, threshold=0.5), r"threshold=0\.5"),
        (lambda: PhiAccrual(1.0, threshold=301.0), r"threshold=301\.0"),
        (lambda: PhiAccrual(1.0, window=1), "window=1"),
        (lambda: PhiAccrual(1.0, min_std_s=0.0), r"min_std_s=0\.0"),
        (lambda: PhiAccrual(1.0, acceptable_pause_s=-1.0), r"acceptable_pause_s=-1\.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
