"""When each breaker opens, for how long, and what it refuses to be made with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from rpcfw.breaker import Adaptive, ConsecutiveFailures, FailureRatio, Recovery, State

OUTCOMES = {"+": False, "-": True, ".": None}


def feed(breaker: ConsecutiveFailures | FailureRatio | Adaptive, ends: str, now: float = 0.0) -> int:
    """Let calls end (+ well, - badly, . cancelled) until it refuses one; how many were let through."""
    for passed, end in enumerate(ends):
        ticket = breaker.enter(now)
        if not ticket:
            return passed
        breaker.leave(now, ticket, OUTCOMES[end])
    return len(ends)


# failures in a row


@pytest.mark.parametrize(
    ("failures", "ends", "state"),
    [
        (5, "-----", State.OPEN),
        (5, "----", State.CLOSED),
        (5, "----+----", State.CLOSED),
        (5, "----+-----", State.OPEN),
        (5, "--.-.--", State.OPEN),
        (5, "++++++", State.CLOSED),
        (1, "-", State.OPEN),
        (1, "+.+", State.CLOSED),
        (2, "-+-+-+-+", State.CLOSED),
    ],
)
def test_it_opens_after_so_many_failures_in_a_row(failures: int, ends: str, state: State) -> None:
    breaker = ConsecutiveFailures(failures)
    feed(breaker, ends)
    assert breaker.state(0.0) is state


def test_five_failures_are_the_default() -> None:
    assert feed(ConsecutiveFailures(), "-" * 10) == 5


# how long it stays open


def open_times(recovery: Recovery, seed: int, rounds: int) -> list[float]:
    """How long a breaker stays open each time, when each probe fails."""
    breaker = ConsecutiveFailures(1, recovery=recovery, rng=random.Random(seed))
    now, times = 0.0, []
    for _ in range(rounds):
        breaker.leave(now, breaker.enter(now), True)
        times.append(breaker.retry_at(now) - now)
        now = breaker.retry_at(now)
    return times


def test_the_time_it_stays_open_doubles_from_5_to_300_seconds_with_equal_jitter() -> None:
    seeds = range(40)
    print(f"seeds {seeds}")
    all_times = [open_times(Recovery(), seed, 12) for seed in seeds]
    for times in all_times:
        for number, open_s in enumerate(times, 1):
            most_s = min(300.0, 5.0 * 2**number)
            assert most_s / 2 - 1e-6 <= open_s <= most_s + 1e-6
    first = [times[0] for times in all_times]
    assert max(first) - min(first) > 3, "clients do not probe at the same time"
    last = [times[-1] for times in all_times]
    assert max(last) - min(last) > 90, "nor when the time grows no longer"


def test_the_same_seed_gives_the_same_times() -> None:
    assert open_times(Recovery(), 3, 8) == open_times(Recovery(), 3, 8)
    assert open_times(Recovery(), 3, 8) != open_times(Recovery(), 4, 8)


def test_the_time_is_fixed_where_the_longest_is_the_shortest() -> None:
    assert open_times(Recovery(open_s=3.0, max_open_s=3.0), 1, 4) == [3.0] * 4


def test_the_time_begins_anew_once_it_was_closed() -> None:
    recovery = Recovery(open_s=1.0, max_open_s=64.0, successes_to_close=1)
    breaker = ConsecutiveFailures(1, recovery=recovery, rng=random.Random(5))
    now = 0.0
    for _ in range(6):
        breaker.leave(now, breaker.enter(now), True)
        now = breaker.retry_at(now)
    breaker.leave(now, breaker.enter(now), False)
    assert breaker.state(now) is State.CLOSED
    breaker.leave(now, breaker.enter(now), True)
    assert 1.0 <= breaker.retry_at(now) - now <= 2.0


def test_it_can_stay_broken_for_years() -> None:
    times = open_times(Recovery(), 1, 3000)
    assert all(150.0 - 1e-3 <= open_s <= 300.0 + 1e-3 for open_s in times[10:])


# shares of failures


@pytest.mark.parametrize(
    ("ratio", "min_calls", "ends", "state"),
    [
        (0.5, 4, "---", State.CLOSED),
        (0.5, 4, "++--", State.OPEN),
        (0.5, 4, "+++-", State.CLOSED),
        (0.5, 4, "+++----", State.OPEN),
        (0.5, 4, "--.+.+", State.OPEN),
        (0.5, 4, "....----", State.OPEN),
        (1.0, 3, "--+---------", State.CLOSED),
        (1.0, 3, "---", State.OPEN),
        (0.1, 10, "-+++++++++", State.OPEN),
        (0.1, 10, "-++++++++", State.CLOSED),
        (0.3, 10, "---+++++++", State.OPEN),
        (0.1, 1, "++++++++++", State.CLOSED),
    ],
)
@pytest.mark.parametrize("last", [None, 100])
def test_it_opens_when_the_share_of_failures_is_reached(
    ratio: float, min_calls: int, ends: str, state: State, last: int | None
) -> None:
    breaker = FailureRatio(ratio, min_calls=min_calls, last=last)
    feed(breaker, ends)
    assert breaker.state(0.0) is state


def test_failures_older_than_the_window_do_not_count() -> None:
    breaker = FailureRatio(0.5, window_s=10.0, min_calls=4)
    assert feed(breaker, "---", now=100.0) == 3
    assert feed(breaker, "-", now=109.9) == 1
    assert breaker.state(109.9) is State.OPEN, "nine parts and the present one back"
    breaker = FailureRatio(0.5, window_s=10.0, min_calls=4)
    assert feed(breaker, "---", now=100.0) == 3
    assert feed(breaker, "---", now=110.0) == 3
    assert breaker.state(110.0) is State.CLOSED


def test_only_the_last_calls_count_however_long_ago_they_were() -> None:
    breaker = FailureRatio(0.5, last=4, min_calls=4)
    assert feed(breaker, "+" * 100 + "-", now=0.0) == 101
    assert breaker.state(0.0) is State.CLOSED
    assert feed(breaker, "-", now=1e6) == 1
    assert breaker.state(1e6) is State.OPEN


def test_the_reason_has_the_numbers() -> None:
    told: list[str] = []
    for breaker in (
        FailureRatio(0.5, min_calls=4, window_s=30.0),
        FailureRatio(0.5, min_calls=4, last=9),
        ConsecutiveFailures(2),
    ):
        breaker.on_change(lambda before, after, why: told.append(why.partition(";")[0]))
        feed(breaker, "++--")
    assert told == [
        "of the last 4 calls in 30 s 2 failed",
        "of the last 4 calls 2 failed",
        "calls that failed in a row: 2",
    ]


# a share refused


@pytest.mark.parametrize(
    ("k", "good", "bad", "share"),
    [
        (2.0, 0, 19, 0.0),  # too few
        (2.0, 0, 20, 20 / 21),
        (2.0, 0, 99, 0.99),
        (2.0, 10, 10, 0.0),
        (2.0, 10, 11, 1 / 22),
        (2.0, 50, 50, 0.0),
        (2.0, 25, 75, 50 / 101),
        (2.0, 100, 0, 0.0),
        (1.5, 60, 40, 10 / 101),
        (1.1, 95, 5, 0.0),
    ],
)
def test_the_refused_share_is_that_of_the_formula(k: float, good: int, bad: int, share: float) -> None:
    breaker = Adaptive(k, rng=random.Random(0))
    for failed in itertools.chain([False] * good, [True] * bad):
        breaker.leave(50.0, 1, failed)
    assert breaker.refused_share(50.0) == pytest.approx(share)
    assert breaker.state(50.0) is (State.HALF_OPEN if share else State.CLOSED)


def test_calls_that_only_take_long_are_not_refused() -> None:
    breaker = Adaptive(rng=random.Random(0))
    assert all(breaker.enter(1.0) for _ in range(1000))


def test_what_is_refused_counts_so_that_a_dead_node_gets_few_calls() -> None:
    seed = 11
    print(f"seed {seed}")
    breaker, passed = Adaptive(rng=random.Random(seed)), 0
    for step in range(10_000):
        now = step * 0.001
        if breaker.enter(now):
            passed += 1
            breaker.leave(now, 1, True)
    print(f"{passed} of 10,000 calls passed to a dead node in 10 s")
    assert passed < 100


def test_it_forgets_after_its_window() -> None:
    breaker = Adaptive(rng=random.Random(0))
    feed(breaker, "-" * 50, now=10.0)
    assert breaker.state(12.0) is State.HALF_OPEN
    assert breaker.state(13.1) is State.CLOSED


def test_a_node_that_takes_half_of_all_calls_gets_about_twice_what_it_takes() -> None:
    """With k = 2 a client sends up to twice of what is accepted: enough to see at once when more would be."""
    seed = 12
    print(f"seed {seed}")
    rng, breaker = random.Random(seed), Adaptive(rng=random.Random(seed))
    passed = accepted = 0
    for step in range(30_000):
        now = step * 0.001
        if breaker.enter(now):
            passed += 1
            good = rng.random() < 100 / 1000 / max(0.1, passed / (step + 1))  # it takes 100 a second
            accepted += good
            breaker.leave(now, 1, not good)
    print(f"passed {passed}, accepted {accepted}")
    assert 1.5 < passed / accepted < 2.5


def test_flapping_is_told_once_in_a_tenth_of_the_window_at_most() -> None:
    breaker = Adaptive(window_s=3.0, rng=random.Random(0))
    told: list[float] = []
    now = 0.0
    breaker.on_change(lambda before, after, why: told.append(now))
    for step in range(4000):
        now = step * 0.005
        ticket = breaker.enter(now)
        if ticket:
            breaker.leave(now, ticket, step % 2 == 0)
    assert len(told) >= 2
    assert all(later - earlier > 0.299 for earlier, later in itertools.pairwise(told))


# refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConsecutiveFailures(0), "failures=0"),
        (lambda: FailureRatio(0.0), r"ratio=0\.0"),
        (lambda: FailureRatio(1.1), r"ratio=1\.1"),
        (lambda: FailureRatio(window_s=0.0), r"window_s=0\.0"),
        (lambda: FailureRatio(min_calls=0), "min_calls=0"),
        (lambda: FailureRatio(last=0), "min_calls=20 .* last=0"),
        (lambda: FailureRatio(last=10), "min_calls=20 .* last=10"),
        (lambda: Adaptive(1.0), r"k=1\.0"),
        (lambda: Adaptive(min_requests=0), "min_requests=0"),
        (lambda: Adaptive(window_s=-1.0), r"window_s=-1\.0"),
        (lambda: Recovery(open_s=0.0), r"open_s=0\.0"),
        (lambda: Recovery(open_s=6.0, max_open_s=5.0), r"max_open_s=5\.0"),
        (lambda: Recovery(max_open_s=float("inf")), "max_open_s=inf"),
        (lambda: Recovery(open_s=float("nan")), "open_s=nan"),
        (lambda: Recovery(probes=0), "probes=0"),
        (lambda: Recovery(successes_to_close=0), "successes_to_close=0"),
        (lambda: Recovery(probe_timeout_s=0.0), r"probe_timeout_s=0\.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_longer_window_of_calls_than_are_needed_to_judge_is_fine() -> None:
    FailureRatio(last=20, min_calls=20)
