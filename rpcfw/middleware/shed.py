"""Shed: a call that cannot end before its deadline is refused at once, and its time is left to one that can.

After the deadline-aware shedding of Google's "Site Reliability Engineering" (chapter 22, "Addressing Cascading
Failures": work for a caller who has given up is worse than none).
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.interface import CallKind
from rpcfw.limiter.durations import Durations
from rpcfw.limiter.refusal import refusal

_UNARY, _FOREVER = CallKind.UNARY, math.inf
_PROBE_EVERY = 100
_PROBE_S = 1.0
_CUT_OFF = 1.25
"""A call that was cut off would have taken longer; where all have the same time, just that time would shed none."""
_EARLY = 0.05
"""A caller's clock runs ahead of the server's by the way of the request: its RESET comes before the deadline here."""


class Shed:
    """Middleware that refuses a call whose deadline leaves less than half of its method's calls needed of late.

    What is measured is the time of whatever this wraps: outside of a `ConcurrencyLimit` it includes the wait for a
    slot. A call that is cut off at its deadline counts with the time it had. Nothing is refused before 20 calls of the
    last minute are known, and one call in a hundred passes nevertheless, at least one a second: when it ends in time,
    what was known is forgotten.

    Refused is with RESOURCE_EXHAUSTED and ``executed=False``, so that `Retry` may find a faster server. Methods with
    streams are not touched, nor are calls without a deadline.
    """

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler, which has an expectation of its own: on a server, that of one method."""
        expectations: dict[str, _Expectation] = {}

        async def shed(call: Call) -> Any:
            if call.method.kind is not _UNARY or call.deadline == _FOREVER:
                return await handler(call)
            path = call.method.path
            expectation = expectations.get(path)
            if expectation is None:
                expectation = expectations[path] = _Expectation()
            loop = asyncio.get_running_loop()
            began_at, durations = loop.time(), expectation.durations
            expected_s, remaining_s = durations.expected_s(began_at), call.deadline - began_at
            probe = remaining_s < expected_s
            if probe and not expectation.lets_pass(began_at):
                raise refusal(
                    call,
                    f"{max(0.0, remaining_s):.3g} s are left of its time, and half of these calls took "
                    f"{expected_s:.3g} s or more of late; give it more time, or try another server",
                )
            try:
                result = await handler(call)
            except BaseException:
                now = loop.time()
                if now >= call.deadline - remaining_s * _EARLY:
                    durations.add(now, (now - began_at) * _CUT_OFF)
                raise
            now = loop.time()
            if probe and now < call.deadline:
                durations.forget()
            durations.add(now, now - began_at)
            return result

        return shed


class _Expectation:
    """What is known of one method, and which of the calls that should be refused passes as a probe."""

    __slots__ = ("_passed_at", "_refused", "durations")

    def __init__(self) -> None:
        self.durations = Durations()
        self._refused = 0
        self._passed_at = -math.inf

    def lets_pass(self, now: float) -> bool:
        if self._refused + 1 >= _PROBE_EVERY or now - self._passed_at >= _PROBE_S:
            self._refused, self._passed_at = 0, now
            return True
        self._refused += 1
        return False
