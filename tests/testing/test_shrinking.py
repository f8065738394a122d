"""Shrinking: what is left of a failing schedule still fails, is short and round, and is found within the attempts."""

from __future__ import annotations

import itertools
import random

import pytest

from rpcfw.testing.schedule import Fault, Schedule, random_schedule
from rpcfw.testing.shrinking import shrink

HOSTS = ("a", "b", "c", "d", "e")
CRASH = Schedule((Fault(1.0, "crash", ("a",), 2.0),))


class Planted:
    """Fails when both of two faults of a schedule occur, each to its first host, and for half of its time."""

    def __init__(self, schedule: Schedule, rng: random.Random) -> None:
        self.one, self.other = rng.sample(schedule.faults, 2)
        self.asked = 0

    def __call__(self, schedule: Schedule) -> bool:
        self.asked += 1
        return self.occurs(schedule, self.one) and self.occurs(schedule, self.other)

    @staticmethod
    def occurs(schedule: Schedule, planted: Fault) -> bool:
        return any(
            fault.kind == planted.kind
            and fault.value == planted.value
            and set(planted.hosts[:1]) <= set(fault.hosts)
            and fault.lasts_s >= planted.lasts_s / 2
            for fault in schedule
        )


def thirty_faults(rng: random.Random) -> Schedule:
    return Schedule(random_schedule(rng, HOSTS, 400.0, mean_gap_s=5.0).faults[:30])


def test_shrinking_finds_the_pair_that_matters_among_thirty_faults_within_the_attempts() -> None:
    most = 0
    for seed in range(100):
        print("seed", seed)
        rng = random.Random(seed)
        schedule = thirty_faults(rng)
        assert len(schedule) == 30
        fails = Planted(schedule, rng)
        shrunk = shrink(schedule, fails)
        most = max(most, fails.asked)
        assert fails(shrunk)
        assert len(shrunk) <= 2
        assert all(len(fault.hosts) <= 3 for fault in shrunk)
        assert shrink(schedule, fails) == shrunk
    assert most <= 100


def test_shrinking_shortens_what_is_left_and_rounds_its_times() -> None:
    schedule = Schedule.parse(
        """
        3.217 s  crash      a,b,c      for 7.391 s
        4.444 s  lossy      *          for 7.77 s   probability 0.5
        5.813 s  partition  a,b | c,d  for 2.871 s
        """
    )

    def fails(candidate: Schedule) -> bool:
        return any(
            crash.kind == "crash"
            and "b" in crash.hosts
            and parting.kind == "partition"
            and {"a", "d"} <= set(parting.hosts)
            and crash.at_s < parting.at_s
            and parting.ends_s < crash.ends_s
            for crash, parting in itertools.product(candidate, candidate)
        )

    assert str(shrink(schedule, fails)).splitlines() == [
        "3 s  crash      b      for 5 s",
        "5 s  partition  a | d  for 0.001 s",
    ]


def test_shrinking_stops_at_its_attempts_with_what_still_fails() -> None:
    for attempts in range(1, 40):
        rng = random.Random(attempts)
        schedule = thirty_faults(rng)
        fails = Planted(schedule, rng)
        shrunk = shrink(schedule, fails, attempts=attempts)
        assert fails.asked <= attempts
        assert fails(shrunk)


def test_shrinking_asks_about_no_schedule_twice() -> None:
    rng = random.Random(3)
    schedule = thirty_faults(rng)
    planted = Planted(schedule, rng)
    asked: list[Schedule] = []

    def fails(candidate: Schedule) -> bool:
        asked.append(candidate)
        return planted(candidate)

    shrink(schedule, fails)
    assert len(asked) == len(set(asked))


def test_no_fault_ends_later_than_it_did_while_a_schedule_shrinks() -> None:
    for seed in range(50):
        print("seed", seed)
        rng = random.Random(seed)
        schedule = thirty_faults(rng)
        planted = Planted(schedule, rng)
        ends_s = max(fault.ends_s for fault in schedule)

        def fails(candidate: Schedule, planted: Planted = planted, ends_s: float = ends_s) -> bool:
            assert all(fault.ends_s <= ends_s for fault in candidate)
            return planted(candidate)

        shrink(schedule, fails)


def test_a_failure_without_any_fault_shrinks_to_no_faults() -> None:
    assert shrink(CRASH, lambda _: True) == Schedule()


def test_a_schedule_that_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(ValueError, match=r"does not fail(.|\n)*1 s  crash"):
        shrink(CRASH, lambda _: False)
    with pytest.raises(ValueError, match="attempts=0"):
        shrink(CRASH, lambda _: True, attempts=0)


def test_times_that_must_keep_their_distance_are_rounded_together() -> None:
    schedule = Schedule.parse("13.1 s crash a for 2 s\n24.2 s pause b for 2 s")

    def fails(candidate: Schedule) -> bool:
        begins_s = {fault.kind: fault.at_s for fault in candidate}
        return len(begins_s) == 2 and 10.0 <= begins_s["pause"] - begins_s["crash"] <= 12.0

    assert [fault.at_s for fault in shrink(schedule, fails)] == [10.0, 20.0]


def test_a_time_is_rounded_alone_where_another_must_stay_exact() -> None:
    schedule = Schedule.parse("13.123 s crash a for 0.0017 s\n24.234 s pause b for 17.2 s")

    def fails(candidate: Schedule) -> bool:
        exact = any(fault.kind == "crash" and fault.at_s == 13.123 for fault in candidate)
        return exact and any(fault.kind == "pause" and fault.lasts_s > 11.0 for fault in candidate)

    assert str(shrink(schedule, fails)).splitlines() == [
        "13.123 s  crash  a  for 0.001 s",
        "    20 s  pause  b  for 17 s",
    ]
