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
        total_s: how long the successes took, together.
        peak_s: the peak EWMA as it was at `seen_at`; 0 before the first call.
        seen_at: when a call ended last; minus infinity before that.
        decay_s: it falls to `1 / e` in that time.
        picked_at: when a balancer to which that matters picked the node last; minus infinity before that.
    """

    __slots__ = (
        "_bucket",
        "_bucket_ends",
        "_bucket_s",
        "_buckets",
        "_failures_before",
        "_successes_before",
        "_total_before_s",
        "consecutive_failures",
        "decay_s",
        "failures",
        "in_flight",
        "peak_s",
        "picked_at",
        "seen_at",
        "successes",
        "total_s",
    )

    def __init__(self, *, window_s: float = 30.0, decay_s: float = DECAY_S) -> None:
        self.in_flight = 0
        self.peak_s = 0.0
        self.picked_at = self.seen_at = -math.inf
        self.successes = 0
        self.failures = 0
        self.total_s = 0.0
        self.decay_s = decay_s
        self._bucket_s = window_s / BUCKETS
        # those that are over: number, successes, failures, sum of the successes' latencies; the newest last
        self._buckets: list[tuple[int, int, int, float]] = []
        self.forget()

    def succeeded(self, now: float, latency_s: float) -> None:
        """A call ended well, or with an error that says nothing against the node."""
        if now >= self._bucket_ends:
            self._turn(now)
        self.successes += 1
        self.consecutive_failures = 0
        self.total_s += latency_s
        known_s, seen_at = self.peak_s, self.seen_at
        if latency_s >= known_s:
            self.peak_s = latency_s
        elif now != seen_at:  # a loop's clock may stand for many calls
            self.peak_s = latency_s + (known_s - latency_s) * _exp((seen_at - now) / self.decay_s)
        self.seen_at = now

    def failed(self, now: float, latency_s: float) -> None:
        """A call ended in a way that speaks against the node. Failing quickly does not make its latency better."""
        if now >= self._bucket_ends:
            self._turn(now)
        self.failures += 1
        self.consecutive_failures += 1
        self.peak_s = max(latency_s, self.peak_s)
        self.seen_at = now

    def latency_s(self, now: float) -> float:
        """The peak EWMA, which fades while nothing is observed; 0 before the first call."""
        if self.peak_s == 0.0:
            return 0.0
        return self.peak_s * _exp((self.seen_at - now) / self.decay_s)

    def window(self, now: float) -> tuple[int, int, float]:
        """Successes, failures and mean latency of the successes (0 without any) in the window."""
        oldest = int(now / self._bucket_s) - BUCKETS
        successes, failures, total_s = 0, 0, 0.0
        for number, good, bad, latency_s in (*self._buckets, self._present()):
            if number > oldest:
                successes += good
                failures += bad
                total_s += latency_s
        return successes, failures, total_s / successes if successes else 0.0

    def forget(self) -> None:
        """Begin anew, as after a restart; calls in progress still count."""
        self.consecutive_failures = 0
        self.peak_s, self.seen_at = 0.0, -math.inf
        self._buckets.clear()
        self._begin(0, -math.inf)

    def _present(self) -> tuple[int, int, int, float]:
        """The bucket in use: what came since it began."""
        good, bad = self.successes - self._successes_before, self.failures - self._failures_before
        return self._bucket, good, bad, self.total_s - self._total_before_s

    def _begin(self, number: int, ends: float) -> None:
        self._bucket, self._bucket_ends = number, ends
        self._successes_before, self._failures_before = self.successes, self.failures
        self._total_before_s = self.total_s

    def _turn(self, now: float) -> None:
        """Begin the bucket of this time."""
        number = int(now / self._bucket_s)
        self._buckets = [
            bucket for bucket in (*self._buckets, self._present()) if bucket[0] > number - BUCKETS
        ]
        self._begin(number, (number + 1) * self._bucket_s)
