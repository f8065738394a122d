"""A histogram of positive numbers of any size, such as latencies: bounded memory, three significant digits, mergeable.

Buckets are log-linear, 1,024 to each power of two, as in Gil Tene's HdrHistogram. A bucket's number is the upper half
of the value's IEEE 754 form, which is log-linear already: no range to choose beforehand, no logarithm per value.
"""

from __future__ import annotations

import bisect
import math
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

_DROPPED_BITS = 42
"""Of the 52 bits of a double's fraction 10 are kept."""
_FOLDED_AT = 128
"""So many values are put into buckets together, which is cheaper. It takes 20 microseconds; a pause of more would show
in what is measured."""
MAX_RELATIVE_ERROR = 1 / 2048
"""Of a percentile, which is told as the middle of its bucket: 0.05 %."""


class Bucket(NamedTuple):
    """So many values are at least `low` and less than `high`."""

    low: float
    high: float
    values: int


class Histogram:
    """Counts values by size.

    `percentile` is off by at most `MAX_RELATIVE_ERROR`; `count`, `min`, `max` and `mean` are exact. It takes at most
    1,024 buckets for each doubling between the least and the greatest value: 20,000 from a microsecond to a second.
    """

    __slots__ = ("_buckets", "_max", "_min", "_recent", "_total")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._recent = array("d")  # not in a bucket yet
        self._min, self._max, self._total = math.inf, 0.0, 0.0

    def record(self, value: float) -> None:
        """Count a value, which is finite and not negative."""
        self._recent.append(value)
        if len(self._recent) >= _FOLDED_AT:
            self._fold()

    def merge(self, other: Histogram) -> None:
        """Count what the other one has counted as well."""
        self._fold()
        other._fold()
        self._buckets.update(other._buckets)
        self._min, self._max = min(self._min, other._min), max(self._max, other._max)
        self._total += other._total

    @property
    def count(self) -> int:
        """How many values were recorded."""
        self._fold()
        return self._buckets.total()

    @property
    def min(self) -> float:
        """The least value, 0 where there is none."""
        return self._min if self.count else 0.0

    @property
    def max(self) -> float:
        """The greatest value, 0 where there is none."""
        self._fold()
        return self._max

    @property
    def mean(self) -> float:
        """The sum by the count, 0 where there is none."""
        return self._total / (self.count or 1)

    def percentile(self, percent: float) -> float:
        """The least value that so many percent of all are at most (nearest rank); 0 where there is none."""
        return self.percentiles(percent)[0]

    def percentiles(self, *percents: float) -> list[float]:
        """Several of them at once."""
        self._fold()
        numbers = sorted(self._buckets)
        if not numbers:
            return [0.0] * len(percents)
        ranks = list(accumulate(map(self._buckets.__getitem__, numbers)))
        found = []
        for percent in percents:
            rank = max(
                1, math.ceil(round(percent / 100 * ranks[-1], 6))
            )  # 99.9 % of 1,000 are 999, not 1,000
            if rank in (1, ranks[-1]):
                found.append(self._min if rank == 1 else self._max)
                continue
            number = numbers[bisect.bisect_left(ranks, rank)]
            found.append(min(max((_edge(number) + _edge(number + 1)) / 2, self._min), self._max))
        return found

    def buckets(self) -> Iterator[Bucket]:
        """Those that are not empty, in order."""
        self._fold()
        for number in sorted(self._buckets):
            yield Bucket(_edge(number), _edge(number + 1), self._buckets[number])

    def _fold(self) -> None:
        recent = self._recent
        if not recent:
            return
        least, greatest, total = min(recent), max(recent), math.fsum(recent)
        if not (least >= 0.0 and total < math.inf):  # as a NaN is neither
            raise ValueError(
                f"{least!r} to {greatest!r}: values that are finite and not negative are counted"
            )
        self._recent = array("d")
        self._buckets.update([bits >> _DROPPED_BITS for bits in memoryview(recent).cast("B").cast("Q")])
        self._min, self._max = min(self._min, least), max(self._max, greatest)
        self._total += total


def _edge(number: int) -> float:
    """Where a bucket begins."""
    edge: float = struct.unpack("=d", struct.pack("=Q", number << _DROPPED_BITS))[0]
    return edge
