"""The adaptive limit: it finds what a server can do, keeps its latency in bounds, and lets go when the load is gone."""

from __future__ import annotations

import pytest

from rpcfw.limiter import Gradient
from tests.limiter.queueing import Workload, play

SEED = 11
SETTLED_S = 10.0


def keep_busy(
    gradient: Gradient,
    now: float,
    seconds: float,
    *,
    rtt_s: float = 0.01,
    lag_s: float = 0.0,
    kind: str = "",
    dropped_each: int = 0,
) -> float:
    """As many calls as the limit allows, all of the same latency; the time at the end."""
    end, count = now + seconds, 0
    while now < end:
        now, count = now + rtt_s / gradient.limit, count + 1
        dropped = dropped_each > 0 and count % dropped_each == 0
        gradient.sample(now, rtt_s, gradient.limit, lag_s=lag_s, kind=kind, dropped=dropped)
    return now


@pytest.mark.parametrize("spread", [False, True], ids=["M/D/c", "M/M/c"])
@pytest.mark.parametrize(("workers", "service_s"), [(1, 0.002), (1, 0.02), (8, 0.02), (50, 0.05)])
def test_three_times_the_load_costs_little_goodput_and_latency_stays_in_bounds(
    workers: int, service_s: float, *, spread: bool
) -> None:
    workload = Workload(workers, service_s, lambda now: 3.0, spread=spread)
    outcome = play(workload, Gradient(), until=60.0, seed=SEED)
    goodput = outcome.per_s(SETTLED_S, 60.0) / workload.capacity_per_s
    median, late = (outcome.latency_s(share, SETTLED_S, 60.0) / service_s for share in (0.5, 0.99))
    print(
        f"seed {SEED}: {workers} x {service_s} s: goodput {goodput:.2f}, p50 {median:.1f}, p99 {late:.1f} of a call"
    )
    assert goodput > 0.9
    assert median < 6  # without a limit it grows for as long as the load lasts
    assert late < 22


def test_the_first_calls_of_a_server_that_starts_under_load_are_not_taken_for_its_latency_without_load() -> (
    None
):
    gradient = Gradient()
    play(Workload(1, 0.01, lambda now: 3.0, spread=False), gradient, until=20.0, seed=SEED)
    print(gradient.limit)
    assert gradient.floor_s() == pytest.approx(0.01, rel=0.1)
    assert gradient.limit <= 6


@pytest.mark.parametrize("seed", range(8))
def test_a_server_that_starts_under_load_gets_fast_within_seconds(seed: int) -> None:
    print(f"seed {seed}")
    gradient = Gradient()
    outcome = play(Workload(1, 0.02, lambda now: 3.0), gradient, until=40.0, seed=seed)
    print(f"p50 {outcome.latency_s(0.5, 20.0, 40.0) / 0.02:.1f}, floor {gradient.floor_s() / 0.02:.2f}")
    assert outcome.latency_s(0.5, 20.0, 40.0) < 0.02 * 15
    assert gradient.floor_s() < 0.02 * 3


@pytest.mark.parametrize("seed", range(4))
def test_slow_calls_of_which_only_the_short_ones_have_ended_do_not_take_the_limit_down(seed: int) -> None:
    print(f"seed {seed}")
    outcome = play(Workload(100, 1.0, lambda now: 3.0), Gradient(), until=40.0, seed=seed)
    print(f"{min(outcome.limits(0.0, 40.0))}, {outcome.per_s(15.0, 40.0):.0f} of 100 a second")
    assert outcome.limits(0.0, 4.0)[-1] >= 40
    assert outcome.per_s(15.0, 40.0) > 70


def test_the_limit_grows_for_as_long_as_more_calls_at_a_time_are_as_fast() -> None:
    gradient = Gradient(4, max_limit=200)
    outcome = play(Workload(1000, 0.05, lambda now: 1.0, spread=False), gradient, until=30.0, seed=SEED)
    limits = outcome.limits(0.0, 30.0)
    assert gradient.limit == max(limits) == 200
    assert outcome.latency_s(0.99, 0.0, 30.0) == pytest.approx(0.05)


def test_a_limit_that_nothing_comes_near_to_stays() -> None:
    gradient = Gradient(40)
    play(Workload(100, 0.02, lambda now: 0.05, spread=False), gradient, until=20.0, seed=SEED)
    assert gradient.limit == 40


def test_it_is_never_below_its_least_nor_above_its_most() -> None:
    gradient = Gradient(20, min_limit=5, max_limit=30, probe_s=5.0)
    loads = Workload(1, 0.01, lambda now: 5.0)
    limits = play(loads, gradient, until=45.0, seed=SEED).limits(0.0, 45.0)
    assert min(limits) == 5
    easy = Workload(500, 0.01, lambda now: 1.0, spread=False)
    assert max(play(easy, Gradient(20, max_limit=30), until=30.0, seed=SEED).limits(0.0, 30.0)) == 30


def test_when_calls_become_slower_for_good_it_learns_so_within_seconds() -> None:
    workload = Workload(10, 0.02, lambda now: 3.0, spread=False, slower=lambda now: 3.0 if now > 20 else 1.0)
    gradient = Gradient()
    outcome = play(workload, gradient, until=40.0, seed=SEED)
    after = outcome.per_s(26.0, 40.0) / (workload.capacity_per_s / 3)
    print(f"seed {SEED}: goodput {after:.2f} from 6 s after the change on, limit {gradient.limit}")
    assert after > 0.9
    assert gradient.floor_s() == pytest.approx(0.06, rel=0.2)


def test_after_an_overload_nothing_is_refused_within_seconds() -> None:
    workload = Workload(10, 0.02, lambda now: 4.0 if 10 < now < 30 else 0.5)
    gradient = Gradient()
    whole = play(workload, gradient, until=33.0, seed=SEED)
    until_then = whole.refused
    assert until_then > 0
    served = whole.per_s(31.0, 33.0) / workload.capacity_per_s
    print(
        f"seed {SEED}: {served:.2f} of the capacity served of 0.5 offered, from a second after the overload on"
    )
    assert served == pytest.approx(0.5, rel=0.1)


def test_the_lag_of_the_loop_alone_shrinks_it_and_its_end_lets_it_grow() -> None:
    gradient = Gradient(100, target_lag_s=0.05)

    now = keep_busy(gradient, 0.0, 1.0)
    before = gradient.limit
    now = keep_busy(gradient, now, 1.0, lag_s=0.04)
    assert gradient.limit >= before
    now = keep_busy(gradient, now, 1.0, lag_s=0.2)
    lagging = gradient.limit
    assert lagging < before / 4
    keep_busy(gradient, now, 1.0)
    assert gradient.limit > lagging


def test_calls_cut_off_at_their_deadline_shrink_it() -> None:
    spared, hit = Gradient(100), Gradient(100)
    keep_busy(spared, 0.0, 2.0)
    keep_busy(hit, 0.0, 2.0, dropped_each=10)
    assert hit.limit < 30 < 100 <= spared.limit


def test_slow_and_fast_methods_in_changing_shares_are_no_overload() -> None:
    gradient = Gradient(100, max_limit=200)
    now = 0.0
    for turn in range(10):
        now = keep_busy(
            gradient, now, 3.0, rtt_s=0.5 if turn % 2 else 0.01, kind="slow" if turn % 2 else "fast"
        )
    assert gradient.limit > 100
    assert gradient.floor_s("slow") == pytest.approx(0.5)
    assert gradient.floor_s("fast") == pytest.approx(0.01)


def test_measuring_the_latency_without_load_takes_a_few_round_trips_and_comes_seldom() -> None:
    gradient = Gradient(max_limit=50, probe_s=5.0)
    starts, spent_s, now = 0, 0.0, 0.0
    while now < 60.0:
        before, step_s = gradient.probing, 0.02 / gradient.limit
        now += step_s
        gradient.sample(now, 0.02, gradient.limit)
        starts += gradient.probing and not before
        spent_s += step_s * gradient.probing
    assert 10 <= starts <= 13
    assert spent_s < 60.0 * 0.05


def test_kinds_without_end_take_no_memory_without_end() -> None:
    gradient = Gradient()
    for number in range(5000):
        gradient.sample(number / 1000, 0.01, 1, kind=str(number))
    assert len(gradient._kinds) <= 1001


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"min_limit": 0}, "min_limit"),
        ({"min_limit": 50}, "initial_limit"),
        ({"max_limit": 10}, "max_limit"),
        ({"tolerance": 0.5}, "tolerance"),
        ({"target_lag_s": 0.0}, "target_lag_s"),
        ({"probe_s": float("nan")}, "probe_s"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Gradient(**options)  # type: ignore[arg-type]
