"""Pyro5: objects of another process, called through proxies; values as msgpack, and so an order as a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import Pyro5.api

from benchmarks.peers.blocking import BlockingLink, BlockingPeer
from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import HOST, UNARY
from benchmarks.subject import STREAM_ITEMS, Workload

OBJECT = "orders"


class OrderBook:
    """The object."""

    def __init__(self) -> None:
        self._orders = [order_fields(number) for number in range(KEPT)]
        self._ticks = [tick_fields(number) for number in range(KEPT)]

    def get_order(self, number: int) -> dict[str, Any]:
        return self._orders[number]

    def echo(self, body: bytes) -> bytes:
        return body

    def download(self, size: int) -> bytes:
        return BLOB[:size]

    def upload(self, body: bytes) -> int:
        return len(body)

    def list_ticks(self, count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield self._ticks[number % KEPT]

    def list_orders(self, count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield self._orders[number % KEPT]


class PyroLink(BlockingLink):
    """A proxy, which makes one call at a time and belongs to a thread, that of whoever calls here last."""

    def __init__(self, port: int) -> None:
        self._proxy: Any = Pyro5.api.Proxy(f"PYRO:{OBJECT}@{HOST}:{port}")
        self._claim: Callable[[], None] = self._proxy._pyroClaimOwnership

    def get_order(self, number: int) -> Any:
        self._claim()
        return self._proxy.get_order(number)

    def echo(self, body: bytes) -> Any:
        self._claim()
        return self._proxy.echo(body)

    def download(self, size: int) -> Any:
        self._claim()
        return self._proxy.download(size)

    def upload(self, body: bytes) -> Any:
        self._claim()
        return self._proxy.upload(body)

    def list_ticks(self, count: int) -> Any:
        return self._proxy.list_ticks(count)

    def list_orders(self, count: int) -> Any:
        return self._proxy.list_orders(count)

    def close(self) -> None:
        self._claim()
        self._proxy._pyroRelease()


class Pyro(BlockingPeer):
    """Pyro5. Its multiplexing server took less of the processor in every workload than the one with threads."""

    name = "Pyro5"
    packages = ("Pyro5", "msgpack")
    workloads = UNARY | {Workload.SERVER_STREAM, Workload.ORDER_STREAM}
    stream_items = STREAM_ITEMS // 10
    setting = (
        "msgpack, multiplexing server, TCP_NODELAY; a proxy and a thread for each call in flight; "
        "streams are remote iterators, a round trip for each item"
    )

    def __init__(self) -> None:
        Pyro5.api.config.SERIALIZER = "msgpack"
        Pyro5.api.config.SERVERTYPE = "multiplex"
        Pyro5.api.config.SOCK_NODELAY = True

    def listen(self, ready: Callable[[int], None]) -> None:
        daemon = Pyro5.api.Daemon(host=HOST, port=0)
        Pyro5.api.expose(OrderBook)
        daemon.register(OrderBook(), OBJECT)  # an object: of a class, every connection would be given its own
        ready(int(daemon.locationStr.rpartition(":")[2]))
        daemon.requestLoop()

    def connect(self, port: int) -> BlockingLink:
        return PyroLink(port)


SUBJECT = Pyro()
