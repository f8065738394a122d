"""A concurrency limit that finds itself: it grows while calls take no longer than without load, and shrinks else.

The rule is that of Netflix's concurrency-limits (``Gradient2``): the limit times the ratio of the latency without load
to that of now, plus room for a short queue. There the latency without load is an average that a long overload raises;
here it is measured, as brpc's auto limiter and TCP BBR do, by letting few calls in for a moment now and then. Methods
differ, so each has its own. No I/O and no clock.
"""

from __future__ import annotations

import math

INITIAL_LIMIT = 40
MAX_LIMIT = 1000
WINDOW_S = 0.1
PROBE_S = 15.0
MAX_KINDS = 1000
"""Beyond these, kinds share one measurement."""
TARGET_LAG_S = 0.05

_WINDOW_SAMPLES = 20
_LONGEST_WINDOW_S = 1.0
_SMOOTHING = 0.4
_RATE_SHARE = 0.2
_LEAST_GRADIENT = 0.5
_DROPPED_GRADIENT = 0.8
_FLOOR_SAMPLES = 100
_PROBE_SAMPLES = 30
_SETTLING = 3
"""Round trips after which a change has come through: what was queued has ended, and so have most of the long calls."""
_FIRST_SETTLING = 5
"""The same for the very first measurement, before which the mean of what has ended is too short itself."""
_ENOUGH = 3
"""Samples of a kind in a probe that tell its latency."""
_CHANGED = 0.5
"""A limit that has fallen to this part since the last probe asks for the next one sooner,"""
_SOONEST = 1 / 8
"""after this part of the usual time."""
_PAUSE = 6
"""Times the length of a probe before the next one."""
_AS_MUCH = 0.65
"""A probe with this much of the throughput before, although it lets in half the calls, is followed by another;"""
_IMPROVED = 0.6
"""so is one with this much of the latency without load that was known before, or less."""


class _Kind:
    """The latencies of one kind of call.

    Attributes:
        count: samples of this window,
        total_s: their sum.
        batch: samples since the latency without load was last looked at,
        batch_s: their sum.
        floor_s: the latency without load; 0 while it is not known.
        since: when the first sample came.
    """

    __slots__ = ("batch", "batch_s", "count", "floor_s", "since", "total_s")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = self.batch = 0
        self.total_s = self.batch_s = self.floor_s = 0.0


class Gradient:
    """An adaptive limit of calls in progress. Feed it each call that ends, and keep to its `limit`.

    Args:
        initial_limit: where it begins.
        min_limit: never below, at least 1.
        max_limit: never above.
        tolerance: how many times the latency without load is still good, at least 1.
        target_lag_s: lag of the event loop above which the limit shrinks, whatever the latency.
        probe_s: seconds between two measurements of the latency without load, while the limit binds. One takes some
            round trips at about half the throughput.

    Raises:
        ValueError: the limits are not in order, or a number is out of its range.
    """

    def __init__(
        self,
        initial_limit: int = INITIAL_LIMIT,
        *,
        min_limit: int = 1,
        max_limit: int = MAX_LIMIT,
        tolerance: float = 1.5,
        target_lag_s: float = TARGET_LAG_S,
        probe_s: float = PROBE_S,
    ) -> None:
        if not 1 <= min_limit <= initial_limit <= max_limit:
            raise ValueError(
                f"min_limit={min_limit!r}, initial_limit={initial_limit!r}, max_limit={max_limit!r}: "
                "give them in this order, from 1 up"
            )
        if not tolerance >= 1 or not target_lag_s > 0 or not probe_s > 0:
            raise ValueError(
                f"tolerance={tolerance!r} must be at least 1, target_lag_s={target_lag_s!r} and "
                f"probe_s={probe_s!r} more than 0 seconds"
            )
        self.min_limit = min_limit
        self.max_limit = max_limit
        self._tolerance = tolerance
        self._target_lag_s = target_lag_s
        self._probe_s = probe_s
        self._limit = float(initial_limit)
        self._kinds: dict[str, _Kind] = {}
        self._began_at = -math.inf
        self._count = self._dropped = self._peak = 0
        self._lag_s = 0.0
        self._rate_per_s = 0.0
        self._probe_at = (
            -math.inf
        )  # the first one at once: what is measured under load from the start is no floor
        self._probing = False
        self._probed_at = self._settled_at = self._probe_until = self._give_up_at = 0.0
        self._limit_before = self._reference = self._limit

    @property
    def limit(self) -> int:
        """How many calls may be in progress."""
        return max(self.min_limit, min(self.max_limit, int(self._limit)))

    @property
    def probing(self) -> bool:
        """Whether it lets few calls in for a moment, to measure the latency without load."""
        return self._probing

    def floor_s(self, kind: str = "") -> float:
        """The latency without load of a kind of call, in seconds; 0 while it is not known."""
        known = self._kinds.get(kind)
        return 0.0 if known is None else known.floor_s

    def sample(
        self,
        now: float,
        rtt_s: float,
        in_flight: int,
        *,
        dropped: bool = False,
        lag_s: float = 0.0,
        kind: str = "",
    ) -> None:
        """A call has ended.

        Args:
            now: the time, in seconds.
            rtt_s: how long it took.
            in_flight: how many calls were in progress, this one included.
            dropped: it did not end in time. A call that failed at once says nothing: leave it out.
            lag_s: of the event loop.
            kind: whose latency it is compared with: its method.
        """
        if self._probing:
            if now >= (self._probe_until if self._count >= _PROBE_SAMPLES else self._give_up_at):
                self._end_probe(now)
            elif now < self._settled_at or now - rtt_s < self._probed_at:
                return  # what begins amid the probe finds few others; once these end too, long and short ones count
        known = self._kinds.get(kind)
        if known is None:
            known = self._new_kind(now, kind)
        known.count += 1
        known.total_s += rtt_s
        if not self._count:
            self._began_at = now
        self._count += 1
        self._dropped += dropped
        if in_flight > self._peak:
            self._peak = in_flight
        if lag_s > self._lag_s:
            self._lag_s = lag_s
        age_s, enough = now - self._began_at, self._count >= _WINDOW_SAMPLES
        if not self._probing and age_s >= (WINDOW_S if enough else _LONGEST_WINDOW_S):
            self._end_window(now, age_s)

    def _new_kind(self, now: float, kind: str) -> _Kind:
        if len(self._kinds) >= MAX_KINDS:
            kind = ""
        return self._kinds.setdefault(kind, _Kind(now))

    def _end_window(self, now: float, age_s: float) -> None:
        seen = [known for known in self._kinds.values() if known.count]
        for known in seen:
            self._look_at_floor(known, now)
        mean_s = sum(known.total_s for known in seen) / self._count
        rate_per_s, known_per_s = self._count / age_s, self._rate_per_s
        self._rate_per_s = (
            known_per_s + _RATE_SHARE * (rate_per_s - known_per_s) if known_per_s else rate_per_s
        )
        seen = [known for known in seen if known.floor_s]
        spent_s = sum(known.total_s for known in seen)
        unloaded_s = sum(known.floor_s * known.count for known in seen)
        binds = self._peak * 2 >= self.limit
        self._limit = self._next_limit(spent_s / unloaded_s if unloaded_s else 0.0, binds=binds)
        due_at = self._probe_at
        if self._limit <= self._reference * _CHANGED:  # calls may have become slower for good
            due_at -= self._probe_s * (1.0 - _SOONEST)
        if binds and unloaded_s and now >= due_at:
            self._begin_probe(now, unloaded_s / age_s, mean_s)
        self._forget_window()

    def _look_at_floor(self, known: _Kind, now: float) -> None:
        """Latencies that are lower than any before are without load, and those of one call at a time."""
        known.batch += known.count
        known.batch_s += known.total_s
        mean_s = known.batch_s / known.batch
        if not known.floor_s:
            if now - known.since < _FIRST_SETTLING * mean_s:
                return  # at first only the short ones have ended
            known.floor_s = mean_s
        elif known.batch < _FLOOR_SAMPLES:
            return
        elif mean_s < known.floor_s:
            known.floor_s += 0.5 * (mean_s - known.floor_s)  # half: the least of many is too low by chance
        elif self._peak <= 1:
            known.floor_s += 0.1 * (mean_s - known.floor_s)
        known.batch, known.batch_s = 0, 0.0

    def _next_limit(self, stretch: float, *, binds: bool) -> float:
        limit = self._limit
        gradient, room = 1.0, 0.0
        if stretch:
            gradient, room = min(1.0, self._tolerance / stretch), math.sqrt(limit)
        if self._lag_s > self._target_lag_s:
            gradient, room = min(gradient, self._target_lag_s / self._lag_s), 0.0
        if self._dropped:
            gradient, room = min(gradient, _DROPPED_GRADIENT), 0.0
        target = limit * max(gradient, _LEAST_GRADIENT) + room
        if target > limit and not binds:
            return limit  # a limit that nothing comes near to is not known to be too low
        limit += _SMOOTHING * (target - limit)
        return max(float(self.min_limit), min(float(self.max_limit), limit))

    def _begin_probe(self, now: float, needed: float, rtt_s: float) -> None:
        """Let in about half of what keeps the work going, as far as is known, once the queue of now has drained."""
        self._probing = True
        self._limit_before = self._limit
        self._limit = max(float(self.min_limit), self._limit / 4, min(self._limit, needed) / 2)
        self._probed_at = now
        self._settled_at = now + _SETTLING * rtt_s
        self._probe_until = now + 2 * _SETTLING * rtt_s
        self._give_up_at = now + 4 * _SETTLING * rtt_s

    def _end_probe(self, now: float) -> None:
        before = after = 0.0
        for known in self._kinds.values():
            if known.count >= _ENOUGH:
                before += known.floor_s * known.count
                after += known.total_s
                known.floor_s = known.total_s / known.count
                known.batch, known.batch_s = 0, 0.0
        as_much = (
            self._peak >= self.limit and self._count > (now - self._began_at) * self._rate_per_s * _AS_MUCH
        )
        too_many = as_much or after < before * _IMPROVED  # half as many did as much, or the same faster
        self._probing = False
        enough = self._limit + math.sqrt(self._limit)  # the calls beyond it were waiting
        self._limit = self._reference = min(self._limit_before, enough) if too_many else self._limit_before
        pause_s = max(self._probe_s, _PAUSE * (self._probe_until - self._probed_at))
        self._probe_at = now if too_many else now + pause_s
        self._forget_window()

    def _forget_window(self) -> None:
        self._count = self._dropped = self._peak = 0
        self._lag_s = 0.0
        for known in self._kinds.values():
            known.count, known.total_s = 0, 0.0
