"""aiozmq.rpc: msgpack over ZeroMQ, on asyncio; an order is a dict."""

from __future__ import annotations

import os
from typing import Any

import aiozmq.rpc
from zmq.constants import MAX_SOCKETS
from zmq.sugar.context import Context

from benchmarks.peers.contents import BLOB, KEPT, order_fields
from benchmarks.peers.links import HOST, AsyncioPeer, Link

SOCKETS = 16_384
"""Of a process: ZeroMQ would stop at 1,023, and each client has one."""


def methods() -> dict[str, Any]:
    """The methods that are served: plain functions, which are called at once; a coroutine would be given a task."""
    orders = [order_fields(number) for number in range(KEPT)]

    def get_order(number: int) -> dict[str, Any]:
        return orders[number]

    def echo(body: bytes) -> bytes:
        return body

    def download(size: int) -> bytes:
        return BLOB[:size]

    def upload(body: bytes) -> int:
        return len(body)

    return {served.__name__: aiozmq.rpc.method(served) for served in (get_order, echo, download, upload)}


class ZmqLink(Link):
    """A client: a socket of its own, with a connection."""

    order_type = dict

    def __init__(self, client: Any) -> None:
        self._client = client
        self._call = client.call

    async def get_order(self, number: int) -> Any:
        return await self._call.get_order(number)

    async def echo(self, body: bytes) -> Any:
        return await self._call.echo(body)

    async def download(self, size: int) -> Any:
        return await self._call.download(size)

    async def upload(self, body: bytes) -> Any:
        return await self._call.upload(body)

    async def close(self) -> None:
        self._client.close()
        await self._client.wait_closed()


class Aiozmq(AsyncioPeer):
    """aiozmq."""

    name = "aiozmq"
    packages = ("aiozmq", "pyzmq", "msgpack", "uvloop")
    setting = "on uvloop, methods that are plain functions, one connection, no timeouts"

    def __init__(self) -> None:
        Context.instance().set(MAX_SOCKETS, SOCKETS)

    async def start(self) -> tuple[int, int]:
        self._service = await aiozmq.rpc.serve_rpc(methods(), bind=f"tcp://{HOST}:*")
        (endpoint,) = self._service.transport.bindings()
        return int(endpoint.rpartition(":")[2]), os.getpid()

    async def connect(self, port: int) -> Link:
        return ZmqLink(await aiozmq.rpc.connect_rpc(connect=f"tcp://{HOST}:{port}"))


SUBJECT = Aiozmq()
