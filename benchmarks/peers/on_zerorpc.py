"""zerorpc: msgpack over ZeroMQ, in greenlets; an order is a dict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import zerorpc
from zmq.constants import MAX_SOCKETS

from benchmarks.drive import WARM_UP_S, thinned
from benchmarks.peers.blocking import BlockingLink, BlockingPeer, Call
from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import HOST, UNARY
from benchmarks.subject import STREAM_ITEMS, Sample, Workload

SOCKETS = 16_384
"""Of a process: ZeroMQ would stop at 1,023, and each client has one."""
SLOTS = 1000
"""Items of a stream that may be on their way; 100 unless asked for more."""


class OrderBook:
    """The methods that are served."""

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
        return (self._ticks[number % KEPT] for number in range(count))

    def list_orders(self, count: int) -> Iterator[dict[str, Any]]:
        return (self._orders[number % KEPT] for number in range(count))


class ZeroLink(BlockingLink):
    """A client: a socket of its own, on which greenlets share a connection."""

    def __init__(self, port: int) -> None:
        self._client: Any = zerorpc.Client(f"tcp://{HOST}:{port}", timeout=None, heartbeat=None)

    def get_order(self, number: int) -> Any:
        return self._client.get_order(number)

    def echo(self, body: bytes) -> Any:
        return self._client.echo(body)

    def download(self, size: int) -> Any:
        return self._client.download(size)

    def upload(self, body: bytes) -> Any:
        return self._client.upload(body)

    def list_ticks(self, count: int) -> Any:
        return self._client.list_ticks(count, slots=SLOTS)

    def list_orders(self, count: int) -> Any:
        return self._client.list_orders(count, slots=SLOTS)

    def close(self) -> None:
        self._client.close()


class Zerorpc(BlockingPeer):
    """zerorpc, whose calls block a greenlet each."""

    name = "zerorpc"
    packages = ("zerorpc", "gevent", "pyzmq", "msgpack")
    workloads = UNARY | {Workload.SERVER_STREAM, Workload.ORDER_STREAM}
    multiplexes = True
    stream_items = STREAM_ITEMS // 10
    setting = f"gevent, one connection, a greenlet for each call in flight, no heartbeats, streams with {SLOTS:,} slots"

    def __init__(self) -> None:
        # It would remark on each message of credit that comes after a stream's end.
        logging.getLogger("zerorpc").setLevel(logging.CRITICAL)
        zerorpc.Context.get_instance().set(MAX_SOCKETS, SOCKETS)

    def listen(self, ready: Callable[[int], None]) -> None:
        book = OrderBook()
        methods = {
            "get_order": book.get_order,
            "echo": book.echo,
            "download": book.download,
            "upload": book.upload,
            "list_ticks": zerorpc.stream(book.list_ticks),
            "list_orders": zerorpc.stream(book.list_orders),
        }
        server = zerorpc.Server(methods, name="orders", heartbeat=None)
        (bound,) = server.bind(f"tcp://{HOST}:*")
        ready(int(bound.addr.rpartition(":")[2]))
        server.run()

    def connect(self, port: int) -> BlockingLink:
        return ZeroLink(port)

    def keep_in_flight(self, calls: list[Call], seconds: float) -> Sample:
        bound = [call.bound() for call in calls]
        _round(bound, WARM_UP_S)
        used, started = time.process_time(), time.perf_counter()
        latencies = _round(bound, seconds)
        elapsed = time.perf_counter() - started
        return Sample(len(latencies), elapsed, thinned(latencies), time.process_time() - used)


def _round(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """A greenlet for each of these calls makes it again and again; how long each took, in microseconds."""
    clock = time.perf_counter
    deadline, latencies = clock() + seconds, list[float]()

    def caller(call: Callable[[], object]) -> None:
        started = clock()
        while started < deadline:
            call()
            ended = clock()
            latencies.append((ended - started) * 1e6)
            started = ended

    gevent.joinall([gevent.spawn(caller, call) for call in calls], raise_error=True)
    return latencies


SUBJECT = Zerorpc()
