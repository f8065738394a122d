"""ConcurrencyLimit: so many calls at a time, so many more that wait for their turn, and the rest is refused at once.

A call that streams its reply holds its slot until the stream is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.errors import RpcError
from rpcfw.items import through
from rpcfw.limiter.concurrency import Concurrency
from rpcfw.limiter.held import HeldItems
from rpcfw.limiter.priority import Priority, priority_of
from rpcfw.limiter.refusal import refusal
from rpcfw.mistakes import check_number

_NORMAL = Priority.NORMAL
_WAITED_SHARE = 0.5
"""The part of its remaining time that a call may wait: what is left is for the work, here or on another server."""


class ConcurrencyLimit:
    """Middleware that lets `max_running` calls run at a time, all methods of the server, or client, together.

    Calls beyond it wait in a queue, if there is one: those of the highest priority first, each class in the order of
    arrival. A call waits for `max_wait_s` and for half of what its deadline leaves at the most, and is refused at
    once where the pace of late says that this will not do. Refused is with RESOURCE_EXHAUSTED and ``executed=False``.

    Sheddable calls get no more than 80 % of the slots; a tenth is kept for critical ones from the first of these on.

    Args:
        max_running: how many at a time, at least 1.
        queue: how many more may wait; none unless given, since a server that is late is seldom helped by being later.
        max_wait_s: how long one may wait, in seconds.
    """

    def __init__(self, max_running: int, *, queue: int = 0, max_wait_s: float = 1.0) -> None:
        check_number(max_running, "max_running")
        check_number(queue, "queue")
        check_number(max_wait_s, "max_wait_s")
        if max_running < 1:
            raise ValueError(f"max_running={max_running!r} must be at least 1 call")
        if not max_wait_s > 0:
            raise ValueError(f"max_wait_s={max_wait_s!r} must be more than 0 seconds")
        self._slots = Concurrency(max_running, queue)
        self._max_wait_s = max_wait_s

    @property
    def running(self) -> int:
        """Calls that hold a slot."""
        return self._slots.running

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._slots.waiting

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler; the slots are shared by all it wraps."""
        slots, release = self._slots, self._release

        async def limited(call: Call) -> Any:
            priority = priority_of(call) if call.metadata_bytes else _NORMAL
            if not slots.enter(priority):
                await self._wait(call, priority)
            try:
                result = await handler(call)
            except BaseException:
                release()
                raise
            if call.method.kind.streams_out:
                return through(result, lambda items: HeldItems(items, release))
            release()
            return result

        return limited

    def _release(self) -> None:
        now = math.nan
        if self._slots.is_awaited:
            with contextlib.suppress(RuntimeError):  # a stream that is forgotten may outlive its loop
                now = asyncio.get_running_loop().time()
        self._slots.leave(now)

    async def _wait(self, call: Call, priority: Priority) -> None:
        """Wait for a slot, which is then this call's. Raises RpcError when there will be none in time."""
        slots, loop = self._slots, asyncio.get_running_loop()
        now = loop.time()
        longest_s = min(self._max_wait_s, (call.deadline - now) * _WAITED_SHARE)
        expected_s = slots.expected_wait_s(priority) if slots.queue else 0.0
        if slots.queue == 0 or longest_s <= 0 or expected_s > longest_s:
            raise self._refusal(call, priority, expected_s)
        turn: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not turn.done():
                turn.set_result(None)

        ticket = slots.wait(priority, wake)
        if ticket is None:
            raise self._refusal(call, priority, expected_s)
        timer = loop.call_at(now + longest_s, wake)
        try:
            await turn
        except BaseException:
            slots.give_up(ticket, loop.time())
            raise
        finally:
            timer.cancel()
        if ticket.granted is None:
            slots.give_up(ticket, loop.time())
            raise self._refusal(call, priority, expected_s, f"it has waited for {longest_s:.3g} s")
        if not ticket.granted:
            raise self._refusal(call, priority, expected_s, "a call of a higher priority took its place")

    def _refusal(self, call: Call, priority: Priority, expected_s: float, why: str = "") -> RpcError:
        slots = self._slots
        share = f"{slots.running:,} of {slots.limit:,} calls run"
        if slots.ceiling(priority) < slots.limit:
            share += f", {slots.ceiling(priority):,} are for {priority.name.lower()} ones"
        queue = f", {slots.waiting:,} of {slots.queue:,} wait" if slots.queue else ""
        late = f", which takes about {expected_s:.3g} s" if expected_s else ""
        end = "; try again later or another server, or raise max_running"
        return refusal(call, f"{share}{queue}{late}{f'; {why}' if why else ''}{end}")
