"""Bare uvloop with messages of fixed sizes: calls awaited, calls driven by callbacks, and writes joined."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import ClassVar

import uvloop

from benchmarks.drive import WARM_UP_S, Meter, keep_each_in_flight, keep_in_flight, keep_offering, thinned
from benchmarks.idle import open_idle
from benchmarks.limits import streams
from benchmarks.raw import (
    ECHO,
    ORDER,
    AwaitedClient,
    BatchingClient,
    BatchingServer,
    RawClient,
    RawServer,
    Sizes,
)
from benchmarks.subject import Sample, Subject, Task, Workload

_CLIENTS = 16
_SIZES = {Workload.ECHO: ECHO}
"""All other workloads that call have the sizes of an Order."""


class Awaited(Subject):
    """The fair yardstick: one write for each call and each reply, and a future for each call."""

    name = "raw uvloop, awaited"
    packages = ("uvloop",)
    workloads = frozenset(
        {Workload.GET_ORDER, Workload.ECHO, Workload.MANY_CLIENTS, Workload.IDLE, Workload.OFFERED_LOAD}
    )
    setting = "fixed sizes, one write per call and reply, a future per call"
    client: ClassVar[type[AwaitedClient]] = AwaitedClient
    server: ClassVar[type[RawServer]] = RawServer

    def serve(self, ready: Callable[[str], None]) -> None:
        uvloop.run(self._serve(ready))

    def measure(self, address: str, task: Task) -> Sample:
        return uvloop.run(self._measure(json.loads(address), task))

    async def _serve(self, ready: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        ports = {}
        for name, factory in self._factories().items():
            server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024)
            ports[name] = server.sockets[0].getsockname()[1]
        ready(json.dumps(ports))
        await loop.create_future()

    def _factories(self) -> dict[str, Callable[[], asyncio.BaseProtocol]]:
        return {
            Workload.GET_ORDER: functools.partial(self.server, ORDER),
            Workload.ECHO: functools.partial(self.server, ECHO),
        }

    async def _measure(self, ports: Mapping[str, int], task: Task) -> Sample:
        port = ports.get(task.workload, ports[Workload.GET_ORDER])
        if task.workload is Workload.IDLE:
            request = bytes(ORDER.request)
            return await open_idle(port, task.in_flight, lambda: _OneReply(request))
        async with contextlib.AsyncExitStack() as stack:
            many = task.workload is Workload.MANY_CLIENTS
            calls = [
                await stack.enter_async_context(self._caller(port, task))
                for _ in range(_CLIENTS if many else 1)
            ]
            if task.workload is Workload.OFFERED_LOAD:
                return await keep_offering(calls[0], task.rate, task.seconds)
            if many:
                return await keep_each_in_flight(calls, task.seconds)
            return await keep_in_flight(calls[0], task.in_flight, task.seconds)

    @contextlib.asynccontextmanager
    async def _caller(self, port: int, task: Task) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        sizes = _SIZES.get(task.workload, ORDER)
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: self.client(sizes), "127.0.0.1", port
        )
        try:
            yield client.call
        finally:
            client.close()


class Batched(Awaited):
    """Writes joined: what a loop can do when a system call carries more than one message."""

    name = "raw uvloop, batched"
    workloads = frozenset({Workload.GET_ORDER, Workload.ECHO, *streams.WORKLOADS})
    setting = "as awaited, the writes of a loop turn joined, 32 at a time; a frame per item, whose body is taken out"
    client = BatchingClient
    server = BatchingServer
    counter: ClassVar[type[streams.Counter]] = streams.Taker

    def _factories(self) -> dict[str, Callable[[], asyncio.BaseProtocol]]:
        return {**super()._factories(), **streams.factories(self.counter)}

    async def _measure(self, ports: Mapping[str, int], task: Task) -> Sample:
        if task.workload in streams.WORKLOADS:
            return await streams.measure(ports[task.workload], task, self.counter)
        return await super()._measure(ports, task)


class Counted(Batched):
    """Streams of which nobody wants the items."""

    name = "raw uvloop, batched, only counted"
    workloads = streams.WORKLOADS
    setting = "as batched, but only the headers of frames are looked at"
    counter = streams.Counter


class Callbacks(Awaited):
    """No future and no task for a call: what the loop can do for who does without `await`."""

    name = "raw uvloop, callbacks"
    workloads = frozenset({Workload.GET_ORDER, Workload.ECHO})
    setting = "as awaited, with a callback in place of the future"

    async def _measure(self, ports: Mapping[str, int], task: Task) -> Sample:
        port, sizes = ports[task.workload], _SIZES.get(task.workload, ORDER)
        await _drive(port, sizes, task.in_flight, WARM_UP_S)
        return await _drive(port, sizes, task.in_flight, task.seconds)


async def _drive(port: int, sizes: Sizes, in_flight: int, seconds: float) -> Sample:
    clock, loop = time.perf_counter, asyncio.get_running_loop()
    latencies: list[float] = []
    done = loop.create_future()
    left, count, sent_at = in_flight, 0, 0.0

    def on_reply() -> bool:
        nonlocal left, count, sent_at
        count += 1
        now = clock()
        if in_flight == 1:
            latencies.append((now - sent_at) * 1e6)
            sent_at = now
        if now < deadline:
            return True
        left -= 1
        if left == 0:
            done.set_result(None)
        return False

    _, client = await loop.create_connection(lambda: RawClient(on_reply, sizes), "127.0.0.1", port)
    meter, started = Meter(), clock()
    deadline, sent_at = started + seconds, started
    for _ in range(in_flight):
        client.send()
    await done
    sample = meter.sample(count)
    client.close()
    sample.latencies_us = thinned(latencies)
    return sample


class _OneReply(asyncio.Protocol):
    """Sends one request, and tells when its reply has come."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]  # a stream's

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(None)


SUBJECTS = {"awaited": Awaited(), "callbacks": Callbacks(), "batched": Batched(), "counted": Counted()}
