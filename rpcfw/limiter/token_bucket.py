"""A token bucket: so many a second on the average, and a burst of so many at once.

No I/O and no clock: the time is passed in. What has been taken is counted since the bucket was last full, instead of
adding a little at each look, so that no rounding adds up however long it runs (ITU-T I.371 describes the same limit as
the generic cell rate algorithm).
"""

from __future__ import annotations

import math

_ROUNDING = 1e-9
"""Part of a token that floats may be wrong by."""


class TokenBucket:
    """Holds up to `burst` tokens, and gets `rate_per_s` new ones each second. It begins full.

    Args:
        rate_per_s: tokens a second, more than 0.
        burst: how many it holds, at least 1; what one second gives unless said otherwise, and at least one token.

    Raises:
        ValueError: a number is out of its range.
    """

    __slots__ = ("_full_at", "_taken", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float | None = None) -> None:
        if not 0 < rate_per_s < math.inf:
            raise ValueError(f"rate_per_s={rate_per_s!r} must be more than 0 tokens a second, and finite")
        burst = max(1.0, rate_per_s) if burst is None else burst
        if not 1 <= burst < math.inf:
            raise ValueError(f"burst={burst!r} must be at least 1 token, and finite")
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._full_at = -math.inf
        self._taken = 0.0

    def level(self, now: float) -> float:
        """How many tokens it holds."""
        level = self.burst + (now - self._full_at) * self.rate_per_s - self._taken
        return min(level, self.burst)

    def take(self, now: float, n: float = 1) -> bool:
        """Take `n` tokens, or none at all when it holds fewer; whether it did."""
        burst, since = self.burst, self._full_at
        level = burst + (now - since) * self.rate_per_s - self._taken
        if level >= burst:
            if n > burst:
                return False
            self._full_at, self._taken = now, n
            return True
        if level + _ROUNDING < n:
            return False
        self._taken += n
        return True

    def wait_s(self, now: float, n: float = 1) -> float:
        """Seconds until `take` could take `n`, not less: 0 when it can now, `math.inf` when the bucket is too small."""
        if n > self.burst:
            return math.inf
        missing = n - self.level(now)
        return missing / self.rate_per_s + 2 * math.ulp(now) if missing > 0 else 0.0
