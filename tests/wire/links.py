"""Links without a network: what is written is kept, what arrives is put there by hand or by the other end.

Two ends are joined by `join`; the tests of the wire, the outbox and the fuzzer all stand on this one fake. After h11's
tests, which join two connections through lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from rpcfw.wire.frames import HEADER, HEADER_BYTES, Frame

Buffer = bytes | bytearray | memoryview


class FakeLink:
    """One end of a link, to be given to a receiver by `open`.

    Attributes:
        written: every write, in order, as it was made.
        paused: the receiver has asked to be told nothing more for now.
        limit: beyond so many bytes the receiver is asked to pause writing, until `relieve`; None for never.
    """

    def __init__(self, receiver: asyncio.BufferedProtocol, *, limit: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiver = receiver
        self._on_write: Callable[[bytes], object] | None = None
        self._held: list[bytes] = []
        self._closing = False
        self._full = False
        self._queued = 0
        self.written: list[bytes] = []
        self.limit = limit
        self.paused = False
        self.aborted = False

    def open(self) -> FakeLink:
        """Tell the receiver that the link is there."""
        self._receiver.connection_made(self)  # type: ignore[arg-type]  # a Link, which is all that is asked for
        return self

    def deliver(self, data: Buffer) -> None:
        """Let bytes arrive, in pieces as large as the receiver's buffers. After the end they are lost."""
        if self.paused:
            self._held.append(bytes(data))
            return
        view = memoryview(data)
        while view and not self._closing:
            target: memoryview = self._receiver.get_buffer(-1)  # type: ignore[assignment]  # as Receiver says
            size = min(len(target), len(view))
            target[:size] = view[:size]
            self._receiver.buffer_updated(size)
            view = view[size:]

    def take(self) -> bytes:
        """Everything written since the last time."""
        taken = b"".join(self.written)
        self.written.clear()
        return taken

    def relieve(self) -> None:
        """All that was written is on its way: the receiver may write again."""
        self._queued = 0
        if self._full:
            self._full = False
            self._receiver.resume_writing()

    def on_write(self, notice: Callable[[bytes], object]) -> None:
        """Have every write told as it is made."""
        self._on_write = notice

    # what a link does

    def write(self, data: Buffer) -> None:
        self._take([data])

    def writelines(self, parts: Iterable[Buffer]) -> None:
        self._take(parts)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        held, self._held = self._held, []
        for data in held:
            self.deliver(data)

    def get_write_buffer_size(self) -> int:
        return self._queued

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._receiver.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("fake", 1) if name in ("peername", "sockname") else default

    def _take(self, parts: Iterable[Buffer]) -> None:
        if self._closing:
            return
        data = b"".join(parts)
        self.written.append(data)
        if self._on_write is not None:
            self._on_write(data)
        self._queued += len(data)
        if self.limit is not None and self._queued > self.limit and not self._full:
            self._full = True
            self._receiver.pause_writing()


def join(client: asyncio.BufferedProtocol, server: asyncio.BufferedProtocol) -> tuple[FakeLink, FakeLink]:
    """Both ends of an open link; what one writes reaches the other at the loop's next turn."""
    loop = asyncio.get_running_loop()
    near, far = FakeLink(client), FakeLink(server)
    near.on_write(lambda data: loop.call_soon(far.deliver, data))
    far.on_write(lambda data: loop.call_soon(near.deliver, data))
    far.open()
    near.open()
    return near, far


def split(data: bytes) -> list[bytes]:
    """The frames of a stream of bytes, each with its header; what is left over is one more."""
    frames, position = [], 0
    while len(data) - position >= HEADER_BYTES:
        (length, *_) = HEADER.unpack_from(data, position)
        frames.append(data[position : position + HEADER_BYTES + length])
        position += len(frames[-1])
    return [*frames, data[position:]] if position < len(data) else frames


def parse(data: bytes) -> Frame:
    """One whole frame."""
    length, kind, flags, method, stream, extra = HEADER.unpack_from(data)
    assert length == len(data) - HEADER_BYTES
    return kind, flags, method, stream, extra, data[HEADER_BYTES:]


async def turn(times: int = 1) -> None:
    """Let the loop turn."""
    for _ in range(times):
        await asyncio.sleep(0)
