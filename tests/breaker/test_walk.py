"""Breakers against the model in `model`: a long random walk of each, and hypothesis looking for a short one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rpcfw.breaker import Adaptive, Breaker, ConsecutiveFailures, FailureRatio, Recovery, State
from tests.breaker.model import (
    Modelled,
    Trip,
    after_failures_in_a_row,
    over_ratio_in_seconds,
    over_ratio_of_calls,
)

STEPS = 50_000

Kind = Callable[[Recovery, random.Random], tuple[Breaker, Trip]]


def in_a_row(recovery: Recovery, rng: random.Random) -> tuple[Breaker, Trip]:
    return ConsecutiveFailures(3, recovery=recovery, rng=rng), after_failures_in_a_row(3)


def in_seconds(recovery: Recovery, rng: random.Random) -> tuple[Breaker, Trip]:
    breaker = FailureRatio(0.4, window_s=5.0, min_calls=6, recovery=recovery, rng=rng)
    return breaker, over_ratio_in_seconds(0.4, 5.0, 6)


def of_calls(recovery: Recovery, rng: random.Random) -> tuple[Breaker, Trip]:
    breaker = FailureRatio(0.5, last=12, min_calls=5, recovery=recovery, rng=rng)
    return breaker, over_ratio_of_calls(0.5, 12, 5)


KINDS: list[Kind] = [in_a_row, in_seconds, of_calls]
RECOVERIES = [
    Recovery(open_s=2.0, max_open_s=20.0, probes=1, successes_to_close=1, probe_timeout_s=5.0),
    Recovery(open_s=1.0, max_open_s=1.0, probes=3, successes_to_close=2, probe_timeout_s=2.0),
]


@pytest.mark.parametrize("recovery", RECOVERIES, ids=["one probe", "three probes"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_walk_never_leaves_the_model(kind: Kind, recovery: Recovery) -> None:
    seed = 20_004
    print(f"seed {seed}")
    rng = random.Random(seed)
    modelled = Modelled(*((made := kind(recovery, random.Random(seed)))[0], recovery, made[1]))
    weather = 0.0
    for step in range(STEPS):
        if step % 300 == 0:
            weather = rng.choice((0.0, 0.1, 0.5, 0.95))
        modelled.advance(rng.choice((0.0, 0.0, 0.05, 0.2, 0.2, rng.random() * 3)))
        under_way = len(modelled.under_way())
        dice = rng.random()
        if dice < 0.5 and under_way < 12:
            modelled.enter()
        elif dice < 0.97 and under_way:
            modelled.leave(rng.randrange(12), None if rng.random() < 0.1 else rng.random() < weather)
        elif dice < 0.99 and under_way:
            modelled.lose(rng.randrange(12))
    print(f"steps seen in each state: {modelled.seen}; changes {modelled.changes.total()}")
    assert min(modelled.seen.values()) > STEPS / 100, "the walk must come to all states"
    assert modelled.longest_open_s >= recovery.max_open_s / 2, "and to the longest time open"
    assert set(modelled.changes) == {
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.HALF_OPEN, State.CLOSED),
    }


class Walk(RuleBasedStateMachine):
    """Any sequence of calls, ends and waits."""

    @initialize(kind=st.sampled_from(KINDS), recovery=st.sampled_from(RECOVERIES))
    def begin(self, kind: Kind, recovery: Recovery) -> None:
        breaker, trips = kind(recovery, random.Random(0))
        self.modelled = Modelled(breaker, recovery, trips)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.modelled.advance(seconds)

    @rule(count=st.integers(1, 6))
    def call(self, count: int) -> None:
        for _ in range(count):
            self.modelled.enter()

    @precondition(lambda self: self.modelled.under_way())
    @rule(index=st.integers(0, 20), failed=st.sampled_from([True, True, False, None]))
    def end(self, index: int, failed: bool | None) -> None:
        self.modelled.leave(index, failed)

    @precondition(lambda self: self.modelled.under_way())
    @rule(failed=st.booleans())
    def end_all(self, failed: bool) -> None:
        while self.modelled.under_way():
            self.modelled.leave(0, failed)

    @precondition(lambda self: self.modelled.under_way())
    @rule(index=st.integers(0, 20))
    def lose(self, index: int) -> None:
        self.modelled.lose(index)

    @precondition(lambda self: self.modelled.state is State.OPEN)
    @rule()
    def wait_until_it_may_be_tried(self) -> None:
        self.modelled.advance(max(0.0, self.modelled.retry_at - self.modelled.now))


TestWalk: Any = Walk.TestCase
TestWalk.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_long_walk_of_the_adaptive_breaker_does_what_the_formula_says() -> None:
    seed = 20_005
    print(f"seed {seed}")
    rng, dice = random.Random(seed), random.Random(seed + 1)
    breaker = Adaptive(2.0, window_s=3.0, min_requests=20, rng=random.Random(seed + 1))
    told: list[tuple[State, State]] = []
    breaker.on_change(lambda before, after, why: told.append((before, after)))
    now, weather, refused = 500.0, 0.0, 0
    ended: list[tuple[int, bool]] = []
    seen = {State.CLOSED: 0, State.HALF_OPEN: 0}
    for step in range(STEPS):
        if step % 500 == 0:
            weather = rng.choice((0.0, 0.3, 0.6, 1.0))
        now += rng.choice((0.0, 0.02, 0.05, 0.05, 0.05 if rng.random() < 0.999 else 4.0))
        bucket = int(now * (10 / 3.0))
        ended = [entry for entry in ended if entry[0] > bucket - 10]
        requests, accepts = len(ended), sum(accepted for _, accepted in ended)
        share = max(0.0, (requests - 2.0 * accepts) / (requests + 1)) if requests >= 20 else 0.0
        assert breaker.refused_share(now) == pytest.approx(share)
        assert 0.0 <= share < 1.0
        assert breaker.state(now) is (State.HALF_OPEN if share else State.CLOSED)
        assert breaker.permits(now)
        assert breaker.retry_at(now) == now
        seen[breaker.state(now)] += 1
        refuse = share > 0 and dice.random() < share
        ticket = breaker.enter(now)
        assert bool(ticket) is not refuse
        if refuse:
            refused += 1
            ended.append((bucket, False))
        elif rng.random() < 0.95:
            failed = rng.random() < weather
            breaker.leave(now, ticket, failed)
            ended.append((bucket, not failed))
        else:
            breaker.leave(now, ticket, None)
    print(f"steps seen in each state: {seen}; refused {refused}; told {len(told)}")
    assert min(seen.values()) > STEPS / 20
    assert all(before is not after for before, after in told)
    assert all(first[1] is second[0] for first, second in itertools.pairwise(told))
