"""thriftpy2's asyncio half: the schema and bytes of `on_thriftpy2`, by a protocol that is in Python alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

from thriftpy2.contrib.aio.processor import TAsyncProcessor
from thriftpy2.contrib.aio.rpc import make_client
from thriftpy2.contrib.aio.server import TAsyncServer
from thriftpy2.contrib.aio.socket import TAsyncServerSocket

from benchmarks.peers import on_thriftpy2
from benchmarks.peers.links import BACKLOG, HOST, AsyncioPeer, Link
from benchmarks.peers.on_thriftpy2 import THRIFT


class OrderBook:
    """The methods of the schema's service, as coroutines."""

    def __init__(self) -> None:
        self._book = on_thriftpy2.OrderBook()

    async def get_order(self, number: int) -> Any:
        return self._book.get_order(number)

    async def echo(self, body: bytes) -> bytes:
        return body

    async def download(self, size: int) -> bytes:
        return self._book.download(size)

    async def upload(self, body: bytes) -> int:
        return len(body)


class ThriftLink(Link):
    """As many clients as there are calls in flight: each makes one at a time."""

    order_type = THRIFT.Order

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Any] = []

    def get_order(self, number: int) -> Coroutine[Any, Any, Any]:
        return self._call("get_order", number)

    def echo(self, body: bytes) -> Coroutine[Any, Any, Any]:
        return self._call("echo", body)

    def download(self, size: int) -> Coroutine[Any, Any, Any]:
        return self._call("download", size)

    def upload(self, body: bytes) -> Coroutine[Any, Any, Any]:
        return self._call("upload", body)

    async def close(self) -> None:
        for client in self._free:
            client.close()

    async def _call(self, method: str, argument: object) -> Any:
        if not self._free:
            self._free.append(await make_client(THRIFT.Orders, HOST, self._port, timeout=None))
        client = self._free.pop()
        reply = await getattr(client, method)(argument)
        self._free.append(client)  # not after an error, which ends the measurement
        return reply


class ThriftPy2Aio(AsyncioPeer):
    """The asyncio half of the package."""

    name = "thriftpy2 aio"
    packages = ("thriftpy2", "uvloop")
    setting = (
        "on uvloop, TAsyncServer, buffered binary protocol, no timeouts; a connection for each call in flight"
    )

    async def start(self) -> tuple[int, int]:
        listener: Any = TAsyncServerSocket(HOST, 0, client_timeout=None, backlog=BACKLOG)
        processor = TAsyncProcessor(THRIFT.Orders, OrderBook())
        server: Any = TAsyncServer(processor, listener, loop=asyncio.get_running_loop())
        listener.listen()
        self._server = await listener.accept(server.handle)  # as its `init_server` does before a loop runs
        return listener.raw_sock.getsockname()[1], os.getpid()

    async def connect(self, port: int) -> Link:
        return ThriftLink(port)


SUBJECT = ThriftPy2Aio()
