"""The streams of a server's calls: opened with the request, then fed with the client's items and credit.

An end by itself is in `streams`; it belongs to its call's `ServerExchange` and ends with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from rpcfw.connection.exchange import ServerExchange
from rpcfw.connection.session import Session
from rpcfw.connection.streams import ItemReceiver, ItemSender
from rpcfw.wire.frames import CREDIT, END, UNKEPT


class ServerStreams:
    """Opens the streams of a server's connection, and takes the frames that are for them.

    Args:
        session: carries the frames.
        exchanges: the calls in progress by stream, kept by the connection.
    """

    def __init__(self, session: Session, exchanges: Mapping[int, ServerExchange]) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._exchanges = exchanges

    def open(
        self, exchange: ServerExchange, stream: int, flags: int, arguments: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Open what streams a call has; returns its arguments, with the client's stream among them.

        Args:
            exchange: the call, which gets the ends.
            stream: its number.
            flags: of its REQUEST.
            arguments: as decoded from it.
        """
        codec, outbox = exchange.codec, self._session.outbox
        if codec.items_out is not None:
            exchange.sender = ItemSender(self._loop, outbox, codec.items_out, stream)
        if codec.items_in is None:
            return arguments
        exchange.receiver = receiver = ItemReceiver(
            codec.items_in,
            codec.path,
            self._session.settings.window_bytes,
            self._session.budget,
            lambda credit: outbox.send(CREDIT, 0, 0, stream, credit),
            lambda _: None,
        )
        if flags & END:
            receiver.end()
        return codec.with_stream(arguments, receiver.items())

    def take_items(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        """Take an ITEMS frame."""
        exchange = self._exchanges.get(stream)
        if exchange is None or exchange.receiver is None:
            return  # the handler has ended or did not ask for a stream
        receiver = exchange.receiver
        if extra or len(body):
            problem = receiver.take(body, extra, kept=not flags & UNKEPT)
            if problem is not None:
                receiver.end(problem)
        if flags & END:
            receiver.end()

    def take_credit(self, flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
        """Take a CREDIT frame."""
        exchange = self._exchanges.get(stream)
        if exchange is not None and exchange.sender is not None:
            exchange.sender.grant(extra)
