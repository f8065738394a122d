"""A connection to a peer whose client blocks, and how each task is done over such connections; `links` has asyncio's.

What differs from peer to peer is how it keeps calls in flight: a thread for each, unless it knows better.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from benchmarks import drive
from benchmarks.peers.contents import KEPT, ORDER_NUMBER, check_order, check_tick
from benchmarks.peers.links import MANY, UNARY
from benchmarks.subject import (
    LARGE_BYTES,
    SMALL_BYTES,
    STREAM_ITEMS,
    Sample,
    Subject,
    Task,
    Workload,
    resident_bytes,
)


class BlockingLink(abc.ABC):
    """One client's connection."""

    order_type: type = dict

    @abc.abstractmethod
    def get_order(self, number: int) -> object:
        """The order of that number."""

    @abc.abstractmethod
    def echo(self, body: bytes) -> bytes:
        """The same body, by way of the server."""

    @abc.abstractmethod
    def download(self, size: int) -> bytes:
        """So many bytes."""

    @abc.abstractmethod
    def upload(self, body: bytes) -> int:
        """How many bytes the server received."""

    def list_ticks(self, count: int) -> Iterable[object]:
        """So many ticks, one after the other."""
        raise NotImplementedError

    def send_ticks(self, count: int) -> int:
        """Send so many ticks, one after the other; how many the server received."""
        raise NotImplementedError

    def list_orders(self, count: int) -> Iterable[object]:
        """So many orders, one after the other."""
        raise NotImplementedError

    def order_fields(self, order: object) -> object:
        """An order with its fields by name, to be looked at, where the peer's own kind has no names."""
        return order

    def tick_fields(self, tick: object) -> object:
        """A tick likewise."""
        return tick

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that is to be made again and again."""

    link: BlockingLink
    method: str
    argument: object

    def bound(self) -> Callable[[], object]:
        """What makes it once."""
        return partial(getattr(self.link, self.method), self.argument)


class BlockingPeer(Subject):
    """A peer whose client blocks.

    Attributes:
        multiplexes: whether one connection takes all calls in flight; otherwise there is one for each.
        stream_items: how many small items a stream has; of Orders a tenth. Fewer than the rest have only where each
            item is a round trip, so that the rate does not depend on their number.
    """

    workloads: ClassVar[frozenset[Workload]] = UNARY
    multiplexes: ClassVar[bool] = False
    stream_items: ClassVar[int] = STREAM_ITEMS

    @abc.abstractmethod
    def listen(self, ready: Callable[[int], None]) -> None:
        """Serve for ever; call `ready` with the port."""

    @abc.abstractmethod
    def connect(self, port: int) -> BlockingLink:
        """A new client, with a connection of its own."""

    def keep_in_flight(self, calls: list[Call], seconds: float) -> Sample:
        """Keep each of these calls in progress at all times."""
        return drive.keep_threads_busy([call.bound() for call in calls], seconds)

    def serve(self, ready: Callable[[str], None]) -> None:
        self.listen(lambda port: ready(f"127.0.0.1:{port}/{os.getpid()}"))

    def measure(self, address: str, task: Task) -> Sample:
        port, pid = (int(part) for part in address.rpartition(":")[2].split("/"))
        with contextlib.ExitStack() as stack:

            def connect() -> BlockingLink:
                link = self.connect(port)
                stack.callback(link.close)
                _check_order(link, link.get_order(ORDER_NUMBER), ORDER_NUMBER)
                return link

            match task.workload:
                case Workload.IDLE:
                    return _idle(connect, pid, task.in_flight)
                case Workload.MANY_CLIENTS:
                    links = [connect() for _ in range(MANY)]
                    return self.keep_in_flight(
                        [Call(link, "get_order", ORDER_NUMBER) for link in links], task.seconds
                    )
                case Workload.SERVER_STREAM | Workload.CLIENT_STREAM | Workload.ORDER_STREAM:
                    return self._stream(connect(), task)
                case _:
                    method, argument = _call(connect(), task.workload)
                    links = [connect()] * task.in_flight if self.multiplexes else []
                    links = links or [connect() for _ in range(task.in_flight)]
                    return self.keep_in_flight([Call(link, method, argument) for link in links], task.seconds)

    def _stream(self, link: BlockingLink, task: Task) -> Sample:
        """A workload of streams, after a short one whose every item is looked at."""
        match task.workload:
            case Workload.SERVER_STREAM:
                for number, tick in enumerate(_exactly(link.list_ticks(KEPT + 10), KEPT + 10)):
                    check_tick(link.tick_fields(tick), number % KEPT)
                return _repeat(partial(_count, link.list_ticks), self.stream_items, task.seconds)
            case Workload.ORDER_STREAM:
                for number, order in enumerate(_exactly(link.list_orders(KEPT + 10), KEPT + 10)):
                    _check_order(link, order, number % KEPT)
                return _repeat(partial(_count, link.list_orders), self.stream_items // 10, task.seconds)
            case _:
                return _repeat(link.send_ticks, self.stream_items, task.seconds)


def _idle(connect: Callable[[], BlockingLink], pid: int, connections: int) -> Sample:
    first = connect()
    for _ in range(200):  # what the server allocates once is no part of a connection
        first.get_order(ORDER_NUMBER)
    before, started = resident_bytes(pid), time.perf_counter()
    for _ in range(connections):
        connect()
    return Sample(connections, time.perf_counter() - started, server_bytes=resident_bytes(pid) - before)


def _call(link: BlockingLink, workload: Workload) -> tuple[str, object]:
    """The method that a workload calls and its argument, after the reply was looked at once."""
    small, large = bytes(range(SMALL_BYTES)), os.urandom(LARGE_BYTES)
    match workload:
        case Workload.GET_ORDER:
            return "get_order", ORDER_NUMBER
        case Workload.ECHO:
            echo = link.echo(small)
            _expect(isinstance(echo, bytes) and echo == small, "an echo is not what was sent")
            return "echo", small
        case Workload.DOWNLOAD:
            blob = link.download(LARGE_BYTES)
            _expect(
                isinstance(blob, bytes) and len(blob) == LARGE_BYTES, "a download has not the size asked for"
            )
            return "download", LARGE_BYTES
        case Workload.UPLOAD:
            _expect(link.upload(large) == LARGE_BYTES, "an upload did not arrive whole")
            return "upload", large
        case _:
            raise ValueError(f"{workload} is no call")


def _check_order(link: BlockingLink, order: object, number: int) -> None:
    check_order(link.order_fields(order), link.order_type, number)


def _exactly(items: Iterable[object], count: int) -> list[object]:
    found = list(items)
    _expect(len(found) == count, "a stream has not as many items as asked for")
    return found


def _count(open_stream: Callable[[int], Iterable[object]], count: int) -> int:
    return sum(1 for _ in open_stream(count))


def _repeat(stream: Callable[[int], int], expected: int, seconds: float) -> Sample:
    """Whole streams of so many items, one after the other; `stream` returns how many came over."""
    count, used, started = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        came = stream(expected)
        _expect(came == expected, f"a stream ended after {came:,} of {expected:,} items")
        count += came
    return Sample(count, time.perf_counter() - started, client_cpu_s=time.process_time() - used)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)
