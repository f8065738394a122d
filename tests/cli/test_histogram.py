"""The histogram of `rpcfw bench` against exact percentiles of random values."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import pytest

from rpcfw.cli.histogram import MAX_RELATIVE_ERROR, Histogram

PERCENTS = (0, 1, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100)


def exact(ordered: list[float], percent: float) -> float:
    """The nearest rank, by counting."""
    return next(
        value for number, value in enumerate(ordered, 1) if number * 100 >= percent * len(ordered) - 1e-6
    )


def recorded(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "narrow": lambda rng: rng.uniform(0.001, 0.00102),
    "wide": lambda rng: rng.lognormvariate(-8, 3),
    "two humps": lambda rng: rng.choice((1e-4, 1.0)) * rng.uniform(0.5, 1.5),
    "few values": lambda rng: rng.choice((0.0, 0.001, 0.002)),
    "large": lambda rng: rng.uniform(1e6, 1e12),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 1000, 5003])
def test_percentiles_are_exact_to_three_digits(shape: str, count: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    values = [SHAPES[shape](rng) for _ in range(count)]
    histogram = recorded(values)
    ordered = sorted(values)
    for percent in PERCENTS:
        assert histogram.percentile(percent) == pytest.approx(
            exact(ordered, percent), rel=MAX_RELATIVE_ERROR, abs=1e-300
        )
    assert histogram.percentiles(*PERCENTS) == [histogram.percentile(percent) for percent in PERCENTS]
    assert (histogram.count, histogram.min, histogram.max) == (count, ordered[0], ordered[-1])
    assert histogram.mean == pytest.approx(math.fsum(values) / count)


def test_a_merged_histogram_is_that_of_all_values() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    parts = [[rng.expovariate(1000) for _ in range(rng.randrange(300))] for _ in range(5)]
    merged = Histogram()
    for part in parts:
        merged.merge(copy.deepcopy(recorded(part)))  # as it comes from another process
    whole = recorded([value for part in parts for value in part])
    assert list(merged.buckets()) == list(whole.buckets())
    assert merged.percentiles(*PERCENTS) == whole.percentiles(*PERCENTS)
    assert merged.mean == pytest.approx(whole.mean)


def test_memory_depends_on_the_range_and_not_on_the_count() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    histogram = recorded([2.0 ** rng.uniform(-10, -8) for _ in range(50_000)])
    buckets = list(histogram.buckets())
    assert len(buckets) <= 2 * 1024
    assert sum(values for _, _, values in buckets) == 50_000
    assert len(histogram._recent) < 1000
    for low, high, _ in buckets:
        assert low < high <= low * (1 + 2 * MAX_RELATIVE_ERROR)


def test_a_histogram_without_values_says_zero() -> None:
    empty = Histogram()
    assert (empty.count, empty.min, empty.max, empty.mean, empty.percentile(99)) == (0, 0.0, 0.0, 0.0, 0.0)
    assert list(empty.buckets()) == []
    other = recorded([2.0])
    other.merge(empty)
    assert (other.count, other.min, other.max) == (1, 2.0, 2.0)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_what_is_no_size_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        _ = recorded([1.0, value]).count
