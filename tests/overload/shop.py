"""A service to overload, and ways to do it: calls that wait for a gate, streams, many callers at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import pytest

import rpcfw
from rpcfw import Client, Code, Middleware, RpcError
from tests.calls.place import Place, until


@rpcfw.service("tests.Shop")
class Shop:
    """Serves those who wait.

    Attributes:
        gate: what waiting handlers wait for.
        inside: handlers running now; `most` is the highest of these.
        began: what began, in order.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = self.most = 0
        self.began: list[str] = []

    def _enter(self, name: str) -> None:
        self.began.append(name)
        self.inside += 1
        self.most = max(self.most, self.inside)

    async def wait(self, name: str = "") -> str:
        self._enter(name)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return name

    async def work(self, seconds: float, name: str = "") -> str:
        self._enter(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside -= 1
        return name

    async def fail(self) -> None:
        raise ZeroDivisionError

    async def downstream(self) -> None:
        """What it calls has refused: that it ran itself must not get lost."""
        raise RpcError(Code.RESOURCE_EXHAUSTED, "the one below is full", executed=False)

    async def count(self, first: int) -> AsyncIterator[int]:
        self._enter("count")
        try:
            yield first
            await self.gate.wait()
            yield first + 1
        finally:
            self.inside -= 1

    async def broken(self) -> AsyncIterator[int]:
        yield 1
        raise RpcError(Code.ABORTED, "broken")

    async def no_stream(self) -> AsyncIterator[int]:
        raise RpcError(Code.NOT_FOUND, "never yields")
        yield 0

    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])


@rpcfw.service("tests.Quiet")
class Quiet:
    """Another service of the same server."""

    async def ping(self) -> int:
        return 1


class Scene:
    """A server with the middleware in question, and a client without any."""

    def __init__(self, *middleware: Middleware) -> None:
        self.place = Place("mem")
        self.middleware = middleware
        self.service = Shop()
        self.client: Client
        self.shop: Shop

    async def __aenter__(self) -> Scene:
        server = await self.place.serve(self.service, Quiet(), middleware=self.middleware)
        self.client = self.place.connect(server, middleware=[])
        self.shop = self.client.stub(Shop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.place.close()

    async def fill(self, count: int) -> list[asyncio.Task[str]]:
        """So many calls that wait for the gate, once they run."""
        inside = self.service.inside + count
        patient = rpcfw.with_options(self.shop, timeout_s=3600.0)  # however long the test waits otherwise
        tasks = [asyncio.ensure_future(patient.wait(str(number))) for number in range(count)]
        await until(lambda: self.service.inside >= inside)
        return tasks


async def refusal_of(call: Awaitable[Any]) -> RpcError:
    """The error that a call is refused with: the right one for the caller to try again."""
    with pytest.raises(RpcError) as refused:
        await call
    error = refused.value
    assert (error.code, error.executed) == (Code.RESOURCE_EXHAUSTED, False), repr(error)
    return error


async def first_of(items: AsyncIterator[int]) -> int:
    """The first item, after which the stream is left."""
    async with contextlib.aclosing(items) as taken:  # type: ignore[type-var]
        return await anext(taken)


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel, and wait until they are."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, RpcError):
            await task
