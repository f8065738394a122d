"""Retry: a failed call is made again where that is safe.

Safe is a call that surely never ran, or one whose method is declared idempotent. Waits grow with full jitter
(Brooker, "Exponential Backoff And Jitter", 2015), are no shorter than the error asks for, and the deadline bounds
everything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import Any

import msgspec

from rpcfw.call import Call, Handler
from rpcfw.chance import new_rng
from rpcfw.errors import Code, RpcError
from rpcfw.interface import CallKind

_UNARY = CallKind.UNARY
_RETRIED = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
_RETRY_AFTER = "retry_after_s"
"""Among the details of an error: for how many seconds the same would fail again."""


class Retry:
    """Middleware that makes failed calls again.

    A call that takes a stream from the caller is repeated as long as nothing has begun to read it, since it cannot be
    read twice; a reply that is a stream, until its first item has been delivered.

    An error may say in its details, as `retry_after_s`, for how long the same would fail again. The wait is no shorter
    then; where that is more than `max_wait_s`, or than the deadline leaves, the call fails at once.

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
        self._rng = rng or new_rng()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def retry(call: Call) -> Any:
            if call.method.kind is not _UNARY:
                return await self._call_with_streams(handler, call)
            attempt = 1
            while True:
                try:
                    return await handler(call)
                except RpcError as error:
                    wait_s = self._wait_s(call, error, attempt, None)
                    if wait_s is None:
                        raise
                await asyncio.sleep(wait_s)
                attempt += 1

        return retry

    async def _call_with_streams(self, handler: Handler, call: Call) -> Any:
        kind, source, attempt = call.method.kind, None, 1
        if kind.streams_in:
            call, source = _with_source(call)
        while True:
            try:
                result = await handler(call)
                break
            except RpcError as error:
                wait_s = self._wait_s(call, error, attempt, source)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            attempt += 1
        return self._items(handler, call, result, attempt, source) if kind.streams_out else result

    async def _items(
        self, handler: Handler, call: Call, items: Any, attempt: int, source: _Source | None
    ) -> AsyncIterator[Any]:
        while True:
            delivered = False
            try:
                if items is None:
                    items = await handler(call)
                async for item in items:
                    delivered = True
                    yield item
                return
            except RpcError as error:
                wait_s = None if delivered else self._wait_s(call, error, attempt, source)
                if wait_s is None:
                    raise
            finally:
                if items is not None:
                    await items.aclose()
            await asyncio.sleep(wait_s)
            items = None
            attempt += 1

    def _wait_s(self, call: Call, error: RpcError, attempt: int, source: _Source | None) -> float | None:
        """How long to wait before the next attempt; None when there is to be none."""
        safe = error.executed is False or (call.method.idempotent and error.code is Code.UNAVAILABLE)
        if attempt >= self._attempts or error.code not in _RETRIED or not safe:
            return None
        if source is not None and source.begun:
            return None
        wait_s, least_s = 0.0, _least_wait_s(error)
        if attempt > 1 or error.code is Code.RESOURCE_EXHAUSTED or least_s:
            wait_s = self._rng.uniform(0, min(self._max_wait_s, self._first_wait_s * 2 ** (attempt - 1)))
        wait_s += least_s
        if least_s > self._max_wait_s or call.remaining_s(asyncio.get_running_loop()) <= wait_s:
            return None
        return wait_s


class _Source:
    """A caller's stream that knows whether something has begun to read it."""

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = items
        self._iterator: AsyncIterator[Any] | None = None

    @property
    def begun(self) -> bool:
        return self._iterator is not None

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = aiter(self._items)
        return self._iterator

    def __anext__(self) -> Awaitable[Any]:
        return (self._iterator or aiter(self)).__anext__()


def _with_source(call: Call) -> tuple[Call, _Source | None]:
    """The call with its stream replaced by one that knows. What is no stream stays, to be refused where it is read."""
    index = next(number for number, parameter in enumerate(call.method.parameters) if parameter.is_stream)
    if not hasattr(call.arguments[index], "__aiter__"):
        return call, None
    source = _Source(call.arguments[index])
    arguments = (*call.arguments[:index], source, *call.arguments[index + 1 :])
    return msgspec.structs.replace(call, arguments=arguments), source


def _least_wait_s(error: RpcError) -> float:
    least_s = error.details.get(_RETRY_AFTER)
    return least_s if isinstance(least_s, int | float) and least_s > 0 else 0.0
