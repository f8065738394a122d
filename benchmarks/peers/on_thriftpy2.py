"""thriftpy2 as most use it: blocking, a thread for each connection on both sides, its protocol compiled by Cython."""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Callable
from typing import Any

import thriftpy2
from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TCyBufferedTransportFactory, TServerSocket

from benchmarks.peers.blocking import BlockingLink, BlockingPeer
from benchmarks.peers.contents import BLOB, KEPT, order_fields
from benchmarks.peers.links import BACKLOG, HOST

THRIFT: Any = thriftpy2.load(
    str(pathlib.Path(__file__).with_name("orders.thrift")), module_name="orders_thrift"
)
ACCELERATED = TCyBinaryProtocolFactory()
NO_TIMEOUT = 0
"""With one, Python would poll the socket before each read and write."""


def order(number: int) -> Any:
    """An order, as the schema has it."""
    fields = order_fields(number)
    return THRIFT.Order(**{**fields, "items": [THRIFT.Item(**item) for item in fields["items"]]})


class OrderBook:
    """The methods of the schema's service."""

    def __init__(self) -> None:
        self._orders = [order(number) for number in range(KEPT)]

    def get_order(self, number: int) -> Any:
        return self._orders[number]

    def echo(self, body: bytes) -> bytes:
        return body

    def download(self, size: int) -> bytes:
        return BLOB[:size]

    def upload(self, body: bytes) -> int:
        return len(body)


class Listener(TServerSocket):
    """Tells its port, which the system picks."""

    def __init__(self, ready: Callable[[int], None]) -> None:
        super().__init__(HOST, 0, client_timeout=NO_TIMEOUT, backlog=BACKLOG)
        self._ready = ready

    def listen(self) -> None:
        super().listen()
        # Connections inherit it. Without, a large reply, which is written in two, waits 40 ms for an acknowledgement.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ready(self.sock.getsockname()[1])


class ThriftLink(BlockingLink):
    """A client, which makes one call at a time."""

    order_type = THRIFT.Order

    def __init__(self, port: int) -> None:
        self._client: Any = make_client(
            THRIFT.Orders,
            HOST,
            port,
            proto_factory=ACCELERATED,
            trans_factory=TCyBufferedTransportFactory(),
            timeout=NO_TIMEOUT,
        )

    def get_order(self, number: int) -> Any:
        return self._client.get_order(number)

    def echo(self, body: bytes) -> Any:
        return self._client.echo(body)

    def download(self, size: int) -> Any:
        return self._client.download(size)

    def upload(self, body: bytes) -> Any:
        return self._client.upload(body)

    def close(self) -> None:
        self._client.close()


class ThriftPy2(BlockingPeer):
    """The blocking half of the package."""

    name = "thriftpy2"
    packages = ("thriftpy2",)
    setting = (
        "TThreadedServer, TCyBinaryProtocol, TCyBufferedTransport, TCP_NODELAY, no timeouts; "
        "a connection and a thread for each call in flight"
    )

    def listen(self, ready: Callable[[int], None]) -> None:
        TThreadedServer(
            TProcessor(THRIFT.Orders, OrderBook()),
            Listener(ready),
            iprot_factory=ACCELERATED,
            itrans_factory=TCyBufferedTransportFactory(),
            daemon=True,
        ).serve()

    def connect(self, port: int) -> BlockingLink:
        return ThriftLink(port)


SUBJECT = ThriftPy2()
