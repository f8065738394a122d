"""The two ends of a stream of items inside one call: the sender that obeys credit, the receiver that grants it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any

from rpcfw.codec import Plan
from rpcfw.connection.outbox import Outbox
from rpcfw.errors import Code, ProtocolError, RpcError
from rpcfw.items import Batch
from rpcfw.wire.frames import ITEMS
from rpcfw.wire.reader import Budget
from rpcfw.wire.window import ReceiveWindow, SendWindow, cost_of

HELD_BYTES = 64 * 1024
"""Messages of at least this size count against the memory budget for as long as they are held."""
_BATCH_ITEMS = 64
_ENOUGH_BYTES = 8 * 1024
_MOST_ITEMS = 256
"""Batches of more than `_BATCH_ITEMS` are for tiny items, which are single objects. A batch of items of several objects
each would have Python's collector run at the receiver: it does whenever some 700 more were made than freed."""
_BATCH_BYTES = 32 * 1024
_ARRAY_HEAD_BYTES = 3
_LENGTH_BYTES = {0xDC: 2, 0xDD: 4}
"""How wide the length of an array is, where it does not stand in the head itself."""


class ItemSender:
    """Sends what an async iterator yields, in batches, as far as the credit goes.

    Items are encoded when they are yielded, so the producer may reuse its objects. A batch leaves when it is full, or
    when the producer waits for something.
    """

    __slots__ = (
        "_batch",
        "_granted",
        "_loop",
        "_outbox",
        "_over",
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
        self._scheduled = False
        self._over = False
        self._granted: asyncio.Future[None] | None = None

    async def send_all(self, items: AsyncIterable[Any]) -> None:
        """Send all items. The iterator is closed when this ends, however it ends. Raises what the iterator raises,
        and MessageError for an item that cannot travel.
        """
        window, outbox, batch, encode = self._window, self._outbox, self._batch, self._plan.encode
        iterator = aiter(items)
        size, most = 0, outbox.limits.max_message_bytes - _ARRAY_HEAD_BYTES
        try:
            async for item in iterator:
                try:
                    data: Any = encode(item)  # bytes: items are never sent in parts
                except Exception as error:
                    raise self._plan.encoding_error(error, item) from error
                size += len(data)
                if size > most:
                    self._check_size(len(data), most)
                    await self._send_batch()
                if not batch:
                    size = len(data)
                    while window.credit <= 0 or outbox.congested:
                        await self._wait()
                    if not self._scheduled:
                        self._scheduled = True
                        self._loop.call_soon(self._turn)
                batch.append(data)
                count = len(batch)
                if size >= _BATCH_BYTES or (
                    count >= _BATCH_ITEMS and (size >= _ENOUGH_BYTES or count >= _MOST_ITEMS)
                ):
                    await self._send_batch()
            await self._send_batch()
        except Exception:
            await self._send_batch()  # what was yielded before still arrives
            raise
        finally:
            batch.clear()
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

    def stop(self) -> None:
        """The stream was reset: send nothing more of it."""
        self._over = True

    def _check_size(self, size: int, most: int) -> None:
        if size > most:
            limit = most + _ARRAY_HEAD_BYTES
            message = f"a stream item of {size:,} bytes is over the {limit:,} that the peer accepts; cut it in pieces"
            raise RpcError(Code.RESOURCE_EXHAUSTED, message)

    async def _send_batch(self) -> None:
        """Send what is there, in its turn: a large message of this stream goes out whole before the next begins."""
        outbox, stream = self._outbox, self._stream
        if outbox.is_sending(stream):
            await outbox.sent(stream)
        self._flush()
        if outbox.is_sending(stream):
            await outbox.sent(stream)

    async def _wait(self) -> None:
        if self._outbox.congested:
            await self._outbox.ready()
        if self._window.credit <= 0:
            self._granted = self._loop.create_future()
            await self._granted

    def _turn(self) -> None:
        if self._outbox.is_sending(self._stream):
            self._outbox.when_sent(self._stream, self._turn)
            return
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        batch = self._batch
        count = len(batch)
        if not count:
            return
        if self._over:
            batch.clear()
            return
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        body = head + b"".join(batch)
        self._window.credit -= cost_of(len(body), count)
        self._outbox.send(ITEMS, 0, 0, self._stream, count, body)
        batch.clear()


class ItemReceiver:
    """Holds what came of a stream until it is iterated over, and grants credit for what was taken.

    Items are validated when they are taken, those of large batches on arrival. Memory is bounded by the window, and
    large batches count against the budget until they are consumed. Made for one consumer.

    Args:
        plan: of the items.
        path: the method's name, for errors.
        window_bytes: credit of the stream at its start.
        budget: memory for large messages.
        grant: sends credit to the peer.
        abandon: called when the stream ends early on this side: because the consumer stops, or because of an item that
            does not fit, and then it may return another error to tell the consumer.
    """

    __slots__ = (
        "_abandon",
        "_batches",
        "_budget",
        "_ended",
        "_error",
        "_grant",
        "_path",
        "_plan",
        "_waiter",
        "_window",
    )

    def __init__(
        self,
        plan: Plan,
        path: str,
        window_bytes: int,
        budget: Budget,
        grant: Callable[[int], None],
        abandon: Callable[[RpcError | None], RpcError | None],
    ) -> None:
        self._plan = plan
        self._path = path
        self._window = ReceiveWindow(window_bytes)
        self._budget = budget
        self._grant = grant
        self._abandon = abandon
        self._batches: deque[tuple[Batch | bytes | memoryview, int, int]] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def take(self, body: bytes | memoryview, count: int, *, kept: bool) -> RpcError | None:
        """A batch came; returns why it cannot be used, if so.

        A small one is decoded when it is taken: the objects of a whole window, made here, would have the collector
        run over and over, and be out of the cache when somebody looks at them, which costs more than to make them.

        Args:
            body: the batch, empty where the reader had no memory for it.
            count: how many items it says to have.
            kept: whether the reader had memory for it.

        Raises:
            ProtocolError: it came without credit, or does not hold as many items as it says.
        """
        size = len(body)
        cost = cost_of(size, count)
        self._window.arrive(cost)
        if self._ended:
            return None
        held = size if size >= HELD_BYTES else 0
        if not kept or (held and not self._budget.take(held)):
            used, limit = self._budget.used, self._budget.limit
            message = (
                f"{self._path}: an item found no memory; large messages hold {used:,} of the {limit:,} bytes "
                "of max_memory_bytes here"
            )
            return RpcError(Code.RESOURCE_EXHAUSTED, message)
        batch: Batch | bytes | memoryview = body
        if held:
            try:
                batch = self._plan.decode(body)
            except Exception as error:
                self._budget.give(held)
                return self._misfit(error, body)
        length = _length_of(body) if batch is body else len(batch)
        if length != count:
            self._budget.give(held)
            raise ProtocolError(f"{self._path}: a batch of {length:,} items says that it has {count:,}")
        self._batches.append((batch, cost, held))
        self._wake()
        return None

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; what is here is still delivered, then the error is raised."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def end_with(self, call: asyncio.Future[Any]) -> None:
        """End as a call has ended: a done-callback."""
        self.end(None if call.cancelled() else call.exception())

    def drop(self) -> None:
        """The call is over: nothing here is delivered any more, and a consumer that still waits is told so."""
        self._discard()
        self.end(RpcError(Code.CANCELLED, f"{self._path}: the call ended before its stream did"))

    async def items(self) -> AsyncIterator[Any]:
        """The items in order. Closing or leaving it early abandons the stream."""
        batches = self.batches()
        try:
            async for batch in batches:
                for item in batch:
                    yield item
        finally:
            await batches.aclose()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """The items as they came: a batch counts as taken when the next is asked for. Otherwise as `items`."""
        batches = self._batches
        try:
            while True:
                while batches:
                    batch, cost, held = batches.popleft()
                    self._budget.give(held)
                    yield self._decoded(batch) if isinstance(batch, bytes | memoryview) else batch
                    granted = self._window.consume(cost)
                    if granted and not self._ended:
                        self._grant(granted)
                if self._ended:
                    self._raise_once()
                    return
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            if not self._ended:
                self._abandon(None)

    def _decoded(self, body: bytes | memoryview) -> Batch:
        """A batch that is taken. Raises RpcError, and nothing after it counts, where an item does not fit."""
        try:
            items: list[Any] = self._plan.decode(body)
        except Exception as error:
            problem = self._misfit(error, body)
            self._ended, self._error = True, None
            self._discard()
            raise self._abandon(problem) or problem from None
        return items

    def _misfit(self, error: Exception, body: bytes | memoryview) -> RpcError:
        problem = self._plan.decoding_error(error, body)
        return RpcError(Code.INVALID_ARGUMENT, f"{self._path}: an item does not fit: {problem}")

    def _discard(self) -> None:
        for _, _, held in self._batches:
            self._budget.give(held)
        self._batches.clear()

    def _raise_once(self) -> None:
        """Raise the error, if there is one, and forget it: its traceback will have frames that have this receiver."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def _wake(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                self._waiter.set_result(None)
            self._waiter = None


def _length_of(body: bytes | memoryview) -> int:
    """How many values the array has that a batch is; 0 where it is none."""
    head = body[0] if len(body) else 0
    if head & 0xF0 == 0x90:
        return head & 0x0F
    width = _LENGTH_BYTES.get(head, 0)
    return int.from_bytes(body[1 : 1 + width], "big")
