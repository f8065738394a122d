"""Bytes in, frames out: splits the stream into frames and joins chunked messages into buffers of the right size.

No I/O: the caller reads into `target()` and says how much arrived; each frame goes straight to the handler of its
type. Every size is checked before memory is taken for it. After h11's reader; the right-sized buffers avoid the copies
that facts about large payloads showed to dominate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rpcfw.errors import ProtocolError
from rpcfw.wire.frames import (
    CHUNK,
    ERROR,
    FRAME_NAMES,
    HEADER,
    HEADER_BYTES,
    HELLO,
    ITEMS,
    MAGIC,
    METADATA,
    PARTED,
    REPLY,
    REQUEST,
    RESET,
    UNKEPT,
    Frame,
)
from rpcfw.wire.large import LARGE_BYTES, Assembly, LargeBody, is_trusted, lazy_buffer

SCRATCH_BYTES = 64 * 1024
_PEEK_BYTES = 4096
"""How much is read at a time between the chunks of a message, so that the next chunk goes where it belongs uncopied."""
_DIRECT_BYTES = 4096
"""An incomplete frame of at least this size is read straight into a buffer of its own."""
_TAIL_BYTES = 256
"""The end of a body in parts is read apart: whoever reads holds a view of where it reads to until that is dealt with,
and with a view of them those `bytes` cannot be given out uncopied."""
_EARLY_PART = 4
"""A fourth of a budget may be taken for what has not come yet: however many peers stop half-way, the rest is left."""
_OF_MESSAGES = frozenset((CHUNK, REQUEST, REPLY, ITEMS))
"""Frames that carry a message or part of one. Others may come between the chunks of a message."""
_PARTED = frozenset((REQUEST, REPLY))
"""Frames whose body may be received in parts, unless it begins with something else than a value."""
_BEGINS_OTHERWISE = METADATA | ERROR

_Header = tuple[int, int, int, int, int, int]
OnFrame = Callable[[int, int, int, int, bytes | memoryview], None]
"""Takes flags, method id, stream id, the last header field and the body of one frame."""


class OnFrames(Protocol):
    """Who takes the frames of each type: a list of 256 functions, one for each value of the type's byte."""

    def __getitem__(self, kind: int, /) -> OnFrame: ...


class Budget:
    """Memory that all connections of one owner may hold for messages: asked before it is taken.

    Args:
        limit: bytes in all.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve; False when it would go over the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def take_early(self, size: int) -> bool:
        """Reserve for what has not come yet; False when it would take the use over a part of the limit."""
        return self.used + size <= self.limit // _EARLY_PART and self.take(size)

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.used -= size


class FrameReader:
    """Turns what a peer sends into frames.

    Args:
        scratch: the buffer that reads go to; connections of one loop may share one, as each read is handled at once.
        max_frame_bytes: largest body of one frame.
        max_message_bytes: largest message joined from chunks.
        max_assemblies: how many chunked messages may be on their way at a time.
        budget: memory for chunked messages, shared with other readers.
        max_hello_bytes: largest body of the first frame, if a stranger may send less than others.

    Attributes:
        parts: set it to receive a large REQUEST or REPLY that ends with a binary value in parts: its frame comes with
            the flag PARTED, the `bytes` of that value as its body, and what goes before in `head`.
        head: see `parts`.
        error: what the peer did wrong; the frames before it are still good, nothing after it is read.
    """

    def __init__(
        self,
        scratch: memoryview,
        *,
        max_frame_bytes: int,
        max_message_bytes: int,
        max_assemblies: int,
        budget: Budget,
        max_hello_bytes: int | None = None,
    ) -> None:
        self._scratch = scratch
        self._peek = scratch[:_PEEK_BYTES]
        self._rest = b""
        self._body: memoryview | None = None
        self._body_filled = 0
        self._direct_end = 0
        self._ahead = False
        self._large: LargeBody | None = None
        self._header: _Header = (0, 0, 0, 0, 0, 0)
        self._assemblies: dict[int, Assembly] = {}
        self._greeted = False
        self.max_frame_bytes = max_frame_bytes
        self.max_message_bytes = max_message_bytes
        self.max_assemblies = max_assemblies
        self.budget = budget
        self._max_hello_bytes = max_frame_bytes if max_hello_bytes is None else max_hello_bytes
        self.parts = False
        self._sent = 0
        self._early = 0
        self.head = b""
        self._closed = False
        self.error: ProtocolError | None = None

    def target(self) -> memoryview:
        """Where the next bytes are to be written."""
        if self._body is not None:
            if self._body_filled < self._direct_end:
                return self._body[self._body_filled : self._direct_end]
            return self._scratch
        return self._peek if self._assemblies else self._scratch

    def received(self, size: int, handlers: OnFrames) -> int:
        """Take `size` bytes that were written to `target()` and give each frame they complete to its handler.

        Args:
            size: how many bytes.
            handlers: by frame type. One that raises ProtocolError ends the reading.

        Returns the number of frames. Bodies stay valid for as long as they are kept.
        """
        if self._closed:
            return 0
        try:
            if self._body is not None:
                return self._received_direct(size, handlers)
            data = self._scratch[:size].tobytes()
            return self._split(self._rest + data if self._rest else data, handlers)
        except ProtocolError as error:
            self.error = error
            self.close()
            return 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes from anywhere, for tests and datagrams: `target` and `received` until all are taken."""
        frames: list[Frame] = []
        collect = _Collector(frames)
        view = memoryview(data)
        while view and not self._closed:
            target = self.target()
            size = min(len(target), len(view))
            target[:size] = view[:size]
            self.received(size, collect)
            view = view[size:]
        return frames

    def drop(self, stream: int) -> None:
        """Forget a message on its way, because its sender reset the stream and will send no more of it."""
        assembly = self._assemblies.pop(stream, None)
        if assembly is not None:
            self.budget.give(assembly.held)
            if assembly.body is not None:
                self._early -= assembly.body.taken

    @property
    def progress(self) -> int:
        """Changes while a message or a large frame is arriving, 0 when none is: tells one that has come to a stand."""
        if self._body is not None:
            return 1 + self._body_filled + sum(assembly.filled for assembly in self._assemblies.values())
        return sum(1 + assembly.filled for assembly in self._assemblies.values())

    @property
    def is_amid_large(self) -> bool:
        """Whether a large frame, or a message in chunks, is on its way."""
        return bool(self._assemblies) or (self._body is not None and len(self._body) >= LARGE_BYTES)

    def close(self) -> None:
        """Give back all memory; nothing more is read."""
        self._closed, self._rest, self._body = True, b"", None
        self._end_large()
        for stream in list(self._assemblies):
            self.drop(stream)

    def _split(self, data: bytes, handlers: OnFrames) -> int:
        position, frames, unpack = 0, 0, HEADER.unpack_from
        size, limit, assemblies = len(data), self.max_frame_bytes, self._assemblies
        last = size - HEADER_BYTES
        if not self._greeted and last >= 0:
            self._greet(data)
        while True:
            # a comparison and a jump: one instruction here, two at the end of a loop
            if position > last:
                break
            length, kind, flags, method, stream, extra = unpack(data, position)
            if length > limit:
                raise ProtocolError(
                    f"a frame of {length:,} bytes is over the limit of {limit:,}; send larger messages in chunks"
                )
            start = position + HEADER_BYTES
            position = start + length
            if position > size:
                if length >= _DIRECT_BYTES:
                    self._begin_direct((length, kind, flags, method, stream, extra), memoryview(data)[start:])
                else:
                    self._rest = data[start - HEADER_BYTES :]
                return frames
            if assemblies or kind == CHUNK:
                frames += self._within(
                    (length, kind, flags, method, stream, extra), data[start:position], handlers
                )
            else:
                handlers[kind](flags, method, stream, extra, data[start:position])
                frames += 1
            if self._closed:  # by a handler
                return frames
        self._rest = data[position:]
        return frames

    def _within(self, header: _Header, body: bytes, handlers: OnFrames) -> int:
        """Take a whole frame that is a chunk, or comes while messages arrive in chunks."""
        _, kind, flags, method, stream, extra = header
        if kind == CHUNK or (stream in self._assemblies and kind in _OF_MESSAGES):
            place, skipped = self._destination(header, body)
            place[:] = body[skipped:]
            del place  # a view, see _TAIL_BYTES
            return self._complete(header, handlers)
        if kind == RESET:
            self.drop(stream)
        handlers[kind](flags, method, stream, extra, body)
        return 1

    def _greet(self, data: bytes) -> None:
        length, kind, _, _, _, extra = HEADER.unpack_from(data)
        if kind != HELLO or extra != MAGIC:
            raise ProtocolError(f"the peer does not speak rpcfw: its first bytes are {data[:16]!r}")
        if length > self._max_hello_bytes:
            raise ProtocolError(f"a HELLO of {length:,} bytes is over the limit of {self._max_hello_bytes:,}")
        self._greeted = True

    def _begin_direct(self, header: _Header, first: memoryview) -> None:
        """Read the rest of a frame straight to where its body belongs."""
        self._rest = b""
        self._header = header
        body, skipped = self._destination(header, first)
        filled = self._body_filled = len(first) - skipped
        body[:filled] = first[skipped:]
        self._body, self._direct_end, self._ahead = body, len(body), False
        if header[1] == CHUNK:
            self._reach_ahead(header[4], len(body))
        elif self._is_parted(header[4]):
            self._direct_end = max(0, len(body) - _TAIL_BYTES)

    def _is_parted(self, stream: int) -> bool:
        """Whether the frame that is being read ends a body that is received in parts."""
        if self._large is not None:
            return bool(self._large.head)
        assembly = self._assemblies.get(stream)
        return assembly is not None and assembly.body is not None and bool(assembly.body.head)

    def _reach_ahead(self, stream: int, size: int) -> None:
        """Read the next header with the chunk, to where the next chunk will go, which saves reading it by itself."""
        assembly = self._assemblies[stream]
        if assembly.body is None:
            return
        start = max(0, assembly.filled - len(assembly.body.head))
        end = start + size + HEADER_BYTES
        if end <= len(assembly.body.view):
            self._body, self._direct_end, self._ahead = assembly.body.view[start:end], end - start, True

    def _received_direct(self, size: int, handlers: OnFrames) -> int:
        """Bytes came for the frame that is read to where its body belongs, or its tail, and more, to the scratch."""
        body, filled = self._body, self._body_filled
        assert body is not None
        after = b""
        if filled >= self._direct_end:
            data, left = self._scratch[:size].tobytes(), len(body) - filled
            after, size = data[left:], min(size, left)
            body[filled : filled + size] = data[:left]
        self._body_filled = filled = filled + size
        if filled < len(body):
            return 0
        if self._ahead:
            after = bytes(body[-HEADER_BYTES:])
        self._body = body = None
        frames = self._finish_direct(handlers)
        return frames + self._split(after, handlers) if after and not self._closed else frames

    def _finish_direct(self, handlers: OnFrames) -> int:
        header = self._header
        _, kind, _, _, stream, _ = header
        if kind == CHUNK or (stream in self._assemblies and kind in _OF_MESSAGES):
            return self._complete(header, handlers)
        if kind == RESET:
            self.drop(stream)
        large = self._end_large()
        assert large is not None
        self._sent += header[0]
        self._deliver(header, large, handlers)
        return 1

    def _end_large(self) -> LargeBody | None:
        """No frame is on its way to a buffer of its own any more. Who handles it counts what it keeps."""
        large, self._large = self._large, None
        if large is not None and large.taken:
            self.budget.give(large.taken)
            self._early -= large.taken
        return large

    def _destination(self, header: _Header, first: bytes | memoryview) -> tuple[memoryview, int]:
        """Where a frame's body belongs: its place in the message it is part of, or a buffer of its own.

        Also returns how many of the body's first bytes, of which there are `first`, do not belong there.
        """
        length, kind, flags, _, stream, extra = header
        assembly = self._assemblies.get(stream) if kind in _OF_MESSAGES else None
        if assembly is None:
            if kind != CHUNK:
                may_part = (
                    self.parts and length >= LARGE_BYTES and kind in _PARTED and not flags & _BEGINS_OTHERWISE
                )
                taken = self._take_early(length, len(first))
                large = self._large = LargeBody(length, first, taken=taken, may_part=may_part)
                return large.view, len(large.head)
            assembly = self._begin_assembly(stream, extra, first)
        left = assembly.total - assembly.filled
        if (length >= left) if kind == CHUNK else (length != left):
            name = FRAME_NAMES[kind] if kind < len(FRAME_NAMES) else str(kind)
            raise ProtocolError(
                f"stream {stream}: a {name} of {length:,} bytes where {left:,} bytes of the message were left"
            )
        body = assembly.body
        if body is not None and not body.taken and not self._take(assembly, length):
            body = None
        if body is None:
            return lazy_buffer(length), 0
        start = assembly.filled - len(body.head)
        skipped = max(0, -start)
        return body.view[start + skipped : start + length], skipped

    def _take(self, assembly: Assembly, size: int) -> bool:
        """Count memory for a message; where there is none, the message is read past."""
        if self.budget.take(size):
            assembly.held += size
            return True
        assembly.body = None
        self.budget.give(assembly.held)
        assembly.held = 0
        return False

    def _take_early(self, size: int, arrived: int) -> bool:
        """Count all memory for a large body of which this much has come, if the peer has earned it."""
        if size < LARGE_BYTES or not is_trusted(size, arrived, self._sent, self._early):
            return False
        if not self.budget.take_early(size):
            return False
        self._early += size
        return True

    def _begin_assembly(self, stream: int, total: int, first: bytes | memoryview) -> Assembly:
        if stream == 0:
            raise ProtocolError("a CHUNK came in stream 0, which carries no messages")
        if total > self.max_message_bytes:
            raise ProtocolError(
                f"stream {stream}: a message of {total:,} bytes is over the limit of {self.max_message_bytes:,}"
            )
        if len(self._assemblies) >= self.max_assemblies:
            raise ProtocolError(f"more than {self.max_assemblies} chunked messages at a time")
        taken = self._take_early(total, len(first))
        body = LargeBody(total, first, taken=taken, may_part=self.parts and total >= LARGE_BYTES)
        assembly = self._assemblies[stream] = Assembly(total, body)
        assembly.held = body.taken
        return assembly

    def _complete(self, header: _Header, handlers: OnFrames) -> int:
        length, kind, flags, method, stream, extra = header
        assembly = self._assemblies.get(stream)
        if assembly is None:
            return 0
        assembly.filled += length
        if kind == CHUNK:
            return 0
        self.drop(stream)
        self._sent += assembly.total
        if assembly.body is None:
            handlers[kind](flags | UNKEPT, method, stream, extra, b"")
        else:
            self._deliver(header, assembly.body, handlers)
        return 1

    def _deliver(self, header: _Header, large: LargeBody, handlers: OnFrames) -> None:
        _, kind, flags, method, stream, extra = header
        body = large.whole()
        if large.head:
            if kind in _PARTED and not flags & _BEGINS_OTHERWISE:
                flags, self.head = flags | PARTED, large.head
            else:  # its chunks looked like that
                body = memoryview(large.head + body)
        handlers[kind](flags, method, stream, extra, body)
        self.head = b""


class _Collector:
    """Handlers that put every frame into a list."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames

    def __getitem__(self, kind: int, /) -> OnFrame:
        return lambda flags, method, stream, extra, body: self._frames.append(
            (kind, flags, method, stream, extra, body)
        )
