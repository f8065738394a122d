"""AdaptiveLimit: as many calls at a time as the server can do without getting slow, found out while it runs.

Two signals: the latency of calls beside that without load (see `limiter.gradient`), and the lag of the event loop,
which shows calls that wait where nothing counts them: handlers that compute on the loop run one after the other, each
of them as fast as ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.errors import Code, RpcError
from rpcfw.interface import CallKind
from rpcfw.limiter.concurrency import Concurrency
from rpcfw.limiter.gradient import Gradient
from rpcfw.limiter.lag import LagMeter
from rpcfw.limiter.priority import Priority, priority_of
from rpcfw.limiter.refusal import refusal
from rpcfw.limiter.turns import Turns
from rpcfw.mistakes import check_instance, check_number

_LATE = (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
"""What a call fails with when it, or what it calls in turn, is overloaded."""
_EARLY = 0.05
"""A caller's clock runs ahead of the server's by the way of the request: its RESET comes before the deadline here."""
_LAG_TOLERANCE = (2.0, 1.0, 0.5)
"""By priority: so much of `max_lag_s`."""
_TARGET_SHARE, _INTERVAL_SHARE = 0.1, 0.5
"""Of `max_lag_s`: how long calls wait in a loop that is late all the time, and when it counts as such."""
_NORMAL, _UNARY = Priority.NORMAL, CallKind.UNARY


class AdaptiveLimit:
    """Middleware that limits calls in progress by what their latency and the event loop's lag allow.

    The limit is one for all methods; each is compared with its own latency without load. Beyond it calls are refused
    with RESOURCE_EXHAUSTED and ``executed=False``: sheddable ones beyond 80 % of it, and normal ones beyond 90 % from
    the first critical one on. While the loop is late by more than `max_lag_s` at this very moment, calls are refused
    as well, sheddable ones at half of that, critical ones at twice as much. A loop that has been busy with calls for
    half of that before a turn, without a pause, lets calls begin in the first tenth of it only (see `limiter.turns`):
    so a burst waits, and a load that is too much for long does not make everyone wait. A call that computes for long
    may take a quick one that comes after it in such a turn past that time.

    Calls with streams last as long as somebody wants them to: they are refused as others are when they begin, but
    count no further. Bound them with a `ConcurrencyLimit`.

    Args:
        gradient: finds the limit; `Gradient()` unless given.
        lag: measures the loop's lag; one of its own, which runs while there are calls, unless given. One that is
            given is its owner's to start.
        max_lag_s: see above, in seconds; None for a client, whose loop is not what it calls.
    """

    def __init__(
        self,
        gradient: Gradient | None = None,
        *,
        lag: LagMeter | None = None,
        max_lag_s: float | None = 0.1,
    ) -> None:
        if gradient is not None:
            mend = "AdaptiveLimit(Gradient(max_limit=200)), or ConcurrencyLimit(200) for a fixed limit"
            check_instance(gradient, "gradient", Gradient, mend)
        if lag is not None:
            check_instance(lag, "lag", LagMeter, "LagMeter()")
        if max_lag_s is not None:
            check_number(max_lag_s, "max_lag_s")
        if max_lag_s is not None and not max_lag_s > 0:
            raise ValueError(f"max_lag_s={max_lag_s!r} must be more than 0 seconds, or None")
        self._gradient = gradient or Gradient()
        self._slots = Concurrency(self._gradient.limit)
        self._lag = lag if lag is not None else LagMeter()
        self._owns_lag = lag is None and max_lag_s is not None
        self._max_lag_s = max_lag_s
        self._turns: Turns | None = None
        if max_lag_s is not None:
            self._turns = Turns(max_lag_s * _TARGET_SHARE, max_lag_s * _INTERVAL_SHARE)

    @property
    def limit(self) -> int:
        """How many calls may run now."""
        return self._slots.limit

    @property
    def running(self) -> int:
        """How many do."""
        return self._slots.running

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler; the limit is one for all it wraps."""
        slots, lag, owns_lag, max_lag_s = self._slots, self._lag, self._owns_lag, self._max_lag_s
        turns = self._turns

        async def limited(call: Call) -> Any:
            loop = asyncio.get_running_loop()
            now = loop.time()
            priority = priority_of(call) if call.metadata_bytes else _NORMAL
            if owns_lag:
                lag.touch()
            if max_lag_s is not None and now - lag.due_at > max_lag_s * _LAG_TOLERANCE[priority]:
                raise self._late(call, now)
            if turns is not None and not turns.enter(loop, now, _LAG_TOLERANCE[priority]):
                raise self._busy(call, turns.late_s(now))
            if not slots.enter(priority):
                raise self._full(call, priority)
            if call.method.kind is not _UNARY:
                slots.leave()
                return await handler(call)
            try:
                result = await handler(call)
            except BaseException as error:
                if _is_late(call, now, error):
                    self._sample(call, now, dropped=True)
                slots.leave()
                raise
            self._sample(call, now)
            slots.leave()
            return result

        return limited

    def _sample(self, call: Call, began_at: float, *, dropped: bool = False) -> None:
        gradient, slots, now = self._gradient, self._slots, asyncio.get_running_loop().time()
        gradient.sample(
            now,
            now - began_at,
            slots.running,
            dropped=dropped,
            lag_s=self._lag.lag_s,
            kind=call.method.path,
        )
        limit = gradient.limit
        if limit != slots.limit:
            slots.limit = limit

    def _late(self, call: Call, now: float) -> RpcError:
        lag_s = self._lag.overdue_s(now)
        return refusal(
            call,
            f"the event loop is late by {lag_s:.3g} s, and max_lag_s={self._max_lag_s:g}; try again later or another "
            "server, or move what computes off the loop with @rpcfw.method(offload='thread')",
        )

    def _busy(self, call: Call, late_s: float) -> RpcError:
        return refusal(
            call,
            f"the event loop computes without a pause, and this call has waited for {late_s:.3g} s; try again later or "
            "another server, or move what computes off the loop with @rpcfw.method(offload='thread')",
        )

    def _full(self, call: Call, priority: Priority) -> RpcError:
        slots = self._slots
        share = f", {slots.ceiling(priority):,} of them for {priority.name.lower()} ones"
        return refusal(
            call,
            f"{slots.running:,} calls run, and more than {slots.limit:,}"
            f"{share if slots.ceiling(priority) < slots.limit else ''} would be slow; "
            "try again later or another server",
        )


def _is_late(call: Call, began_at: float, error: BaseException) -> bool:
    """Whether a failure speaks of overload: the deadline came first, or it says so."""
    if isinstance(error, RpcError):
        return error.code in _LATE
    deadline = (
        call.deadline - (call.deadline - began_at) * _EARLY
    )  # never reached where there is none: not a number
    return isinstance(error, asyncio.CancelledError) and asyncio.get_running_loop().time() >= deadline
