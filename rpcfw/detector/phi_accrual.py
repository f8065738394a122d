"""The detector that learns how regular heartbeats are, and suspects the sooner the more regular they were.

Source: Hayashibara, Defago, Yared, Katayama, "The phi accrual failure detector" (2004), with what Akka added: a pause
that is always accepted, and a least deviation. Phi is the number of nines: with phi 8, a node that lives is suspected
once in 10**8 heartbeats, as far as their intervals are normally distributed. The tail of that distribution is exact
here; the usual approximation to it is off by a factor of ten at phi 8.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import NormalDist

_BELOW_ONE = math.nextafter(1.0, 0.0)
_LN_10 = math.log(10.0)
_FAR = 35.0
"""So many deviations out the tail is nearly too small for a float."""
_MAX_THRESHOLD = 300.0
"""10**-300 is nearly the smallest float."""


class PhiAccrual:
    """Suspicion is phi divided by its threshold.

    Feed it regular heartbeats only: it learns the intervals between what it is told of. The interval that ends a
    suspicion is not learned; it was an outage.

    Args:
        interval_s: what the interval between two heartbeats is expected to be, until some were seen.
        threshold: the phi from which on the node is taken for gone; from 1 to 300. Cassandra and Akka take 8.
        window: so many intervals are remembered; at least 2.
        min_std_s: the standard deviation is taken for no less: what a busy event loop does to very regular heartbeats.
        acceptable_pause_s: a heartbeat may be so much later than is usual without raising suspicion.
    """

    __slots__ = (
        "_deadline",
        "_expected_s",
        "_heard_at",
        "_intervals",
        "_least_s",
        "_max_y",
        "_mean_s",
        "_pause_s",
        "_since_exact",
        "_squares",
        "_std_s",
        "_sum",
        "_threshold",
    )

    def __init__(
        self,
        interval_s: float,
        *,
        threshold: float = 8.0,
        window: int = 200,
        min_std_s: float = 0.1,
        acceptable_pause_s: float = 3.0,
    ) -> None:
        if not 0 < interval_s < math.inf:
            raise ValueError(f"interval_s={interval_s!r} must be more than 0 seconds, and finite")
        if not 1 <= threshold <= _MAX_THRESHOLD:
            raise ValueError(f"threshold={threshold!r} must be from 1 to {_MAX_THRESHOLD:.0f}")
        if window < 2:
            raise ValueError(f"window={window!r} must be at least 2 intervals")
        if not 0 < min_std_s < math.inf:
            raise ValueError(f"min_std_s={min_std_s!r} must be more than 0 seconds, and finite")
        if not 0 <= acceptable_pause_s < math.inf:
            raise ValueError(
                f"acceptable_pause_s={acceptable_pause_s!r} must be 0 seconds or more, and finite"
            )
        self._threshold = threshold
        self._max_y = -NormalDist().inv_cdf(10.0**-threshold)
        self._least_s = min_std_s
        self._pause_s = acceptable_pause_s
        self._expected_s = interval_s
        self._heard_at = -math.inf
        self._deadline = math.inf
        # a guess as wide as Akka's: a quarter to both sides
        self._intervals = deque((interval_s * 0.75, interval_s * 1.25), maxlen=window)
        self._sum = self._squares = 0.0  # of what the intervals differ from what is expected
        self._since_exact = 0
        self._mean_s = self._std_s = 0.0
        self._sum_up()
        self._derive()

    def heartbeat(self, now: float) -> None:
        """A sign of life came at that time."""
        if now <= self._heard_at:
            return
        if now < self._deadline < math.inf:
            self._learn(now - self._heard_at)
        self._heard_at = now
        self._deadline = now + self._mean_s + self._pause_s + self._max_y * self._std_s

    def suspicion(self, now: float) -> float:
        """Phi, in parts of its threshold."""
        if self._deadline == math.inf or now <= self._heard_at:
            return 0.0
        share = self.phi(now) / self._threshold
        # the deadline decides: two ways to compute the same may round to different sides of 1
        return max(1.0, share) if now >= self._deadline else min(_BELOW_ONE, share)

    def deadline(self) -> float:
        """When phi will reach its threshold."""
        return self._deadline

    def phi(self, now: float) -> float:
        """-log10 of the probability that a node that lives is silent for so long; 0 before the first heartbeat."""
        if self._deadline == math.inf or now <= self._heard_at:
            return 0.0
        return _nines((now - self._heard_at - self._mean_s - self._pause_s) / self._std_s)

    def _learn(self, interval_s: float) -> None:
        intervals = self._intervals
        self._since_exact += 1
        if self._since_exact >= (intervals.maxlen or 0):
            intervals.append(interval_s)
            self._sum_up()
        else:
            if len(intervals) == intervals.maxlen:
                gone = intervals[0] - self._expected_s
                self._sum -= gone
                self._squares -= gone * gone
            intervals.append(interval_s)
            new = interval_s - self._expected_s
            self._sum += new
            self._squares += new * new
        self._derive()

    def _sum_up(self) -> None:
        """Sum anew: additions and subtractions for months would leave their rounding behind."""
        differences = [interval_s - self._expected_s for interval_s in self._intervals]
        self._sum = math.fsum(differences)
        self._squares = math.fsum(difference * difference for difference in differences)
        self._since_exact = 0

    def _derive(self) -> None:
        count = len(self._intervals)
        mean = self._sum / count
        self._mean_s = self._expected_s + mean
        self._std_s = max(self._least_s, math.sqrt(max(0.0, self._squares / count - mean * mean)))


def _nines(y: float) -> float:
    """-log10 of the normal distribution's tail beyond y deviations."""
    if y < _FAR:
        return 0.0 - math.log10(math.erfc(y / math.sqrt(2)) / 2)
    z = 1.0 / (y * y)
    # the tail's asymptotic series, exact to the last digits from there on
    return (
        y * y / 2 + math.log(y * math.sqrt(2 * math.pi)) - math.log1p(z * (-1 + z * (3 - 15 * z)))
    ) / _LN_10
