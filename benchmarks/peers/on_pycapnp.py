"""pycapnp: Cap'n Proto's C++ library under Python, on asyncio with uvloop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import capnp

from benchmarks.peers.contents import BLOB, KEPT, order_fields
from benchmarks.peers.links import BACKLOG, HOST, AsyncioPeer, Link
from benchmarks.subject import Sample

schema = capnp.load(str(Path(__file__).with_name("orders.capnp")))
MOST_WORDS = 1 << 40
"""How much a message may be read; otherwise 64 MiB over all calls on a connection's objects."""


OrdersServer: Any = schema.Orders.Server


class OrderBook(OrdersServer):
    """The server's side; its methods are named as pycapnp wants them."""

    def __init__(self) -> None:
        self._orders = [schema.Order.new_message(**order_fields(number)) for number in range(KEPT)]

    async def getOrder_context(self, context: Any) -> None:
        context.results.order = self._orders[context.params.number]

    async def echo_context(self, context: Any) -> None:
        context.results.body = context.params.body

    async def download_context(self, context: Any) -> None:
        context.results.body = BLOB[: context.params.size]

    async def upload_context(self, context: Any) -> None:
        context.results.size = len(context.params.body)


class CapnpLink(Link):
    """A connection and the object at its other end."""

    order_type = capnp.lib.capnp._DynamicStructReader  # a view of the message: fields are read when asked for

    def __init__(self, stream: Any) -> None:
        self._client = capnp.TwoPartyClient(stream, traversal_limit_in_words=MOST_WORDS)
        self._orders = self._client.bootstrap().cast_as(schema.Orders)

    async def get_order(self, number: int) -> object:
        return (await self._orders.getOrder(number)).order

    async def echo(self, body: bytes) -> bytes:
        return (await self._orders.echo(body)).body

    async def download(self, size: int) -> bytes:
        return (await self._orders.download(size)).body

    async def upload(self, body: bytes) -> int:
        return (await self._orders.upload(body)).size

    async def close(self) -> None:
        self._client.close()


class Pycapnp(AsyncioPeer):
    """Cap'n Proto."""

    name = "pycapnp"
    packages = ("pycapnp",)
    setting = (
        "on asyncio, one connection; replies are views of the message, whose fields are read when asked for"
    )

    # Not on uvloop: the server crashes there when pycapnp stops reading from a connection that has just been opened.
    def run(self, work: Coroutine[Any, Any, Sample | None]) -> Sample | None:
        return asyncio.run(capnp.run(work))

    async def start(self) -> tuple[int, int]:
        async def accept(stream: Any) -> None:
            await capnp.TwoPartyServer(
                stream, bootstrap=orders, traversal_limit_in_words=MOST_WORDS
            ).on_disconnect()

        orders = OrderBook()
        self._server = await capnp.AsyncIoStream.create_server(accept, HOST, 0, backlog=BACKLOG)
        return self._server.sockets[0].getsockname()[1], os.getpid()

    async def connect(self, port: int) -> Link:
        return CapnpLink(await capnp.AsyncIoStream.create_connection(HOST, port))


SUBJECT = Pycapnp()
