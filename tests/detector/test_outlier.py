"""Ejection of nodes whose calls go badly: what ejects, for how long, how many, and how they come back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest

from rpcfw.detector import Judgement, Outlier, OutlierRules


def fleet(count: int, rules: OutlierRules | None = None) -> Outlier:
    """An outlier detector with nodes a, b, c and so on, after its first sweep."""
    outlier = Outlier(rules) if rules is not None else Outlier()
    for number in range(count):
        outlier.add(chr(ord("a") + number))
    outlier.sweep(0.0)
    return outlier


def fail(outlier: Outlier, node_id: str, now: float, times: int = 5) -> Judgement | None:
    """Let so many calls of a node fail; what the last one led to."""
    judgement = None
    for _ in range(times):
        judgement = outlier.failed(node_id, now)
    return judgement


# failures in a row


def test_five_failures_in_a_row_eject_a_node_for_thirty_seconds() -> None:
    outlier = fleet(4)
    assert fail(outlier, "a", 1.0, 4) is None
    judgement = outlier.failed("a", 1.0)
    assert judgement == Judgement("a", True, 31.0, "calls that failed in a row: 5; it gets no calls for 30 s")
    assert outlier.is_ejected("a", 1.0)
    assert not outlier.is_ejected("b", 1.0)
    assert outlier.ejected(1.0) == {"a"}
    assert outlier.ejected(30.9) == {"a"}
    assert outlier.ejected(31.0) == frozenset()
    assert not outlier.is_ejected("a", 31.0)


def test_a_success_in_between_begins_the_count_anew() -> None:
    outlier = fleet(4)
    for _ in range(20):
        assert fail(outlier, "a", 1.0, 4) is None
        outlier.succeeded("a", 1.0, 0.01)
    assert outlier.ejected(1.0) == frozenset()


def test_a_sweep_does_not_interrupt_a_row_of_failures() -> None:
    outlier = fleet(4)
    assert fail(outlier, "a", 9.0, 4) is None
    outlier.sweep(10.0)
    assert outlier.failed("a", 11.0) is not None


def test_failures_in_a_row_can_be_left_out() -> None:
    outlier = fleet(4, OutlierRules(consecutive=None))
    assert fail(outlier, "a", 1.0, 1000) is None


def test_calls_that_end_while_a_node_is_out_count_nothing() -> None:
    outlier = fleet(4)
    fail(outlier, "a", 1.0)
    assert fail(outlier, "a", 2.0, 100) is None
    outlier.succeeded("a", 2.0, 0.01)
    assert outlier.ejected(2.0) == {"a"}
    assert fail(outlier, "a", 31.0, 4) is None, "it comes back with a clean record"
    assert outlier.failed("a", 31.0) is not None


# coming back


def test_a_sweep_tells_who_is_back() -> None:
    outlier = fleet(4)
    fail(outlier, "a", 1.0)
    assert outlier.sweep(20.0) == []
    assert outlier.next_look() == 30.0
    assert outlier.sweep(30.0) == []
    assert outlier.next_look() == 31.0, "the time of a node comes before the next comparison"
    assert outlier.sweep(31.0) == [Judgement("a", False, 31.0, "its time is over")]
    assert outlier.sweep(31.0) == []
    assert outlier.next_look() == 40.0


def test_a_node_that_fails_at_once_again_stays_out_longer_each_time() -> None:
    outlier, now, times = fleet(4), 1.0, []
    for _ in range(14):
        judgement = fail(outlier, "a", now)
        assert judgement is not None
        times.append(judgement.until - now)
        now = judgement.until
        outlier.sweep(now)
    assert times == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300, 300, 300]


def test_each_interval_in_which_it_answers_takes_one_ejection_off() -> None:
    outlier, now = fleet(4), 1.0
    for _ in range(3):
        judgement = fail(outlier, "a", now)
        assert judgement is not None
        now = judgement.until
        outlier.sweep(now)
    for _ in range(2):
        now += 10.0
        outlier.succeeded("a", now, 0.01)
        outlier.sweep(now)
    now += 10.0
    outlier.sweep(now)  # no calls: says nothing
    judgement = fail(outlier, "a", now)
    assert judgement is not None
    assert judgement.until - now == 60.0


def test_a_node_that_fails_before_the_sweep_is_ejected_twice_in_a_row() -> None:
    outlier = fleet(4)
    fail(outlier, "a", 1.0)
    judgement = fail(outlier, "a", 31.5)
    assert judgement is not None
    assert judgement.until == 91.5
    assert outlier.sweep(32.0) == []
    assert outlier.ejected(90.0) == {"a"}


# how many


@pytest.mark.parametrize(
    ("count", "share", "most"),
    [
        (1, 0.5, 0),
        (2, 0.5, 1),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (5, 0.5, 2),
        (10, 0.5, 5),
        (10, 0.3, 3),
        (5, 0.1, 1),
        (20, 0.1, 2),
        (3, 1.0, 2),
        (1, 1.0, 0),
        (4, 0.0, 1),
    ],
)
def test_no_more_than_the_share_is_out_at_a_time_but_always_one_of_two_and_never_the_last(
    count: int, share: float, most: int
) -> None:
    outlier = fleet(count, OutlierRules(max_ejected=share))
    for number in range(count):
        fail(outlier, chr(ord("a") + number), 1.0)
    assert len(outlier.ejected(1.0)) == most


def test_a_failing_node_is_ejected_as_soon_as_there_is_room() -> None:
    outlier = fleet(2)
    fail(outlier, "a", 1.0)
    assert fail(outlier, "b", 1.0) is None
    assert outlier.failed("b", 30.9) is None
    assert outlier.failed("b", 31.0) is not None


def test_nodes_come_back_when_those_that_were_well_leave() -> None:
    outlier = fleet(6)
    for number, node_id in enumerate("abc"):
        fail(outlier, node_id, 1.0 + number)
    assert outlier.forget("d") == [Judgement("a", False, 31.0, "of 5 nodes that are left too many were out")]
    assert outlier.ejected(5.0) == {"b", "c"}
    assert outlier.forget("e") == []
    assert [judgement.node_id for judgement in outlier.forget("f")] == ["b"]
    assert outlier.ejected(5.0) == {"c"}
    assert outlier.forget("b") == []
    assert outlier.forget("a")[0].node_id == "c", "the last node is never out"
    assert outlier.ejected(5.0) == frozenset()


@pytest.mark.parametrize(
    ("total", "healthy", "panicking"),
    [
        (10, 10, False),
        (10, 5, False),
        (10, 4, True),
        (3, 1, True),
        (3, 2, False),
        (1, 0, True),
        (0, 0, False),
    ],
)
def test_panic_is_when_fewer_than_half_are_left(total: int, healthy: int, panicking: bool) -> None:
    assert Outlier().panicking(total, healthy) is panicking


# forgetting


def test_forgotten_and_unknown_nodes_leave_nothing_behind() -> None:
    outlier = fleet(4)
    fail(outlier, "a", 1.0)
    outlier.forget("a")
    assert fail(outlier, "a", 2.0, 50) is None
    outlier.succeeded("a", 2.0, 0.01)
    assert outlier.ejected(2.0) == frozenset()
    for number in range(1000):
        outlier.failed(f"unknown {number}", 2.0)
        outlier.succeeded(f"unknown {number}", 2.0, 0.01)
        outlier.forget(f"unknown {number}")
    assert len(outlier._records) == 3
    outlier.add("a")
    assert fail(outlier, "a", 3.0, 4) is None, "it begins anew"
    judgement = outlier.failed("a", 3.0)
    assert judgement is not None
    assert judgement.until - 3.0 == 30.0, "and its times out are forgotten"


def test_to_add_a_node_again_changes_nothing() -> None:
    outlier = fleet(4)
    fail(outlier, "a", 1.0, 4)
    outlier.add("a")
    assert outlier.failed("a", 1.0) is not None
    outlier.add("a")
    assert outlier.ejected(1.0) == {"a"}


# success rates


def rates(outlier: Outlier, of: Mapping[str, tuple[int, int]], now: float = 5.0) -> None:
    """Let calls of nodes go well and badly, so many of each."""
    for node_id, (good, bad) in of.items():
        for _ in range(bad):
            outlier.failed(node_id, now)
            if good:
                good -= 1
                outlier.succeeded(node_id, now, 0.01)
        for _ in range(good):
            outlier.succeeded(node_id, now, 0.01)


@pytest.mark.parametrize(
    ("of", "ejected"),
    [
        ({"a": (60, 40), "b": (100, 0), "c": (100, 0), "d": (100, 0), "e": (100, 0)}, {"a"}),
        ({"a": (60, 40), "b": (60, 40), "c": (60, 40), "d": (60, 40), "e": (60, 40)}, set()),  # all alike
        ({"a": (59, 40), "b": (100, 0), "c": (100, 0), "d": (100, 0), "e": (100, 0)}, set()),  # 99 calls
        ({"a": (60, 40), "b": (100, 0), "c": (100, 0), "d": (100, 0)}, set()),  # 4 nodes
        ({"a": (199, 1), "b": (200, 0), "c": (200, 0), "d": (200, 0), "e": (200, 0)}, set()),  # margin
        ({"a": (94, 6), "b": (99, 1), "c": (98, 2), "d": (97, 3), "e": (100, 0)}, set()),  # spread
        ({"a": (60, 40), "b": (98, 2), "c": (97, 3), "d": (99, 1), "e": (95, 5)}, {"a"}),
    ],
)
def test_a_node_whose_success_rate_is_far_below_the_average_is_ejected(
    of: dict[str, tuple[int, int]], ejected: set[str]
) -> None:
    outlier = fleet(len(of))
    rates(outlier, of)
    assert outlier.sweep(9.9) == []
    judgements = outlier.sweep(10.0)
    print(judgements)
    assert {judgement.node_id for judgement in judgements} == ejected == outlier.ejected(10.0)


def test_the_reason_of_a_bad_success_rate_has_the_numbers() -> None:
    outlier = fleet(5)
    rates(outlier, {"a": (60, 40), "b": (100, 0), "c": (100, 0), "d": (100, 0), "e": (100, 0)})
    assert outlier.sweep(10.0)[0].why == (
        "60.0% of its calls succeeded, 92.0% on the average of 5 nodes; it gets no calls for 30 s"
    )


def test_each_interval_is_judged_by_its_own_calls() -> None:
    outlier = fleet(5)
    well = dict.fromkeys("bcde", (100, 0))
    rates(outlier, {"a": (60, 30), **well})
    assert outlier.sweep(10.0) == []
    rates(outlier, {"a": (60, 30), **well}, now=15.0)
    assert outlier.sweep(20.0) == [], "90 calls, and 90 again, are not 180"


def test_a_node_that_is_out_is_not_compared() -> None:
    outlier = fleet(6)
    fail(outlier, "f", 1.0)
    rates(outlier, {"a": (60, 40), **dict.fromkeys("bcde", (100, 0))})
    assert [judgement.node_id for judgement in outlier.sweep(10.0)] == ["a"]


def test_success_rates_can_be_left_out() -> None:
    outlier = fleet(5, OutlierRules(success_rate_stdev=None))
    rates(outlier, {"a": (60, 40), **dict.fromkeys("bcde", (100, 0))})
    assert outlier.sweep(10.0) == []


def test_the_worst_are_ejected_first_where_not_all_can_be() -> None:
    rules = OutlierRules(max_ejected=0.1, success_rate_stdev=1.0)
    outlier = fleet(10, rules)
    rates(outlier, {"a": (70, 30), "b": (50, 50), "c": (60, 40), **dict.fromkeys("defghij", (100, 0))})
    assert [judgement.node_id for judgement in outlier.sweep(10.0)] == ["b"]


# latency

SLOW = OutlierRules(slow_factor=5.0)


def latencies(outlier: Outlier, of: Mapping[str, float], now: float = 5.0, calls: int = 20) -> None:
    """Let calls of nodes take so many seconds."""
    for node_id, latency_s in of.items():
        for _ in range(calls):
            outlier.succeeded(node_id, now, latency_s)


def test_a_node_twenty_times_slower_than_the_others_is_ejected_where_that_is_asked_for() -> None:
    outlier = fleet(5, SLOW)
    latencies(outlier, {"a": 0.1, "b": 0.005, "c": 0.005, "d": 0.004, "e": 0.006})
    (judgement,) = outlier.sweep(10.0)
    print(judgement)
    assert judgement.node_id == "a"
    assert judgement.why == (
        "its calls took 100.0 ms on the average, 5.0 ms on the median of 5 nodes; it gets no calls for 30 s"
    )
    assert outlier.next_look() == 20.0
    outlier.sweep(40.0)
    latencies(outlier, dict.fromkeys("abcde", 0.005), now=45.0)
    assert outlier.sweep(50.0) == [], "it is well again and stays"


@pytest.mark.parametrize(
    ("rules", "calls", "of"),
    [
        (OutlierRules(), 20, {"a": 0.1, "b": 0.005, "c": 0.005}),  # the default
        (SLOW, 19, {"a": 0.1, "b": 0.005, "c": 0.005}),  # too few calls
        (SLOW, 20, {"a": 0.1, "b": 0.005}),  # no majority
        (SLOW, 20, {"a": 0.025, "b": 0.005, "c": 0.005}),  # not so much slower
        (SLOW, 20, {"a": 0.009, "b": 0.0005, "c": 0.0005}),  # fast anyway
    ],
)
def test_a_slow_node_stays_unless_it_is_surely_slow(
    rules: OutlierRules, calls: int, of: dict[str, float]
) -> None:
    outlier = fleet(len(of), rules)
    latencies(outlier, of, calls=calls)
    assert outlier.sweep(10.0) == []


def test_the_slowest_are_ejected_first_where_not_all_can_be() -> None:
    outlier = fleet(5, OutlierRules(slow_factor=5.0, max_ejected=0.2))
    latencies(outlier, {"a": 0.1, "b": 0.2, "c": 0.005, "d": 0.005, "e": 0.005})
    assert [judgement.node_id for judgement in outlier.sweep(10.0)] == ["b"]


def test_latencies_of_each_interval_are_judged_on_their_own() -> None:
    outlier = fleet(3, SLOW)
    for now in (10.0, 20.0):
        latencies(outlier, {"a": 0.1, "b": 0.005, "c": 0.005}, now=now - 5, calls=15)
        assert outlier.sweep(now) == [], "15 calls, and 15 again, are not 30"


# a fleet in which one node is broken, told over time


def test_what_a_broken_node_costs_over_ten_minutes() -> None:
    """One of five nodes fails all calls for five minutes, 100 calls a second in round robin."""
    seed = 7
    print(f"seed {seed}")
    rng, outlier = random.Random(seed), fleet(5)
    failed = late = told = 0
    for step in range(60_000):
        now = step / 100
        if outlier.next_look() <= now:
            for judgement in outlier.sweep(now):
                told += 1
                print(f"{now:6.2f} s  {judgement.node_id} is back: {judgement.why}")
        node_id = rng.choice([node_id for node_id in "abcde" if not outlier.is_ejected(node_id, now)])
        if node_id == "a" and 60 <= now < 360:
            failed += 1
            ejected = outlier.failed(node_id, now)
            if ejected is not None:
                told += 1
                print(f"{now:6.2f} s  {ejected.node_id} is ejected: {ejected.why}")
        else:
            outlier.succeeded(node_id, now, 0.005)
            late += node_id == "a" and now >= 500
    print(f"{failed} calls of 30,000 failed while it was broken; it took {late} of 10,000 calls after 500 s")
    assert failed <= 25
    assert 1800 < late < 2200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OutlierRules(consecutive=0), "consecutive=0"),
        (lambda: OutlierRules(min_hosts=0), "min_hosts=0"),
        (lambda: OutlierRules(min_requests=0), "min_requests=0"),
        (lambda: OutlierRules(max_ejected=1.5), r"max_ejected=1\.5"),
        (lambda: OutlierRules(panic=-0.1), r"panic=-0\.1"),
        (lambda: OutlierRules(success_rate_margin=2), "success_rate_margin=2"),
        (lambda: OutlierRules(interval_s=0.0), r"interval_s=0\.0"),
        (lambda: OutlierRules(ejection_s=0.0), r"ejection_s=0\.0"),
        (lambda: OutlierRules(max_ejection_s=10.0), r"max_ejection_s=10\.0"),
        (lambda: OutlierRules(max_ejection_s=math.inf), "max_ejection_s=inf"),
        (lambda: OutlierRules(success_rate_stdev=0.0), r"success_rate_stdev=0\.0"),
        (lambda: OutlierRules(slow_factor=1.0), r"slow_factor=1\.0"),
        (lambda: OutlierRules(slow_least_s=-1.0), r"slow_least_s=-1\.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
