"""A connection to a peer whose client is asyncio's, and how each task is done over such connections."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterable, Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

import uvloop

from benchmarks import drive
from benchmarks.peers.contents import KEPT, ORDER_NUMBER, check_order, check_tick
from benchmarks.subject import (
    LARGE_BYTES,
    SMALL_BYTES,
    STREAM_ITEMS,
    Sample,
    Subject,
    Task,
    Workload,
    resident_bytes,
)

HOST = "127.0.0.1"
BACKLOG = 1024
MANY = 16
"""Connections of MANY_CLIENTS."""

UNARY = frozenset(
    {
        Workload.GET_ORDER,
        Workload.ECHO,
        Workload.DOWNLOAD,
        Workload.UPLOAD,
        Workload.IDLE,
        Workload.MANY_CLIENTS,
    }
)
STREAMS = frozenset({Workload.SERVER_STREAM, Workload.CLIENT_STREAM, Workload.ORDER_STREAM})


class Link(abc.ABC):
    """One client's connection, or its pool of them where a connection takes one call at a time.

    Attributes:
        order_type: what `get_order` and `list_orders` give.
    """

    order_type: type

    @abc.abstractmethod
    async def get_order(self, number: int) -> object:
        """The order of that number."""

    @abc.abstractmethod
    async def echo(self, body: bytes) -> bytes:
        """The same body, by way of the server."""

    @abc.abstractmethod
    async def download(self, size: int) -> bytes:
        """So many bytes."""

    @abc.abstractmethod
    async def upload(self, body: bytes) -> int:
        """How many bytes the server received."""

    def list_ticks(self, count: int) -> AsyncIterable[object]:
        """So many ticks, one after the other."""
        raise NotImplementedError

    async def send_ticks(self, count: int) -> int:
        """Send so many ticks, one after the other; how many the server received."""
        raise NotImplementedError

    def list_orders(self, count: int) -> AsyncIterable[object]:
        """So many orders, one after the other."""
        raise NotImplementedError

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connection."""


class AsyncioPeer(Subject):
    """A peer whose server and client are asyncio's, on uvloop."""

    workloads: ClassVar[frozenset[Workload]] = UNARY

    @abc.abstractmethod
    async def start(self) -> tuple[int, int]:
        """Start the server, which this object keeps alive; its port, and the process it runs in."""

    @abc.abstractmethod
    async def connect(self, port: int) -> Link:
        """A new client, with connections of its own."""

    def run(self, work: Coroutine[Any, Any, Sample | None]) -> Sample | None:
        """Run to the end in a new loop."""
        return uvloop.run(work)

    def serve(self, ready: Callable[[str], None]) -> None:
        async def forever() -> None:
            port, pid = await self.start()
            ready(f"{HOST}:{port}/{pid}")
            await asyncio.Event().wait()

        self.run(forever())

    def measure(self, address: str, task: Task) -> Sample:
        port, pid = (int(part) for part in address.rpartition(":")[2].split("/"))
        sample = self.run(
            self._idle(port, pid, task.in_flight)
            if task.workload is Workload.IDLE
            else self._work(port, task)
        )
        assert sample is not None
        return sample

    async def _work(self, port: int, task: Task) -> Sample:
        async with contextlib.AsyncExitStack() as stack:
            links = []
            for _ in range(MANY if task.workload is Workload.MANY_CLIENTS else 1):
                links.append(link := await self.connect(port))
                stack.push_async_callback(link.close)
                check_order(await link.get_order(ORDER_NUMBER), link.order_type, ORDER_NUMBER)
            if task.workload is Workload.MANY_CLIENTS:
                calls = [partial(link.get_order, ORDER_NUMBER) for link in links]
                return await drive.keep_each_in_flight(calls, task.seconds)
            if task.workload in STREAMS:
                return await _stream(links[0], task)
            return await drive.keep_in_flight(
                await _call(links[0], task.workload), task.in_flight, task.seconds
            )

    async def _idle(self, port: int, pid: int, connections: int) -> Sample:
        async with contextlib.AsyncExitStack() as stack:
            first = await self.connect(port)
            stack.push_async_callback(first.close)
            for _ in range(200):  # what the server allocates once is no part of a connection
                await first.get_order(ORDER_NUMBER)
            before, started = resident_bytes(pid), time.perf_counter()
            for _ in range(connections):
                link = await self.connect(port)
                stack.push_async_callback(link.close)
                check_order(await link.get_order(ORDER_NUMBER), link.order_type, ORDER_NUMBER)
            grown = resident_bytes(pid) - before
            return Sample(connections, time.perf_counter() - started, server_bytes=grown)


async def _call(link: Link, workload: Workload) -> Callable[[], Coroutine[Any, Any, object]]:
    """The call of a workload, made once and its reply looked at."""
    small, large = bytes(range(SMALL_BYTES)), os.urandom(LARGE_BYTES)
    match workload:
        case Workload.GET_ORDER:
            return partial(link.get_order, ORDER_NUMBER)
        case Workload.ECHO:
            _expect(bytes(await link.echo(small)) == small, "an echo is not what was sent")
            return partial(link.echo, small)
        case Workload.DOWNLOAD:
            _expect(
                len(await link.download(LARGE_BYTES)) == LARGE_BYTES, "a download has not the size asked for"
            )
            return partial(link.download, LARGE_BYTES)
        case Workload.UPLOAD:
            _expect(await link.upload(large) == LARGE_BYTES, "an upload did not arrive whole")
            return partial(link.upload, large)
        case _:
            raise ValueError(f"{workload} is no call")


async def _stream(link: Link, task: Task) -> Sample:
    """A workload of streams, after a short one whose every item is looked at."""
    match task.workload:
        case Workload.SERVER_STREAM:
            ticks = [tick async for tick in link.list_ticks(KEPT + 10)]
            _expect(len(ticks) == KEPT + 10, "a stream has not as many items as asked for")
            for number, tick in enumerate(ticks):
                check_tick(tick, number % KEPT)
            return await drive.drain(partial(link.list_ticks, STREAM_ITEMS), STREAM_ITEMS, task.seconds)
        case Workload.CLIENT_STREAM:
            return await drive.fill(partial(link.send_ticks, STREAM_ITEMS), STREAM_ITEMS, task.seconds)
        case Workload.ORDER_STREAM:
            orders = [order async for order in link.list_orders(KEPT + 10)]
            _expect(len(orders) == KEPT + 10, "a stream has not as many items as asked for")
            for number, order in enumerate(orders):
                check_order(order, link.order_type, number % KEPT)
            count = STREAM_ITEMS // 10
            return await drive.drain(partial(link.list_orders, count), count, task.seconds)
        case _:
            raise ValueError(f"{task.workload} is no stream")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)
