"""Streams over bare uvloop: a frame of a header and a body for each item, and the writes joined."""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import Callable, Mapping

from benchmarks.drive import Meter
from benchmarks.raw import FLUSH_AFTER, REPLY_BYTES
from benchmarks.subject import STREAM_ITEMS, Sample, Task, Workload

_HEADER = struct.Struct("<IBBHII")
_TICK_BYTES = 33
"""Two ints, a float and a short text with the names of their fields, as msgpack."""
_ORDER_BYTES = REPLY_BYTES - _HEADER.size
_GO = b"go"

WORKLOADS = frozenset({Workload.SERVER_STREAM, Workload.CLIENT_STREAM, Workload.ORDER_STREAM})


def _frame(body_bytes: int) -> bytes:
    return _HEADER.pack(body_bytes, 3, 0, 0, 1, 1) + bytes(body_bytes)


class Frames:
    """Writes so many frames, joined, for as long as the transport takes more."""

    def __init__(self, transport: asyncio.Transport, frame: bytes, count: int) -> None:
        self._transport = transport
        self._frame = frame
        self._left = count
        self._paused = False

    def resume(self) -> None:
        """Write until paused, or to the end."""
        self._paused = False
        while self._left and not self._paused:
            queued: list[bytes] = []
            for _ in range(min(FLUSH_AFTER, self._left)):
                queued.append(self._frame)  # noqa: PERF401  # an item at a time, as items come
            self._left -= len(queued)
            self._transport.write(b"".join(queued))

    def pause(self) -> None:
        """The transport's buffer is full."""
        self._paused = True


class Counter:
    """Counts the frames in what arrives by their headers alone: more than a receiver can do that wants the items."""

    def __init__(self) -> None:
        self.count = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Bytes of any length."""
        if self._rest:
            data = self._rest + data
        at, end, unpack, size = 0, len(data), _HEADER.unpack_from, _HEADER.size
        while end - at >= size:
            length, _, _, _, _, items = unpack(data, at)
            if end - at - size < length:
                break
            at += size + length
            self.count += items
        self._rest = data[at:]


class Taker(Counter):
    """Takes the body of each frame out as well, one by one, as bytes of their own."""

    def feed(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end, unpack, size = 0, len(data), _HEADER.unpack_from, _HEADER.size
        taken: list[bytes] = []
        while end - at >= size:
            length, _, _, _, _, items = unpack(data, at)
            if end - at - size < length:
                break
            at += size
            taken.append(data[at : at + length])
            at += length
            self.count += items
        self._rest = data[at:]


class _Flow(asyncio.Protocol):
    """Passes the transport's pauses on to what is being written."""

    _frames: Frames | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    def pause_writing(self) -> None:
        if self._frames is not None:
            self._frames.pause()

    def resume_writing(self) -> None:
        if self._frames is not None:
            self._frames.resume()


class Source(_Flow):
    """The server of a stream: sends it each time it is asked to."""

    def __init__(self, frame: bytes, count: int) -> None:
        self._frame, self._count = frame, count

    def data_received(self, data: bytes) -> None:
        self._frames = Frames(self._transport, self._frame, self._count)
        self._frames.resume()


class Sink(_Flow):
    """The server that receives a stream: answers when it is complete."""

    def __init__(self, counter: type[Counter]) -> None:
        self._counter = counter()

    def data_received(self, data: bytes) -> None:
        self._counter.feed(data)
        if self._counter.count == STREAM_ITEMS:
            self._counter.count = 0
            self._transport.write(_GO)


def factories(counter: type[Counter]) -> Mapping[str, Callable[[], asyncio.BaseProtocol]]:
    """The servers of streams, by workload, which count what they receive so."""
    return {
        Workload.SERVER_STREAM: functools.partial(Source, _frame(_TICK_BYTES), STREAM_ITEMS),
        Workload.ORDER_STREAM: functools.partial(Source, _frame(_ORDER_BYTES), STREAM_ITEMS // 10),
        Workload.CLIENT_STREAM: functools.partial(Sink, counter),
    }


class _Client(_Flow):
    def __init__(self, workload: Workload, counter: type[Counter]) -> None:
        self._sends = workload is Workload.CLIENT_STREAM
        self._items = STREAM_ITEMS // 10 if workload is Workload.ORDER_STREAM else STREAM_ITEMS
        self._counter = counter()

    async def stream(self) -> int:
        """One stream; how many items it had."""
        self._done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._sends:
            self._frames = Frames(self._transport, _frame(_TICK_BYTES), STREAM_ITEMS)
            self._frames.resume()
        else:
            self._transport.write(_GO)
        return await self._done

    def data_received(self, data: bytes) -> None:
        if self._sends:
            self._done.set_result(self._items)
            return
        self._counter.feed(data)
        if self._counter.count == self._items:
            self._counter.count = 0
            self._done.set_result(self._items)


async def measure(port: int, task: Task, counter: type[Counter]) -> Sample:
    """Streams, one after the other."""
    transport, client = await asyncio.get_running_loop().create_connection(
        lambda: _Client(task.workload, counter), "127.0.0.1", port
    )
    await client.stream()
    count, meter = 0, Meter()
    while meter.elapsed_s < task.seconds:
        count += await client.stream()
    sample = meter.sample(count)
    transport.close()
    return sample
