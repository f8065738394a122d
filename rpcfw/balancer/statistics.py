"""How the calls of one node, or of one method, went lately: a latency that rises at once and falls slowly, and counts.

No clock: the time is passed in, and never goes back. The latency is Finagle's peak EWMA (its PeakEwma load balancer): a
call that was slower than the average becomes the average, a faster one pulls it down over `decay_s`.
"""

from __future__ import annotations

import math

DECAY_S = 1.0
_exp = math.exp
BUCKETS = 10


class Statistics:
    """Counts of the last `window_s` seconds in `BUCKETS` parts, and the latency.

    Attributes:
        in_flight: calls in progress.
        consecutive_failures: since the last success.
        successes: in all,
        failures: in all.
    """

    __slots__ = (
        "_at",
        "_bucket",
        "_bucket_ends",
        "_bucket_s",
        "_buckets",
        "_decay_s",
        "_latency_s",
        "consecutive_failures",
        "failures",
        "in_flight",
        "successes",
    )

    def __init__(self, *, window_s: float = 30.0, decay_s: float = DECAY_S) -> None:
        self.in_flight = 0
        self.consecutive_failures = 0
        self.successes = 0
        self.failures = 0
        self._decay_s = decay_s
        self._latency_s = 0.0
        self._at = -math.inf
        self._bucket_s = window_s / BUCKETS
        # number of the bucket, successes, failures, sum of the successes' latencies
        self._buckets: list[list[float]] = [[-1, 0, 0, 0.0] for _ in range(BUCKETS)]
        self._bucket, self._bucket_ends = self._buckets[0], -math.inf  # the one in use, and until when

    def succeeded(self, now: float, latency_s: float) -> None:
        """A call ended well, or with an error that says nothing against the node."""
        self.successes += 1
        self.consecutive_failures = 0
        bucket = self._bucket if now < self._bucket_ends else self._turn(now)
        bucket[1] += 1
        bucket[3] += latency_s
        known_s = self._latency_s
        if latency_s > known_s:
            self._latency_s = latency_s
        else:
            self._latency_s = latency_s + (known_s - latency_s) * _exp((self._at - now) / self._decay_s)
        self._at = now

    def failed(self, now: float, latency_s: float) -> None:
        """A call ended in a way that speaks against the node. Failing quickly does not make its latency better."""
        self.failures += 1
        self.consecutive_failures += 1
        bucket = self._bucket if now < self._bucket_ends else self._turn(now)
        bucket[2] += 1
        self._latency_s = max(latency_s, self._latency_s)
        self._at = now

    def latency_s(self, now: float) -> float:
        """The peak EWMA, which fades while nothing is observed; 0 before the first call."""
        if self._latency_s == 0.0:
            return 0.0
        return self._latency_s * _exp((self._at - now) / self._decay_s)

    def window(self, now: float) -> tuple[int, int, float]:
        """Successes, failures and mean latency of the successes (0 without any) in the window."""
        oldest = int(now / self._bucket_s) - BUCKETS
        successes = failures = total_s = 0.0
        for number, good, bad, latency_s in self._buckets:
            if number > oldest:
                successes += good
                failures += bad
                total_s += latency_s
        return int(successes), int(failures), total_s / successes if successes else 0.0

    def forget(self) -> None:
        """Begin anew, as after a restart; calls in progress still count."""
        self.consecutive_failures = 0
        self._latency_s, self._at = 0.0, -math.inf
        for bucket in self._buckets:
            bucket[:] = [-1, 0, 0, 0.0]  # also empty: a clock that has just begun may count bucket -1 in
        self._bucket_ends = -math.inf

    def _turn(self, now: float) -> list[float]:
        """Begin the bucket of this time, or go on with it."""
        number = int(now / self._bucket_s)
        bucket = self._buckets[number % BUCKETS]
        if bucket[0] != number:
            bucket[:] = [number, 0, 0, 0.0]
        self._bucket, self._bucket_ends = bucket, (number + 1) * self._bucket_s
        return bucket
