"""Failback: a notification that could not be delivered is delivered later, in the background.

For calls whose caller wants no answer; it is told of success as soon as the call is queued. The queue is bounded, lives
in memory, and ends with the process: what must not be lost belongs into a store. Dubbo's strategy of the same name.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from types import TracebackType
from typing import Any, Self

import msgspec

from rpcfw.call import Call, Handler
from rpcfw.chance import new_rng
from rpcfw.errors import Code, RpcError
from rpcfw.interface import CallKind
from rpcfw.mistakes import check_number

logger = logging.getLogger("rpcfw")

_AGAIN = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)


class Failback:
    """Middleware of clients that delivers failed calls again later. Use it as ``async with``, around the client.

        async with Failback() as failback, rpcfw.connect(url, middleware=[failback, Retry()]) as client:
            await client.stub(Audit).note("ada", "has logged in")

    It is for unary calls that return nothing, one-way ones among them. Only what is safe is delivered again: what
    surely never ran, or is declared idempotent; other failures reach the caller, and so do those that find the queue
    full. A one-way call fails only where it cannot be sent at all.

    Each delivery has the time that the call had at first, without its caller's route and reply metadata. Between two
    deliveries the wait doubles, with a jitter of a fifth.

    Attributes:
        delivered: calls that were queued and have arrived.
        lost: calls that were queued and are given up; each is logged.

    Args:
        attempts: deliveries from the queue, before a call is given up.
        every_s: wait before the first of them, in seconds.
        max_queued: calls queued at a time; what fails beyond that, fails.
        rng: source of the jitter.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        every_s: float = 5.0,
        max_queued: int = 100,
        rng: random.Random | None = None,
    ) -> None:
        check_number(attempts, "attempts")
        check_number(every_s, "every_s")
        check_number(max_queued, "max_queued")
        if attempts < 1 or not every_s > 0 or max_queued < 1:
            raise ValueError(f"{attempts=}, {every_s=} and {max_queued=} must be more than 0")
        self.delivered = 0
        self.lost = 0
        self._attempts = attempts
        self._every_s = every_s
        self._max_queued = max_queued
        self._rng = rng or new_rng()
        self._queued: dict[asyncio.Task[None], Call] = {}
        self._closed = False

    @property
    def queued(self) -> int:
        """Calls that wait to be delivered, or are being delivered."""
        return len(self._queued)

    async def close(self) -> list[Call]:
        """Deliver no more. What is left is logged and returned, oldest first. May be called again."""
        self._closed = True
        tasks, left = list(self._queued), list(self._queued.values())
        self._queued.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            logger.warning("%d calls were still to be delivered: %s", len(left), _paths(left))
        self.lost += len(left)
        return left

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def fail_back(call: Call) -> Any:
            method = call.method
            if method.kind is not CallKind.UNARY or method.result not in (None, type(None)):
                return await handler(call)
            timeout_s = call.remaining_s(asyncio.get_running_loop())
            try:
                return await handler(call)
            except RpcError as error:
                if not self._may_queue(call, error):
                    raise
                self._note(call, error)
            self._queue(handler, call, timeout_s)
            return None

        return fail_back

    def _may_queue(self, call: Call, error: RpcError) -> bool:
        if self._closed or not _is_safe(call, error):
            return False
        if len(self._queued) < self._max_queued:
            return True
        error.message += f" (and the queue of {self._max_queued} calls to be delivered later is full)"
        return False

    def _queue(self, handler: Handler, call: Call, timeout_s: float) -> None:
        call = msgspec.structs.replace(call, route=None, reply_metadata=None)
        task = asyncio.get_running_loop().create_task(
            self._deliver(handler, call, timeout_s), name=f"rpcfw failback {call.method.path}"
        )
        self._queued[task] = call
        task.add_done_callback(self._ended)

    async def _deliver(self, handler: Handler, call: Call, timeout_s: float) -> None:
        loop, wait_s = asyncio.get_running_loop(), self._every_s
        for attempt in range(1, self._attempts + 1):
            await asyncio.sleep(wait_s * self._rng.uniform(0.8, 1.2))
            wait_s *= 2
            deadline = math.inf if timeout_s == math.inf else loop.time() + timeout_s
            try:
                await handler(msgspec.structs.replace(call, deadline=deadline))
            except Exception as error:
                again = isinstance(error, RpcError) and _is_safe(call, error)
                if again and attempt < self._attempts:
                    continue
                self.lost += 1
                logger.error("%s is given up after %d deliveries: %s", call.method.path, attempt, error)
            else:
                self.delivered += 1
            return

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._queued.pop(task, None)
        if not task.cancelled():
            task.exception()

    def _note(self, call: Call, error: RpcError) -> None:
        if call.route is not None:
            now, why = asyncio.get_running_loop().time(), f"{error.code.name}: {error.message}"
            call.route.note(
                now, "failback", f"queued, the first delivery in {self._every_s:g} s, since {why}"
            )


def _is_safe(call: Call, error: RpcError) -> bool:
    return error.code in _AGAIN and (error.executed is False or call.method.idempotent)


def _paths(calls: list[Call]) -> str:
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.method.path] = counts.get(call.method.path, 0) + 1
    return ", ".join(f"{count} of {path}" for path, count in counts.items())
