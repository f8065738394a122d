"""Connect for Python under pyvoy, which is Envoy with Python in it; the client is its own, over pyqwest."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pyqwest
import pyvoy

from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import HOST, STREAMS, UNARY, AsyncioPeer, Link
from benchmarks.peers.schemas import generated

with generated("python", "connectrpc=protobuf=google"):
    from peers import orders_connect, orders_pb2

IN_ENVOY = "BENCH_IN_ENVOY"
"""In the environment of the server's process, which imports this module for `app`."""
TICKS = [orders_pb2.Tick(**tick_fields(number)) for number in range(KEPT)]


class OrderBook(orders_connect.Orders):
    """The server's side."""

    def __init__(self) -> None:
        self._orders = [orders_pb2.Order(**order_fields(number)) for number in range(KEPT)]

    async def get_order(self, request: Any, ctx: Any) -> Any:
        return self._orders[request.value]

    async def echo(self, request: Any, ctx: Any) -> Any:
        return orders_pb2.Body(data=request.data)

    async def download(self, request: Any, ctx: Any) -> Any:
        return orders_pb2.Body(data=BLOB[: request.value])

    async def upload(self, request: Any, ctx: Any) -> Any:
        return orders_pb2.Number(value=len(request.data))

    async def list_ticks(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        for number in range(request.value):
            yield TICKS[number % KEPT]

    async def send_ticks(self, request: AsyncIterator[Any], ctx: Any) -> Any:
        count = 0
        async for _ in request:
            count += 1
        return orders_pb2.Number(value=count)

    async def list_orders(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        for number in range(request.value):
            yield self._orders[number % KEPT]


def _end_with_input() -> None:
    """End Envoy with the benchmark, as `benchmarks.subject` ends a server of its own."""
    sys.stdin.buffer.read()
    os._exit(0)


if IN_ENVOY in os.environ:
    app = orders_connect.OrdersASGIApplication(OrderBook(), compressions=(), read_max_bytes=None)
    threading.Thread(target=_end_with_input, daemon=True).start()
    gc.collect()
    gc.freeze()


class ConnectLink(Link):
    """A client with a transport of its own, which opens as many connections as calls are in flight."""

    order_type = orders_pb2.Order

    def __init__(self, port: int) -> None:
        self._transport = pyqwest.HTTPTransport(
            http_version=pyqwest.HTTPVersion.HTTP1,  # also what it takes by itself where there is no TLS
            pool_max_idle_per_host=1000,
            pool_idle_timeout=None,
            enable_otel=False,
        )
        self._client = orders_connect.OrdersClient(
            f"http://{HOST}:{port}",
            accept_compression=(),
            send_compression=None,
            http_client=pyqwest.Client(self._transport),
        )

    async def get_order(self, number: int) -> object:
        return await self._client.get_order(orders_pb2.Number(value=number))

    async def echo(self, body: bytes) -> bytes:
        return (await self._client.echo(orders_pb2.Body(data=body))).data

    async def download(self, size: int) -> bytes:
        return (await self._client.download(orders_pb2.Number(value=size))).data

    async def upload(self, body: bytes) -> int:
        return (await self._client.upload(orders_pb2.Body(data=body))).value

    def list_ticks(self, count: int) -> Any:
        return self._client.list_ticks(orders_pb2.Number(value=count))

    async def send_ticks(self, count: int) -> int:
        async def ticks() -> AsyncIterator[Any]:
            for number in range(count):
                yield TICKS[number % KEPT]

        return (await self._client.send_ticks(ticks())).value

    def list_orders(self, count: int) -> Any:
        return self._client.list_orders(orders_pb2.Number(value=count))

    async def close(self) -> None:
        await self._transport.aclose()


class Connectrpc(AsyncioPeer):
    """Connect."""

    name = "connectrpc"
    packages = ("connectrpc", "protobuf", "pyqwest", "pyvoy")
    workloads = UNARY | STREAMS
    setting = (
        "pyvoy (Envoy, one worker) as server, HTTP/1.1, which is faster here than HTTP/2, "
        "a connection per call in flight, Google's protobuf messages, no compression"
    )

    async def start(self) -> tuple[int, int]:
        self._server = pyvoy.PyvoyServer(
            f"{__name__}:app",
            address=HOST,
            env={IN_ENVOY: "1"},
            additional_envoy_args=["--concurrency", "1"],
        )
        await self._server.start()
        process = self._server._process
        assert process is not None
        return self._server.listener_port, process.pid

    async def connect(self, port: int) -> Link:
        return ConnectLink(port)


SUBJECT = Connectrpc()
