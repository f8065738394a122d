"""The streams of a client's calls: which call has which ends, who feeds them, and when they end.

An end by itself, with its batches and its credit, is in `streams`. What a call is, and what becomes of one that is
given up, the connection knows.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container
from typing import Any

from rpcfw.call import Call
from rpcfw.codec import MessageError
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.session import Session
from rpcfw.connection.streams import ItemReceiver, ItemSender
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.items import Batch, Items
from rpcfw.wire.frames import CREDIT, END, ITEMS, REQUEST, UNKEPT

_Pump = asyncio.Task[None]
"""Sends a call's stream, beside whoever waits for the call."""


class ClientStreams:
    """What a client's connection knows of its calls' streams.

    Args:
        session: carries the frames.
        calls: the streams of the calls in progress, kept by the connection.
        expect: enters a call there; its future has the outcome, None where the result is a stream.
        give_up: ends a call before its reply; the code tells the server why, an error the call's future.
    """

    def __init__(
        self,
        session: Session,
        calls: Container[int],
        expect: Callable[[Call, MethodCodec, int], asyncio.Future[Any]],
        give_up: Callable[[int, Code, Exception | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._calls = calls
        self._expect = expect
        self._give_up = give_up
        self._receivers: dict[int, ItemReceiver] = {}
        self._senders: dict[int, ItemSender] = {}
        self._unbegun: dict[int, weakref.finalize[..., AsyncGenerator[Batch, None]]] = {}

    async def call(
        self, call: Call, codec: MethodCodec, stream: int, head: tuple[int, int, int], body: Any
    ) -> Any:
        """Make a call that has streams.

        Args:
            call: with an async iterator among its arguments, where it streams to the server.
            codec: of its method.
            stream: its number.
            head: flags, method and extra of the REQUEST.
            body: of the REQUEST.
        """
        flags, method, extra = head
        outbox = self._session.outbox
        source: AsyncIterator[Any] | None = None
        if codec.spec.kind.streams_in:
            flags &= ~END
            source = _source(call, codec)
        future = self._expect(call, codec, stream)
        receiver: ItemReceiver | None = None
        if codec.items_out is not None:
            receiver = self._receivers[stream] = ItemReceiver(
                codec.items_out,
                codec.path,
                self._session.settings.window_bytes,
                self._session.budget,
                lambda credit: outbox.send(CREDIT, 0, 0, stream, credit),
                lambda problem: self._abandon(stream, problem),
            )
            future.add_done_callback(receiver.end_with)
        outbox.send(REQUEST, flags, method, stream, extra, body)
        pump: _Pump | None = None
        if source is not None:
            assert codec.items_in is not None
            sender = self._senders[stream] = ItemSender(self._loop, outbox, codec.items_in, stream)
            pump = self._loop.create_task(self._send_items(stream, sender, source))
            future.add_done_callback(lambda _: _stop(pump))
        if receiver is not None:
            batches = self._received_batches(stream, receiver, pump)
            unbegun = self._unbegun[stream] = weakref.finalize(batches, self._forget, stream, receiver, pump)
            unbegun.atexit = False
            return Items(batches)
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(stream, Code.CANCELLED, None)
            raise
        finally:
            del future  # which has the error, whose traceback has this frame
            await _end(pump)

    def stop(self, stream: int) -> None:
        """A RESET of this call follows: send no items of it after that."""
        sender = self._senders.get(stream)
        if sender is not None:
            sender.stop()

    def is_empty(self) -> bool:
        """Whether no call has an open end of a stream here."""
        return not (self._receivers or self._senders or self._unbegun)

    # frames from the server

    def take_items(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        """Take an ITEMS frame."""
        receiver = self._receivers.get(stream)
        if receiver is None or stream not in self._calls:
            return  # the caller has given up
        problem = receiver.take(body, extra, kept=not flags & UNKEPT)
        if problem is not None:
            self._abandon(stream, problem)

    def take_credit(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        """Take a CREDIT frame."""
        sender = self._senders.get(stream)
        if sender is not None:
            sender.grant(extra)

    # from the server

    async def _received_batches(
        self, stream: int, receiver: ItemReceiver, pump: _Pump | None
    ) -> AsyncGenerator[Batch, None]:
        self._unbegun.pop(stream).detach()  # it will end itself; the finalizer would keep an error's frames
        batches = receiver.batches()
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()
            self._forget(stream, receiver, None)
            await _end(pump)

    def _abandon(self, stream: int, problem: RpcError | None) -> RpcError | None:
        """A stream from the server ends early here, because its consumer wants no more, or because of a problem with
        what came. Returns that as the consumer is told it.
        """
        if problem is None:
            self._give_up(stream, Code.CANCELLED, None)
            return None
        code = Code.INTERNAL if problem.code is Code.INVALID_ARGUMENT else problem.code
        error = RpcError(code, problem.message, origin=Origin.CONNECTION, executed=True)
        self._give_up(stream, problem.code, error)
        return error

    def _forget(self, stream: int, receiver: ItemReceiver, pump: _Pump | None) -> None:
        """Nobody reads this stream any more; it may never have been begun."""
        self._receivers.pop(stream, None)
        self._unbegun.pop(stream, None)
        receiver.drop()
        if not self._loop.is_closed():
            self._give_up(stream, Code.CANCELLED, None)
            _stop(pump)

    # to the server

    async def _send_items(self, stream: int, sender: ItemSender, source: AsyncIterator[Any]) -> None:
        """Feed the call's stream. What the source raises, the caller of the call gets."""
        try:
            await sender.send_all(source)
        except Exception as error:
            problem = (
                RpcError(Code.INVALID_ARGUMENT, str(error)) if isinstance(error, MessageError) else error
            )
            self._give_up(stream, Code.CANCELLED, problem)
        else:
            if stream in self._calls:
                self._session.outbox.send(ITEMS, END, 0, stream, 0)
        finally:
            self._senders.pop(stream, None)


def _source(call: Call, codec: MethodCodec) -> AsyncIterator[Any]:
    """What the caller streams to the server."""
    assert codec.stream_index is not None
    source: AsyncIterator[Any] = call.arguments[codec.stream_index]
    if not hasattr(source, "__aiter__"):
        raise RpcError(
            Code.INVALID_ARGUMENT,
            f"{codec.path}: the stream argument must be an async iterator, not {type(source).__name__}",
        )
    return source


def _stop(pump: _Pump | None) -> None:
    """Cancel it once: a second time would cut short what the caller's stream does at its end."""
    if pump is not None and not pump.cancelling():
        pump.cancel()


async def _end(pump: _Pump | None) -> None:
    if pump is not None and not pump.done():
        _stop(pump)
        await asyncio.wait([pump])
