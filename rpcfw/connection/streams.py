"""The two ends of a stream of items inside one call: the sender that obeys credit, the receiver that grants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from rpcfw.codec import Plan
from rpcfw.connection.outbox import Outbox
from rpcfw.errors import Code, RpcError
from rpcfw.wire.frames import ITEMS
from rpcfw.wire.window import ReceiveWindow, SendWindow, cost_of

_BATCH_ITEMS = 64
_BATCH_BYTES = 32 * 1024
_ARRAY_HEAD_BYTES = 3


class ItemSender:
    """Sends what an async iterator yields, in batches, as far as the credit goes.

    Items are encoded when they are yielded, so the producer may reuse its objects. A batch leaves when it is full or
    when the producer waits for something.
    """

    __slots__ = (
        "_batch",
        "_bytes",
        "_granted",
        "_loop",
        "_outbox",
        "_plan",
        "_scheduled",
        "_stream",
        "_window",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, plan: Plan, stream: int) -> None:
        self._loop = loop
        self._outbox = outbox
        self._plan = plan
        self._stream = stream
        self._window = SendWindow(outbox.limits.window_bytes)
        self._batch: list[bytes] = []
        self._bytes = 0
        self._scheduled = False
        self._granted: asyncio.Future[None] | None = None

    async def send_all(self, items: AsyncIterable[Any]) -> None:
        """Send all items. The iterator is closed when this ends, however it ends. Raises what the iterator raises,
        and MessageError for an item that cannot travel.
        """
        window, outbox, encode = self._window, self._outbox, self._plan.encode
        iterator = aiter(items)
        most = outbox.limits.max_message_bytes - _ARRAY_HEAD_BYTES
        try:
            if outbox.is_sending(self._stream):  # the request itself is large
                await outbox.sent(self._stream)
            async for item in iterator:
                while window.credit <= 0 or outbox.congested:
                    await self._wait()
                try:
                    data = encode(item)
                except Exception as error:
                    raise self._plan.encoding_error(error, item) from error
                if not isinstance(data, bytes):
                    data = b"".join(data)
                if self._bytes + len(data) > most:
                    await self._make_room(len(data), most)
                self._batch.append(data)
                self._bytes += len(data)
                if len(self._batch) >= _BATCH_ITEMS or self._bytes >= _BATCH_BYTES:
                    self._flush()
                    if outbox.is_sending(self._stream):
                        await outbox.sent(self._stream)
                elif not self._scheduled:
                    self._scheduled = True
                    self._loop.call_soon(self._turn)
            self._flush()
            if outbox.is_sending(self._stream):
                await outbox.sent(self._stream)
        except Exception:
            self._flush()  # what was yielded before still arrives
            raise
        finally:
            self._batch.clear()
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def grant(self, credit: int) -> None:
        """The receiver has consumed. Raises ProtocolError for an absurd credit."""
        self._window.grant(credit)
        if self._granted is not None and self._window.credit > 0:
            if not self._granted.done():
                self._granted.set_result(None)
            self._granted = None

    async def _make_room(self, size: int, most: int) -> None:
        """Send what is there, so that the next item begins a message of its own.

        Raises RpcError for an item that is too large.
        """
        if size > most:
            limit = most + _ARRAY_HEAD_BYTES
            message = f"a stream item of {size:,} bytes is over the {limit:,} that the peer accepts; cut it in pieces"
            raise RpcError(Code.RESOURCE_EXHAUSTED, message)
        self._flush()
        if self._outbox.is_sending(self._stream):
            await self._outbox.sent(self._stream)

    async def _wait(self) -> None:
        if self._outbox.congested:
            await self._outbox.ready()
        if self._window.credit <= 0:
            self._granted = self._loop.create_future()
            await self._granted

    def _turn(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        batch = self._batch
        count = len(batch)
        if not count:
            return
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        body = head + b"".join(batch)
        self._window.credit -= cost_of(len(body), count)
        self._outbox.send(ITEMS, 0, 0, self._stream, count, body)
        self._batch = []
        self._bytes = 0


class ItemReceiver:
    """Holds what came of a stream until it is iterated over, and grants credit for what was taken.

    Items are validated on arrival; memory is bounded by the window. Made for one consumer.

    Args:
        grant: sends credit to the peer.
        abandon: called when the consumer stops before the end.
    """

    __slots__ = ("_abandon", "_batches", "_ended", "_error", "_grant", "_loop", "_waiter", "_window")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        window_bytes: int,
        grant: Callable[[int], None],
        abandon: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._window = ReceiveWindow(window_bytes)
        self._grant = grant
        self._abandon = abandon
        self._batches: deque[tuple[list[Any], int]] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def admit(self, body_bytes: int, items: int) -> int:
        """Account for a batch before it is decoded; returns its cost. Raises ProtocolError when credit is overdrawn."""
        cost = cost_of(body_bytes, items)
        self._window.arrive(cost)
        return cost

    def arrive(self, items: list[Any], cost: int) -> None:
        """A decoded batch; what comes after the end is dropped."""
        if not self._ended:
            self._batches.append((items, cost))
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; what is here is still delivered, then the error is raised."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def end_with(self, call: asyncio.Future[Any]) -> None:
        """End as a call has ended: a done-callback."""
        self.end(None if call.cancelled() else call.exception())

    def drop(self) -> None:
        """Nobody will take what is here."""
        self._batches.clear()
        self.end()

    async def items(self) -> AsyncIterator[Any]:
        """The items in order. Closing or leaving it early abandons the stream."""
        batches = self._batches
        try:
            while True:
                while batches:
                    items, cost = batches.popleft()
                    for item in items:
                        yield item
                    granted = self._window.consume(cost)
                    if granted and not self._ended:
                        self._grant(granted)
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            if not self._ended:
                self._abandon()

    def _wake(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._waiter.set_result(None)
            self._waiter = None
