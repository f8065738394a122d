"""Replies that are more than a small plain result: large ones, metadata, errors, and those given up half sent.

A small plain result the connection sends itself, without a step aside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeGuard

from rpcfw.call import Metadata, pack_metadata
from rpcfw.codec import Encoded, size_of
from rpcfw.connection.exchange import ServerExchange
from rpcfw.connection.failures import pack_failure
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.session import Session
from rpcfw.connection.streams import HELD_BYTES
from rpcfw.errors import Code, RpcError
from rpcfw.wire.frames import END, ERROR, METADATA, REFUSED, REPLY, RESET, pack_error, with_metadata


class ReplySender:
    """Sends what comes of a server's calls, where the plain road does not do.

    Args:
        session: carries the frames.
        hold: counts bytes of a call against the memory budget. Raises RpcError when too little is left.
        dev: send the text and the traceback of a handler's failure.
    """

    def __init__(self, session: Session, hold: Callable[[ServerExchange, int], None], *, dev: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._hold = hold
        self._dev = dev

    def send_unusual(self, exchange: ServerExchange, stream: int, body: Encoded) -> None:
        """Send a result that is large or has metadata. Raises RpcError when it is too large, or no memory is left."""
        flags, outbox = END, self._session.outbox
        if exchange.reply_metadata:
            flags, head = flags | METADATA, _metadata_head(exchange.reply_metadata)
            body = head + body if isinstance(body, bytes) else [head, *body]
        size, limit = size_of(body), outbox.limits.max_message_bytes
        if size > limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{exchange.codec.path}: a result of {size:,} bytes is over the {limit:,} that the client "
                "accepts; return a stream, or raise max_message_bytes there",
            )
        self._session.budget.give(exchange.held)  # the request's; its handler has ended
        exchange.held = 0
        if size >= HELD_BYTES:
            self._hold(exchange, size)
        outbox.send(REPLY, flags, 0, stream, 0, body)

    def send_failure(
        self, exchange: ServerExchange, stream: int, error: BaseException, *, refused: bool = False
    ) -> None:
        """Tell the client what the handler raised, and the log where it must know.

        Args:
            exchange: the call.
            stream: its number.
            error: what was raised.
            refused: by a middleware, and the handler was never reached: the call may be made again.
        """
        path, outbox = exchange.codec.path, self._session.outbox
        if refused and is_refusal(error):
            body = pack_error(error)
        else:
            body = self._failure(exchange, error)
        if exchange.silent:
            return
        if outbox.drop(stream):  # amid a large item, whose rest a REPLY would be taken for
            code = Code.DEADLINE_EXCEEDED if self._loop.time() >= exchange.deadline else Code.CANCELLED
            outbox.send(RESET, 0, 0, stream, int(code), b"the handler was cancelled while it sent an item")
            return
        flags, limit = END | ERROR | (REFUSED if refused else 0), outbox.limits.max_message_bytes
        if exchange.reply_metadata and len(body) <= limit:
            flags, body = flags | METADATA, _metadata_head(exchange.reply_metadata) + body
        if len(body) > limit:
            flags, message = (
                flags & ~METADATA,
                f"{path}: an error of {len(body):,} bytes is over the {limit:,} that the client accepts",
            )
            body = pack_error(RpcError(Code.RESOURCE_EXHAUSTED, message))
        outbox.send(REPLY, flags, 0, stream, 0, body)

    async def until_sent(self, exchange: ServerExchange, stream: int) -> None:
        """A large reply counts, with its memory, until it is out or given up."""
        outbox = self._session.outbox
        try:
            if outbox.is_sending(stream):
                await outbox.sent(stream)
            else:
                await outbox.ready()
        except asyncio.CancelledError:
            if outbox.is_sending(stream):  # else it would go on to lie there, and count no more
                outbox.drop(stream)
                code = Code.DEADLINE_EXCEEDED if self._loop.time() >= exchange.deadline else Code.CANCELLED
                outbox.send(RESET, 0, 0, stream, int(code), b"the reply could not be sent in time")
            raise

    def _failure(self, exchange: ServerExchange, error: BaseException) -> bytes:
        if isinstance(error, asyncio.CancelledError) and self._loop.time() >= exchange.deadline:
            message = f"{exchange.codec.path}: the handler was cancelled at its deadline"
            return pack_error(RpcError(Code.DEADLINE_EXCEEDED, message, executed=True))
        return pack_failure(exchange.codec, error, dev=self._dev)


def is_refusal(error: BaseException) -> TypeGuard[RpcError]:
    """Whether an error says that the call may be made again."""
    return isinstance(error, RpcError) and error.executed is False


def unsendable(codec: MethodCodec, error: Exception, result: Any) -> RpcError:
    """The error of a call whose result cannot be encoded."""
    problem = codec.result.encoding_error(error, result)
    return RpcError(Code.INTERNAL, f"{codec.path}: the result cannot travel: {problem}")


def _metadata_head(metadata: Metadata) -> bytes:
    return with_metadata(pack_metadata(metadata), b"")
