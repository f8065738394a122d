"""Missed heartbeats, in numbers."""

from __future__ import annotations

import pytest

from rpcfw.detector import Misses


@pytest.mark.parametrize(
    ("now", "suspicion"),
    [(100.0, 0.0), (103.0, 1 / 3), (104.5, 0.5), (106.0, 2 / 3), (109.0, 1.0), (118.0, 2.0)],
)
def test_suspicion_is_the_share_of_the_time_that_has_passed(now: float, suspicion: float) -> None:
    detector = Misses(3.0, 3)
    detector.heartbeat(100.0)
    assert detector.suspicion(now) == pytest.approx(suspicion)


def test_three_missed_heartbeats_are_the_default() -> None:
    detector = Misses(2.0)
    detector.heartbeat(100.0)
    assert detector.deadline() == 106.0


def test_how_regular_heartbeats_are_makes_no_difference() -> None:
    detector = Misses(1.0, 3)
    for now in (0.0, 0.1, 2.9, 3.0, 5.9):
        detector.heartbeat(now)
    assert detector.deadline() == pytest.approx(8.9)


@pytest.mark.parametrize(
    ("interval_s", "misses", "message"),
    [
        (0.0, 3, r"interval_s=0\.0"),
        (-1.0, 3, r"interval_s=-1\.0"),
        (float("inf"), 3, "inf"),
        (1.0, 0, "misses=0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_value(interval_s: float, misses: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Misses(interval_s, misses)
