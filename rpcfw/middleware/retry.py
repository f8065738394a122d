"""Retry: a failed call is made again where that is safe.

Safe is a call that surely never ran, or one whose method is declared idempotent. Waits grow with full jitter
(Brooker, "Exponential Backoff And Jitter", 2015), and the deadline bounds everything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from rpcfw.call import Call, Handler
from rpcfw.errors import Code, RpcError

_RETRIED = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)


class Retry:
    """Middleware that makes failed calls again.

    Calls that take a stream from the caller are never repeated, since the stream cannot be read twice; replies that
    are streams are repeated until their first item has been delivered.

    Args:
        attempts: how often a call is made at the most, the first time included; at least 1.
        first_wait_s: upper bound of the wait before the second repetition; the first follows at once.
        max_wait_s: upper bound of any wait.
        rng: source of the jitter.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        first_wait_s: float = 0.05,
        max_wait_s: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts={attempts} must be at least 1: the call itself")
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._max_wait_s = max_wait_s
        self._rng = rng or random.Random()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def retry(call: Call) -> Any:
            attempt = 1
            while True:
                try:
                    result = await handler(call)
                    break
                except RpcError as error:
                    await self._wait_or_raise(call, error, attempt)
                attempt += 1
            return self._items(handler, call, result, attempt) if call.method.kind.streams_out else result

        def retry_unless_streamed(call: Call) -> Awaitable[Any]:
            return handler(call) if call.method.kind.streams_in else retry(call)

        return retry_unless_streamed

    async def _items(self, handler: Handler, call: Call, items: Any, attempt: int) -> AsyncIterator[Any]:
        while True:
            delivered = False
            try:
                async for item in items:
                    delivered = True
                    yield item
                return
            except RpcError as error:
                if delivered:
                    raise
                await self._wait_or_raise(call, error, attempt)
            finally:
                await items.aclose()
            attempt += 1
            items = await handler(call)

    async def _wait_or_raise(self, call: Call, error: RpcError, attempt: int) -> None:
        safe = error.executed is False or (call.method.idempotent and error.code is Code.UNAVAILABLE)
        if attempt >= self._attempts or error.code not in _RETRIED or not safe:
            raise error
        wait_s = 0.0
        if attempt > 1 or error.code is Code.RESOURCE_EXHAUSTED:
            wait_s = self._rng.uniform(0, min(self._max_wait_s, self._first_wait_s * 2 ** (attempt - 1)))
        if call.remaining_s(asyncio.get_running_loop()) <= wait_s:
            raise error
        await asyncio.sleep(wait_s)
