"""What is true of every failure detector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.detector import FailureDetector, Misses, PhiAccrual

Make = Callable[[], FailureDetector]


def _misses() -> FailureDetector:
    return Misses(3.0, 3)


def _odd_misses() -> FailureDetector:
    return Misses(0.1, 7)


def _phi() -> FailureDetector:
    return PhiAccrual(3.0)


def _hasty_phi() -> FailureDetector:
    return PhiAccrual(0.5, threshold=1.0, window=5, min_std_s=0.001, acceptable_pause_s=0.0)


def _patient_phi() -> FailureDetector:
    return PhiAccrual(60.0, threshold=300.0, window=1000, acceptable_pause_s=90.0)


ALL = [_misses, _odd_misses, _phi, _hasty_phi, _patient_phi]

INTERVALS = st.lists(
    st.one_of(st.sampled_from([0.0, 0.1, 0.5, 3.0, 60.0]), st.floats(0.0, 100.0)), min_size=1, max_size=60
)
STARTS = st.sampled_from([0.0, 0.3, 1000.0, 123456.789, 1e7])


@pytest.mark.parametrize("make", ALL)
def test_before_the_first_heartbeat_nothing_is_suspected(make: Make) -> None:
    detector = make()
    assert detector.deadline() == math.inf
    assert detector.suspicion(0.0) == 0.0
    assert detector.suspicion(1e9) == 0.0


@pytest.mark.parametrize("make", ALL)
@given(intervals=INTERVALS, start=STARTS)
def test_nothing_is_suspected_right_after_a_heartbeat(
    make: Make, intervals: list[float], start: float
) -> None:
    detector, now = make(), start
    for interval_s in intervals:
        now += interval_s
        detector.heartbeat(now)
        assert detector.suspicion(now) == 0.0
        assert detector.suspicion(now - 1.0) == 0.0, "nor for a look at the past"
        assert now < detector.deadline() < math.inf


@pytest.mark.parametrize("make", ALL)
@given(intervals=INTERVALS, start=STARTS, data=st.data())
def test_suspicion_never_falls_between_heartbeats(
    make: Make, intervals: list[float], start: float, data: st.DataObject
) -> None:
    detector, now = make(), start
    for interval_s in intervals:
        now += interval_s
        detector.heartbeat(now)
    span_s = detector.deadline() - now
    parts = data.draw(st.lists(st.floats(0.0, 4.0), min_size=2, max_size=30))
    times = sorted([*(now + span_s * part for part in parts), detector.deadline()])
    suspicions = [detector.suspicion(at) for at in times]
    assert all(earlier <= later for earlier, later in itertools.pairwise(suspicions)), suspicions


@pytest.mark.parametrize("make", ALL)
@given(intervals=INTERVALS, start=STARTS)
def test_suspicion_reaches_one_at_the_deadline_and_not_before(
    make: Make, intervals: list[float], start: float
) -> None:
    detector, now = make(), start
    for interval_s in intervals:
        now += interval_s
        detector.heartbeat(now)
        deadline = detector.deadline()
        assert detector.suspicion(math.nextafter(deadline, -math.inf)) < 1.0
        assert detector.suspicion(deadline) >= 1.0
        assert detector.suspicion(deadline - (deadline - now) / 100) < 0.9999
        assert detector.suspicion(deadline + (deadline - now) / 100) > 1.0001


@pytest.mark.parametrize("make", ALL)
def test_suspicion_stays_a_number_after_a_hundred_years(make: Make) -> None:
    detector = make()
    detector.heartbeat(10.0)
    for later_s in (1e3, 1e6, 3e9, 1e100, 1e200, math.inf):
        suspicion = detector.suspicion(10.0 + later_s)
        assert suspicion > 1.0
        assert not math.isnan(suspicion)


@pytest.mark.parametrize("make", ALL)
def test_a_heartbeat_after_an_outage_clears_all(make: Make) -> None:
    detector = make()
    for beat in range(20):
        detector.heartbeat(beat * 1.0)
    detector.heartbeat(1e6)
    assert detector.suspicion(1e6) == 0.0
    assert detector.suspicion(1e6 + 0.3) < 1.0
    assert detector.deadline() > 1e6


@pytest.mark.parametrize("make", ALL)
@given(intervals=INTERVALS, data=st.data())
def test_a_heartbeat_told_again_or_late_is_no_news(
    make: Make, intervals: list[float], data: st.DataObject
) -> None:
    told_once, told_often, now = make(), make(), 50.0
    for interval_s in intervals:
        now += interval_s
        told_once.heartbeat(now)
        told_often.heartbeat(now)
        told_often.heartbeat(now - data.draw(st.sampled_from([0.0, 0.0, 1.0, 40.0])))
        assert told_often.deadline() == told_once.deadline()
        assert told_often.suspicion(now + 1.0) == told_once.suspicion(now + 1.0)
