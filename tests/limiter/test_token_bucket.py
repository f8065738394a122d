"""The token bucket is exact: never more than the rate and the burst allow, and never less, however long it runs."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from rpcfw.limiter import TokenBucket


def test_a_burst_passes_at_once_and_then_the_rate() -> None:
    bucket = TokenBucket(10, 5)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(100.09)
    assert bucket.take(100.1)
    assert not bucket.take(100.1)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_it_does_not_drift_over_a_million_calls() -> None:
    bucket, taken = TokenBucket(997.0, 3), 0
    start, calls = 12_345.678, 1_000_000
    for number in range(calls):  # asked twice as often as it can give, for 501 seconds
        taken += bucket.take(start + number / (2 * 997.0))
    assert taken == pytest.approx(3 + calls / 2, abs=1)


@pytest.mark.parametrize("seed", range(20))
def test_it_does_what_exact_arithmetic_does(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    rate, burst = rng.choice([0.5, 3.0, 100.0, 12_345.0]), rng.randint(1, 20)
    bucket, level, last, now = TokenBucket(rate, burst), Fraction(burst), Fraction(0), 0.0
    for _ in range(2000):
        now += rng.choice([0.0, rng.random() / rate, 10 * rng.random() / rate])
        level = min(Fraction(burst), level + (Fraction(now) - last) * Fraction(rate))
        last = Fraction(now)
        amount = rng.choice([1, 1, 1, 2, 5])
        passes = bucket.take(now, amount)
        assert passes == (level >= amount) or abs(level - amount) < 1e-6  # but for the rounding of floats
        if passes:
            level -= amount
        assert bucket.level(now) == pytest.approx(float(level), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_who_waits_as_long_as_it_says_is_let_in(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    bucket, now = TokenBucket(rng.uniform(0.1, 1e4), rng.uniform(1, 50)), rng.uniform(0, 1e6)
    for _ in range(5000):
        wait_s = bucket.wait_s(now)
        if wait_s > 0:
            assert not bucket.take(now + wait_s * 0.99)
        now += wait_s
        assert bucket.take(now)


def test_more_than_it_holds_is_never_there() -> None:
    bucket = TokenBucket(10, 5)
    assert not bucket.take(1.0, 6)
    assert bucket.wait_s(1.0, 6) == math.inf
    assert bucket.take(1.0, 5)
    assert bucket.wait_s(1.0, 5) == pytest.approx(0.5)


def test_a_slow_rate_still_gives_one_at_once() -> None:
    bucket = TokenBucket(0.1)
    assert bucket.burst == 1
    assert bucket.take(0.0)
    assert bucket.wait_s(0.0) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        TokenBucket(rate)


@pytest.mark.parametrize("burst", [0, 0.5, math.inf, math.nan])
def test_a_burst_that_lets_nothing_in_is_refused(burst: float) -> None:
    with pytest.raises(ValueError, match="burst"):
        TokenBucket(1, burst)
