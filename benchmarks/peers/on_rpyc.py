"""RPyC: objects of another process as if they were here. What is immutable is copied, and so an order is a tuple:
of anything else the caller would be given a reference, and make a call for each attribute.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import rpyc
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream
from rpyc.utils.helpers import buffiter
from rpyc.utils.server import ThreadedServer

from benchmarks.drive import WARM_UP_S, thinned
from benchmarks.peers.blocking import BlockingLink, BlockingPeer, Call
from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import BACKLOG, HOST, STREAMS, UNARY
from benchmarks.subject import Sample

PULL = 1000
"""Items that a stream's reader asks for at a time."""


def order(number: int) -> tuple[Any, ...]:
    """An order: id, user, items of sku, quantity and price, note."""
    fields = order_fields(number)
    return (
        fields["id"],
        fields["user"],
        tuple(tuple(item.values()) for item in fields["items"]),
        fields["note"],
    )


def tick(number: int) -> tuple[Any, ...]:
    """A small item of a stream."""
    return tuple(tick_fields(number).values())


class OrderBook(rpyc.Service):
    """The service; the prefix is what RPyC exposes methods by."""

    def __init__(self) -> None:
        self._orders = [order(number) for number in range(KEPT)]
        self._ticks = [tick(number) for number in range(KEPT)]

    def exposed_get_order(self, number: int) -> tuple[Any, ...]:
        return self._orders[number]

    def exposed_echo(self, body: bytes) -> bytes:
        return body

    def exposed_download(self, size: int) -> bytes:
        return BLOB[:size]

    def exposed_upload(self, body: bytes) -> int:
        return len(body)

    def exposed_list_ticks(self, count: int) -> Iterator[tuple[Any, ...]]:
        return (self._ticks[number % KEPT] for number in range(count))

    def exposed_send_ticks(self, ticks: Any) -> int:
        return sum(1 for _ in buffiter(ticks, PULL, PULL))

    def exposed_list_orders(self, count: int) -> Iterator[tuple[Any, ...]]:
        return (self._orders[number % KEPT] for number in range(count))


class RpycLink(BlockingLink):
    """A connection. It keeps the remote methods: to look one up is a round trip."""

    def __init__(self, port: int) -> None:
        stream = SocketStream.connect(HOST, port, nodelay=True)
        self._connection: Any = rpyc.connect_stream(stream, config={"sync_request_timeout": None})
        self._root = self._connection.root
        self._methods: dict[str, Any] = {}
        self._ticks = [tick(number) for number in range(KEPT)]

    def remote(self, method: str) -> Any:
        """A remote method."""
        if method not in self._methods:
            self._methods[method] = getattr(self._root, method)
        return self._methods[method]

    def get_order(self, number: int) -> Any:
        return self.remote("get_order")(number)

    def echo(self, body: bytes) -> Any:
        return self.remote("echo")(body)

    def download(self, size: int) -> Any:
        return self.remote("download")(size)

    def upload(self, body: bytes) -> Any:
        return self.remote("upload")(body)

    def list_ticks(self, count: int) -> Any:
        return buffiter(self.remote("list_ticks")(count), PULL, PULL)

    def send_ticks(self, count: int) -> Any:
        return self.remote("send_ticks")(self._ticks[number % KEPT] for number in range(count))

    def list_orders(self, count: int) -> Any:
        return buffiter(self.remote("list_orders")(count), PULL, PULL)

    def order_fields(self, order: Any) -> object:
        _expect_tuple(order)
        number, user, items, note = order
        _expect_tuple(items)
        lines = [{"sku": sku, "qty": quantity, "price": price} for sku, quantity, price in items]
        return {"id": number, "user": user, "items": lines, "note": note}

    def tick_fields(self, tick: Any) -> object:
        _expect_tuple(tick)
        number, size, price, symbol = tick
        return {"number": number, "size": size, "price": price, "symbol": symbol}

    def close(self) -> None:
        self._connection.close()


class Rpyc(BlockingPeer):
    """RPyC. One thread that starts calls before it waits for results goes further than threads that share the lock."""

    name = "RPyC"
    packages = ("rpyc",)
    workloads = UNARY | STREAMS
    multiplexes = True
    setting = (
        "ThreadedServer, orders as tuples, methods looked up once, no compression, TCP_NODELAY; one connection, "
        f"one thread with rpyc.async_; streams are pulled by {PULL:,}"
    )

    def __init__(self) -> None:
        Channel.COMPRESSION_THRESHOLD = sys.maxsize  # bytes; zlib is slower than loopback

    def listen(self, ready: Callable[[int], None]) -> None:
        silent = logging.getLogger("rpyc")
        silent.setLevel(logging.CRITICAL)
        server = ThreadedServer(OrderBook(), hostname=HOST, port=0, backlog=BACKLOG, logger=silent)
        server.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        server.listener.listen(BACKLOG)  # `start` does so too, but a client may come before
        ready(server.port)
        server.start()

    def connect(self, port: int) -> BlockingLink:
        return RpycLink(port)

    def keep_in_flight(self, calls: list[Call], seconds: float) -> Sample:
        begins: list[Callable[[], Any]] = []
        for call in calls:
            assert isinstance(call.link, RpycLink)
            begins.append(partial(rpyc.async_(call.link.remote(call.method)), call.argument))
        _round(begins, WARM_UP_S)
        used, started = time.process_time(), time.perf_counter()
        latencies = _round(begins, seconds)
        elapsed = time.perf_counter() - started
        return Sample(len(latencies), elapsed, thinned(latencies), time.process_time() - used)


def _expect_tuple(value: object) -> None:
    """Raise RuntimeError for a reference, which unpacks as well, by calls back."""
    if type(value) is not tuple:
        raise RuntimeError(f"a tuple came as {type(value)}")


def _round(begins: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Begin each of these calls, and each again when its result has come; how long each took, in microseconds."""
    clock = time.perf_counter
    deadline, latencies = clock() + seconds, list[float]()
    pending = deque((begin, clock(), begin()) for begin in begins)
    while pending:
        begin, started, result = pending.popleft()
        _ = result.value  # waits, and raises what the method raised
        ended = clock()
        latencies.append((ended - started) * 1e6)
        if ended < deadline:
            pending.append((begin, ended, begin()))
    return latencies


SUBJECT = Rpyc()
