"""What a connection sends: frames joined into few writes, large messages cut into chunks between them.

One write per loop turn for all that was queued in it, and earlier once two thirds of what the last read brought are
there, half where there are other connections (at most `_MAX_BATCH`): so a lone call is written at once, and under load
neither side waits for the other's whole turn. Large messages go out chunk by chunk, in turns, behind the small frames;
nothing large is copied.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable

from rpcfw.codec import Buffer, Encoded
from rpcfw.connection.spin import Spin
from rpcfw.transport import Link, vectored_write
from rpcfw.wire.frames import CHUNK, HEADER
from rpcfw.wire.handshake import Settings

_MAX_BATCH = 32
COPIED_BYTES = 16 * 1024
"""Bodies below this are joined with their neighbours; larger ones are handed to the link as they are."""
_CHUNKS_PER_TURN = 4
"""So many at the most, in one write if the link has taken as many before without having to wait."""
_LARGEST_FRAME_BYTES = 256 * 1024
"""Larger messages go in chunks even where the peer takes larger frames: its wish must not hold up other calls."""
_pack = HEADER.pack

_Header = tuple[int, int, int, int, int]


class _Bulk:
    """A large message being sent: its frame's header, what is left of it, and who waits for its end."""

    __slots__ = ("done", "header", "parts", "size", "started", "total")

    def __init__(self, header: _Header, parts: list[Buffer], total: int) -> None:
        self.header = header
        self.parts = deque(memoryview(part) for part in parts)
        self.total = self.size = total
        self.started = False
        self.done: asyncio.Future[bool] | None = None

    def take(self, count: int) -> list[memoryview]:
        """The next `count` bytes, as views."""
        taken = []
        self.size -= count
        while count:
            part = self.parts.popleft()
            if len(part) > count:
                self.parts.appendleft(part[count:])
                part = part[:count]
            taken.append(part)
            count -= len(part)
        return taken


class Outbox:
    """The sending side of one connection.

    Attributes:
        limits: the peer's settings; this side's own hold until its HELLO has come.
        congested: the link's buffer is full; callers should wait with `ready` before they queue more.
    """

    __slots__ = ("_batch", "_bulk", "_bulk_of", "_burst", "_closed", "_context", "_link", "_loop", "_pumping", "_queue",
                 "_scheduled", "_sent", "_spin", "_vectored", "_waiting", "_write_parts",
                 "congested", "limits")  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: Link, limits: Settings, spin: Spin | None = None
    ) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()  # the connection's, or the turns would keep those of calls
        self._link = link
        self._write_parts = vectored_write(link)
        self.limits = limits
        self._spin = spin or Spin(0)
        self._queue: list[Buffer] = []
        self._sent = 0
        self._batch = 1
        self._scheduled = False
        self._vectored = False
        self._bulk: deque[_Bulk] = deque()
        self._bulk_of: dict[int, _Bulk] = {}
        self._burst = 1
        self._pumping = False
        self.congested = False
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []

    def send(self, kind: int, flags: int, method: int, stream: int, extra: int, body: Encoded = b"") -> None:
        """Queue a frame; a body beyond the peer's frame limit goes in chunks."""
        if type(body) is bytes and len(body) < COPIED_BYTES:
            self.send_small(kind, flags, method, stream, extra, body)
            return
        self._queue_large((kind, flags, method, stream, extra), body)
        if len(self._queue) >= self._batch:
            self.flush()
        elif not self._scheduled:
            self._schedule()

    def send_small(self, kind: int, flags: int, method: int, stream: int, extra: int, body: bytes) -> None:
        """The same for who knows that the body has less than `COPIED_BYTES`."""
        queue = self._queue
        queue.append(_pack(len(body), kind, flags, method, stream, extra) + body)
        if len(queue) >= self._batch:
            self.flush()
        elif not self._scheduled:
            self._schedule()

    def expect(self, frames: int, *, alone: bool = True) -> None:
        """So many frames came in one read, and about as many will soon be sent: choose when to write.

        Where a connection is not alone, what it sends answers what the others have read as well, and says nothing of
        what is to come.
        """
        sent, self._sent = self._sent, 0
        wanted = max(frames, sent) * 2 // 3 if alone else frames // 2
        self._batch = max(1, min(_MAX_BATCH, wanted))

    def flush(self) -> None:
        """Write what is queued, unless the link has asked to wait."""
        if self.congested or not self._queue:
            return
        self._sent += len(self._queue)
        if self._sent > _MAX_BATCH:
            self._batch = _MAX_BATCH
        if self._closed:
            self._queue.clear()
            return
        self._spin.expect()
        queue, self._queue = self._queue, []
        if self._vectored:
            self._vectored = False
            self._write_parts(queue)
        else:
            self._link.write(b"".join(queue) if len(queue) > 1 else queue[0])

    def pause(self) -> None:
        """The link's buffer is full."""
        self.congested = True

    def resume(self) -> None:
        """The link takes bytes again."""
        self.congested = False
        self.flush()
        if not self.congested:
            self._release()  # before the next chunk, which may fill the link again: small calls go between chunks
            self._schedule_pump()

    async def ready(self) -> None:
        """Wait until the link takes bytes again. Cancelling it is harmless."""
        while self.congested:
            waiter = (
                self._loop.create_future()
            )  # of its own: a shared one, shielded, would wake a turn too late
            self._waiting.append(waiter)
            await waiter

    def is_sending(self, stream: int) -> bool:
        """Whether a large message of that stream is still on its way out; frames of the stream must wait for it."""
        return stream in self._bulk_of

    async def sent(self, stream: int) -> bool:
        """Wait until the large message of that stream is written; False when it was dropped or the link was lost."""
        bulk = self._bulk_of.get(stream)
        return True if bulk is None else await asyncio.shield(self._end_of(bulk))

    def when_sent(self, stream: int, callback: Callable[[], None]) -> None:
        """Call back once the large message of that stream, which is being sent, is out or given up."""
        self._end_of(self._bulk_of[stream]).add_done_callback(lambda _: callback())

    def _end_of(self, bulk: _Bulk) -> asyncio.Future[bool]:
        if bulk.done is None:
            bulk.done = self._loop.create_future()
        return bulk.done

    def drop(self, stream: int) -> bool:
        """Forget the large message of a stream; True when part of it was sent, so that the peer must be told."""
        bulk = self._bulk_of.pop(stream, None)
        if bulk is None:
            return False
        self._bulk.remove(bulk)
        self._finish(bulk, whole=False)
        return bulk.started

    def close(self) -> None:
        """Let go of everything queued and of everyone who waits: the link is gone."""
        self._closed = True
        self.congested = False
        self._queue.clear()
        for bulk in self._bulk:
            self._finish(bulk, whole=False)
        self._bulk.clear()
        self._bulk_of.clear()
        self._release()

    @property
    def backlog(self) -> int:
        """Bytes of the frames that wait to be written; large messages wait beside them."""
        return sum(map(len, self._queue))

    def is_empty(self) -> bool:
        """Whether all that was sent has been handed to the link."""
        return not self._queue and not self._bulk

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._end_turn, context=self._context)

    def _end_turn(self) -> None:
        self._scheduled = False
        self.flush()

    def _queue_large(self, header: _Header, body: Encoded) -> None:
        parts: list[Buffer] = body if isinstance(body, list) else [body]
        total = sum(len(part) for part in parts)
        if total <= min(self.limits.max_frame_bytes, _LARGEST_FRAME_BYTES):
            self._queue.append(HEADER.pack(total, *header))
            self._queue += parts
            self._vectored = True
            return
        bulk = _Bulk(header, parts, total)
        self._bulk.append(bulk)
        self._bulk_of[header[3]] = bulk
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        if self._bulk and not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump_turn, context=self._context)

    def _pump_turn(self) -> None:
        self._pumping = False
        self._pump()

    def _pump(self) -> None:
        """Write a few chunks, one message after the other, while the link takes them."""
        if not self._bulk:
            return
        self.flush()
        left = _CHUNKS_PER_TURN
        while left:
            if self.congested or not self._bulk or self._closed:
                return
            count = min(self._burst, left)
            left -= count
            self._write_chunks(count)
        self._schedule_pump()

    def _write_chunks(self, count: int) -> None:
        """Write up to `count` chunks at once, of one message as long as it has some, so that it is done with soon.

        Twice as many are tried next while the link takes all of them, one when it does not.
        """
        parts: list[Buffer] = []
        finished: list[_Bulk] = []
        while count and self._bulk:
            bulk, whole = self._bulk.popleft(), False
            while count and not whole:
                whole = self._take_chunk(bulk, parts)
                count -= 1
            if whole:
                del self._bulk_of[bulk.header[3]]
                finished.append(bulk)
            else:
                self._bulk.insert(min(self.limits.max_assemblies - 1, len(self._bulk)), bulk)
        self._spin.large()
        self._spin.expect()
        self._write_parts(parts)
        if self.congested:
            self._burst = 1
        elif self._burst < _CHUNKS_PER_TURN:
            self._burst *= 2
        for bulk in finished:
            self._finish(bulk, whole=True)

    def _take_chunk(self, bulk: _Bulk, parts: list[Buffer]) -> bool:
        """Add the next part of a message to `parts`; whether that was the last."""
        kind, flags, method, stream, extra = bulk.header
        limit = min(self.limits.max_frame_bytes, _LARGEST_FRAME_BYTES)
        if bulk.size > limit:
            bulk.started = True
            parts += [_pack(limit, CHUNK, 0, 0, stream, bulk.total), *bulk.take(limit)]
            if bulk.size >= min(limit, COPIED_BYTES):
                return False  # what little is left goes with the last chunk
        parts += [_pack(bulk.size, kind, flags, method, stream, extra), *bulk.take(bulk.size)]
        return True

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    @staticmethod
    def _finish(bulk: _Bulk, *, whole: bool) -> None:
        if bulk.done is not None and not bulk.done.done():
            bulk.done.set_result(whole)
