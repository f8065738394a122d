"""rpcfw as its users run it, and the same with another message kind, transport or loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import trustme
import uvloop

import rpcfw
from benchmarks.drive import drain, fill, keep_each_in_flight, keep_in_flight, keep_offering
from benchmarks.idle import open_idle
from benchmarks.orders import OrderBook, Orders
from benchmarks.ours import contract
from benchmarks.ours.contract import Payloads, PayloadStore, Tick
from benchmarks.ours.handshake import FirstCall
from benchmarks.subject import LARGE_BYTES, SMALL_BYTES, STREAM_ITEMS, Sample, Subject, Task, Workload
from rpcfw.transport import default_transports

_CLIENTS = 16
_MAX_CONNECTIONS = 20_000
_ORDER_ID = 7

Caller = Callable[[], Awaitable[object]]


class Rpcfw(Subject):
    """`rpcfw.serve` and `rpcfw.connect` with their defaults, dataclasses, TCP, uvloop."""

    name = "rpcfw"
    packages: ClassVar[tuple[str, ...]] = ("rpcfw", "msgspec", "uvloop")
    workloads = frozenset(Workload) - {
        Workload.ONEWAY,
        Workload.WORKERS,
        Workload.COLD_START,
        Workload.OVERLOAD,
    }
    setting = "dataclasses, TCP, uvloop, all defaults"
    interface: ClassVar[Callable[..., Any]] = Orders
    orders: ClassVar[type[Any]] = OrderBook

    def serve(self, ready: Callable[[str], None]) -> None:
        self.run(self._serve(ready))

    def measure(self, address: str, task: Task) -> Sample:
        sample = self.run(self._measure(address, task))
        assert isinstance(sample, Sample)
        return sample

    def run(self, program: Coroutine[Any, Any, Any]) -> Any:
        """On the loop of this configuration."""
        return uvloop.run(program)

    def listen(self) -> list[str]:
        """Where the server listens."""
        return ["tcp://127.0.0.1:0"]

    def address(self, server: rpcfw.Server) -> str:
        """What a client connects to."""
        return str(server.endpoint)

    def connect(self, address: str) -> rpcfw.Client:
        """A client."""
        return rpcfw.connect(address)

    def stub(self, client: rpcfw.Client) -> Any:
        """A stub for Orders."""
        return client.stub(self.interface)

    async def _serve(self, ready: Callable[[str], None]) -> None:
        limits = rpcfw.Limits(max_connections=_MAX_CONNECTIONS)  # one more than IDLE opens
        async with rpcfw.serve(self.orders(), PayloadStore(), listen=self.listen(), limits=limits) as server:
            ready(self.address(server))
            await server.wait_closed()

    async def _measure(self, address: str, task: Task) -> Sample:
        if task.workload is Workload.IDLE:
            port = rpcfw.Endpoint.parse(address).port
            return await open_idle(
                port, task.in_flight, lambda: FirstCall("bench.Orders", "get_order", order_id=7)
            )
        if task.workload is Workload.MANY_CLIENTS:
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(self.connect(address)) for _ in range(_CLIENTS)]
                return await keep_each_in_flight(
                    [self._get_order(client) for client in clients], task.seconds
                )
        async with self.connect(address) as client:
            return await self._sample(client, task)

    def _get_order(self, client: rpcfw.Client) -> Caller:
        return functools.partial(self.stub(client).get_order, _ORDER_ID)

    async def _sample(self, client: rpcfw.Client, task: Task) -> Sample:
        workload, seconds = task.workload, task.seconds
        if workload is Workload.GET_ORDER:
            return await keep_in_flight(self._get_order(client), task.in_flight, seconds)
        if workload is Workload.OFFERED_LOAD:
            return await keep_offering(self._get_order(client), task.rate, seconds)
        payloads = client.stub(Payloads)
        calls: dict[Workload, Caller] = {
            Workload.ECHO: functools.partial(payloads.echo, bytes(SMALL_BYTES)),
            Workload.DOWNLOAD: functools.partial(payloads.download, 1),
            Workload.UPLOAD: functools.partial(payloads.upload, bytes(LARGE_BYTES)),
        }
        if workload in calls:
            return await keep_in_flight(calls[workload], task.in_flight, seconds)
        if workload is Workload.SERVER_STREAM:
            return await drain(functools.partial(payloads.ticks, STREAM_ITEMS), STREAM_ITEMS, seconds)
        if workload is Workload.ORDER_STREAM:
            return await drain(
                functools.partial(payloads.orders, STREAM_ITEMS // 10), STREAM_ITEMS // 10, seconds
            )
        assert workload is Workload.CLIENT_STREAM, workload
        return await fill(lambda: payloads.count(_ticks()), STREAM_ITEMS, seconds)


async def _ticks() -> AsyncIterator[Tick]:
    tick = Tick(1, 2, 1.25, "sku-1")
    for _ in range(STREAM_ITEMS):
        yield tick


class Variant(Rpcfw):
    """One thing is different; the call alone is measured."""

    workloads = frozenset({Workload.GET_ORDER})
    depths = (1, 64)


class Structs(Variant):
    """msgspec Structs."""

    name = "rpcfw, Struct"
    setting = "msgspec Structs in place of dataclasses"
    interface = orders = contract.StructOrders


class Models(Variant):
    """Pydantic models."""

    name = "rpcfw, pydantic"
    packages = ("rpcfw", "pydantic", "uvloop")
    setting = "pydantic models in place of dataclasses"
    interface = orders = contract.ModelOrders


class Dicts(Variant):
    """No classes."""

    name = "rpcfw, dict"
    setting = "plain dicts in place of dataclasses"
    interface = orders = contract.PlainOrders


class Bytes(Variant):
    """No messages."""

    name = "rpcfw, bytes"
    setting = "as many raw bytes in place of dataclasses"
    interface = orders = contract.RawOrders


class Asyncio(Variant):
    """The loop of the standard library on both sides."""

    name = "rpcfw, asyncio"
    packages = ("rpcfw", "msgspec")
    setting = "asyncio's own loop in place of uvloop"

    def run(self, program: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(program)


class Unix(Variant):
    """A Unix socket."""

    name = "rpcfw, Unix socket"
    setting = "a Unix socket in place of TCP"
    workloads = frozenset({Workload.GET_ORDER, Workload.DOWNLOAD, Workload.UPLOAD})

    def listen(self) -> list[str]:
        return [f"unix://{tempfile.mkdtemp()}/orders.sock"]


class Tls(Variant):
    """TLS, the client verifying the server."""

    name = "rpcfw, TLS"
    setting = "TLS 1.3 in place of plain TCP, with a certificate made for the run"
    workloads = frozenset({Workload.GET_ORDER, Workload.DOWNLOAD, Workload.UPLOAD})

    def listen(self) -> list[str]:
        self._folder = Path(tempfile.mkdtemp())
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self._folder / "ca.pem")
        certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        certificate.write_to_path(self._folder / "server.pem")
        return [f"tls://127.0.0.1:0?cert={self._folder}/server.pem"]

    def address(self, server: rpcfw.Server) -> str:
        return f"{server.endpoint}?ca={self._folder}/ca.pem"


class Memory(Variant):
    """No socket: server and client share a process and its loop, and so one core."""

    name = "rpcfw, in memory"
    setting = "server and client on one loop of one process, so on one core"

    def serve(self, ready: Callable[[str], None]) -> None:
        ready("mem://orders")
        asyncio.run(_for_ever())

    def connect(self, address: str) -> rpcfw.Client:
        return rpcfw.connect(address, transports=self._transports)

    async def _measure(self, address: str, task: Task) -> Sample:
        self._transports = default_transports()
        async with rpcfw.serve(self.orders(), listen=address, transports=self._transports):
            return await super()._measure(address, task)


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


SUBJECTS: dict[str, Subject] = {
    "rpcfw": Rpcfw(),
    "structs": Structs(),
    "models": Models(),
    "dicts": Dicts(),
    "bytes": Bytes(),
    "asyncio": Asyncio(),
    "unix": Unix(),
    "tls": Tls(),
    "memory": Memory(),
}
