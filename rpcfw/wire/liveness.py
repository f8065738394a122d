"""Is the peer still there? Heartbeat state of one connection, with the time passed in.

Detects half-open connections by pings that stay unanswered, and a peer that pings too often (RFC 9113's lesson, as
gRPC's keepalive enforcement applies it). It decides; the connection sends and closes.
"""

from __future__ import annotations

import enum
import math


class Verdict(enum.Enum):
    """What to do at a look at the clock."""

    QUIET = "quiet"
    PING = "ping"
    LOST = "lost"


class Liveness:
    """Decides when to ping and when to give up.

    Args:
        interval_s: ping after so many seconds without a byte from the peer; `math.inf` for never.
        timeout_s: the peer is lost when a ping stays unanswered this long.
        now: the present time in seconds.
    """

    def __init__(self, interval_s: float, timeout_s: float, now: float) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._heard_at = now
        self._pinged_at = math.inf
        self.round_trip_s = math.nan

    def heard(self, at: float) -> None:
        """Bytes came last at that time: the peer lived then, whatever they say. May be told late, and again."""
        self._heard_at = max(at, self._heard_at)
        if at >= self._pinged_at:
            self.round_trip_s = at - self._pinged_at
            self._pinged_at = math.inf

    def look(self, now: float) -> Verdict:
        """What to do now. After PING the caller sends one; time out runs from here."""
        if self._pinged_at != math.inf:
            return Verdict.LOST if now >= self.next_look() else Verdict.QUIET
        if now >= self.next_look():  # the very sum: a difference may round to less, again and again
            self._pinged_at = now
            return Verdict.PING
        return Verdict.QUIET

    def next_look(self) -> float:
        """When to look again; `math.inf` for never."""
        if self._pinged_at != math.inf:
            return self._pinged_at + self.timeout_s
        return self._heard_at + self.interval_s


class PingGuard:
    """Counts pings that come sooner than allowed.

    Args:
        min_interval_s: shortest time between two pings of a well-behaved peer.
        strikes: how many may come sooner before the peer is told to go away.
    """

    def __init__(self, min_interval_s: float, strikes: int = 10) -> None:
        self.min_interval_s = min_interval_s
        self.strikes = strikes
        self._last = -math.inf
        self._early = 0

    def ping(self, now: float) -> bool:
        """A ping came; False when the peer has pinged too often."""
        self._early = self._early + 1 if now - self._last < self.min_interval_s else 0
        self._last = now
        return self._early <= self.strikes
