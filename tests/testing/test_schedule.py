"""Schedules of faults: their text reads back, and what a seed draws is the same everywhere and within bounds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import cast

import pytest

from rpcfw.testing.schedule import KINDS, Fault, Kind, Schedule, Targets, random_schedule

HOSTS = ("a", "b", "c", "d", "e")

# --------------------------------------------------------------------------------------------- random schedules

DRAW = """
import random
from rpcfw.testing.nemesis import random_schedule
print(random_schedule(random.Random("7/nemesis"), ["a", "b", "c", "d", "e"], 500.0, kinds={"crash", "one_way", "slow"}))
"""


def test_the_same_seed_draws_the_same_schedule_in_every_process_and_with_every_hash_seed() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "2", "random")
    }
    assert len(texts) == 1
    drawn = Schedule.parse(texts.pop())
    assert {fault.kind for fault in drawn} == {"crash", "one_way", "slow"}
    assert drawn != random_schedule(
        random.Random("8/nemesis"), HOSTS, 500.0, kinds={"crash", "one_way", "slow"}
    )


def test_every_kind_is_drawn_about_as_often_as_the_gap_says_and_all_ends_before_the_span() -> None:
    kinds: list[Kind] = []
    for seed in range(100):
        print("seed", seed)
        schedule = random_schedule(random.Random(seed), HOSTS, 100.0, mean_gap_s=2.0)
        assert all(fault.ends_s < 100.0 for fault in schedule)
        kinds.extend(fault.kind for fault in schedule)
    assert set(kinds) == set(KINDS)
    assert 4_500 < len(kinds) < 5_500
    assert min(kinds.count(kind) for kind in KINDS) > 500


@pytest.mark.parametrize("at_most", [1, 2, 3])
def test_no_more_hosts_than_allowed_are_broken_at_a_time(at_most: int) -> None:
    most = 0
    for seed in range(100):
        print("seed", seed)
        schedule = random_schedule(random.Random(seed), HOSTS, 100.0, mean_gap_s=1.0, at_most=at_most)
        for fault in schedule:
            at_once = [other for other in schedule if other.at_s <= fault.at_s < other.ends_s]
            most = max(most, len(frozenset[str]().union(*(other.victims for other in at_once))))
    assert most == at_most


def test_of_two_groups_the_smaller_one_is_broken() -> None:
    assert Fault(1.0, "partition", (("a", "b"), ("c",)), 1.0).victims == {"c"}
    assert Fault(1.0, "one_way", (("a",), ("b", "c")), 1.0).victims == {"a"}
    assert Fault(1.0, "crash", ("a", "b"), 1.0).victims == {"a", "b"}
    assert Fault(1.0, "lossy", (), 1.0, 0.5).victims == set()


def test_a_single_host_has_no_partitions() -> None:
    schedule = random_schedule(random.Random(1), ["a"], 1_000.0)
    assert {fault.kind for fault in schedule} == set(KINDS) - {"partition", "one_way"}


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda rng: random_schedule(rng, [], 10.0), "hosts=\\[\\]"),
        (lambda rng: random_schedule(rng, ["a"], 10.0, kinds=["partition"]), "'partition'.*can befall"),
        (lambda rng: random_schedule(rng, ["a"], 10.0, kinds=[cast("Kind", "flood")]), "'flood'"),
        (lambda rng: random_schedule(rng, ["a"], 0.0), "span_s=0.0"),
        (lambda rng: random_schedule(rng, ["a"], 10.0, mean_gap_s=0.0), "mean_gap_s=0.0"),
        (lambda rng: random_schedule(rng, ["a"], 10.0, at_most=0), "at_most=0"),
    ],
)
def test_a_schedule_that_cannot_be_drawn_says_why(
    draw: Callable[[random.Random], Schedule], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        draw(random.Random(1))


# ------------------------------------------------------------------------------------------------------- text


def test_the_text_of_500_random_schedules_reads_back_as_what_it_was() -> None:
    for seed in range(500):
        print("seed", seed)
        rng = random.Random(seed)
        drawn = random_schedule(rng, ["orders", "stock-2", "10.0.0.3", "for", "s"], 50.0, mean_gap_s=2.0)
        schedule = Schedule(
            tuple(
                Fault(
                    fault.at_s * rng.random(),
                    fault.kind,
                    fault.targets,
                    fault.lasts_s * 1e-9 ** rng.random(),
                    fault.value,
                )
                for fault in drawn
            )
        )
        assert Schedule.parse(str(drawn)) == drawn
        assert Schedule.parse(str(schedule)) == schedule
        assert Schedule.parse("\n".join(str(fault) for fault in schedule)) == schedule


def test_a_schedule_reads_as_a_timeline_in_columns() -> None:
    schedule = Schedule(
        (
            Fault(12.5, "one_way", (("stock",), ("orders", "client")), 0.25),
            Fault(3, "slow", ("orders",), 10, 8),
            Fault(3, "lossy", (), 1e-06, 0.5),
        )
    )
    assert str(schedule).splitlines() == [
        "   3 s  slow     orders                  for 10 s  factor 8",
        "   3 s  lossy    *                       for 1e-06 s  probability 0.5",
        "12.5 s  one_way  stock -> orders,client  for 0.25 s",
    ]
    assert Schedule.parse(f"# found by seed 7\n\n{schedule}\n") == schedule
    assert Schedule.parse(str(Schedule())) == Schedule()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("crash a", "does not read like"),
        ("1 s crash a for 2 s or so", "does not read like|a crash has no value"),
        ("soon s crash a for 2 s", "soon"),
        ("-1 s crash a for 2 s", "at_s=-1.0"),
        ("nan s crash a for 2 s", "at_s=nan"),
        ("1 s crash a for 0 s", "lasts_s=0.0"),
        ("1 s crash a for inf s", "lasts_s=inf"),
        ("1 s flood a for 2 s", "'flood'.*the kinds are crash"),
        ("1 s crash a for 2 s factor 3", "a crash has no value"),
        ("1 s slow a for 2 s", "ends in its factor"),
        ("1 s slow a for 2 s factor 0.5", "value=0.5"),
        ("1 s slow a for 2 s factor inf", "value=inf"),
        ("1 s drift a for 2 s rate 0", "value=0.0"),
        ("1 s lossy * for 2 s probability 1.5", "value=1.5"),
        ("1 s lossy a for 2 s probability 0.5", "the whole network"),
        ("1 s partition a,b for 2 s", "two groups"),
        ("1 s one_way a | b for 2 s", "two groups"),
        ("1 s partition a | b | c for 2 s", "two groups"),
        ("1 s partition a,b | b for 2 s", "twice"),
        ("1 s crash a,,b for 2 s", "'' cannot name a host"),
        ("1 s crash a b for 2 s", "'a b' cannot name a host"),
    ],
)
def test_a_line_that_makes_no_sense_is_named_with_its_number_and_its_fault(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)line 2 of the schedule.*({says})") as caught:
        Schedule.parse(f"1 s crash a for 2 s\n{line}\n")
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("crash", ()),
        ("crash", "orders"),
        ("partition", ("a", "b")),
        ("one_way", (("a",),)),
        ("crash", (("a",), ("b",))),
    ],
)
def test_targets_of_the_wrong_shape_are_refused(kind: Kind, targets: Targets) -> None:
    with pytest.raises(ValueError, match=r"targets=|cannot name a host"):
        Fault(1.0, kind, targets, 1.0)
