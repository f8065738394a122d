"""A connection that makes one call by itself and holds nothing more than that, so that thousands fit into a client."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

from rpcfw.wire.frames import END, HEADER, HEADER_BYTES, HELLO, REPLY, REQUEST, frame
from rpcfw.wire.handshake import Hello, Settings


class FirstCall(asyncio.Protocol):
    """Greets, finds the method in the server's greeting, calls it once; `answered` is done with the reply's body."""

    def __init__(self, service: str, method: str, **arguments: Any) -> None:
        self._service, self._method, self._arguments = service, method, arguments
        self._received = b""
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's
        self._transport.write(Hello(Settings()).pack())

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= HEADER_BYTES:
            length, kind, *_ = HEADER.unpack_from(self._received)
            end = HEADER_BYTES + length
            if len(self._received) < end:
                return
            body, self._received = self._received[HEADER_BYTES:end], self._received[end:]
            if kind == HELLO:
                number = Hello.unpack(body).services[self._service][1][self._method].id
                self._transport.write(frame(REQUEST, END, number, 1, 0, msgpack.packb(self._arguments)))
            elif kind == REPLY and not self.answered.done():
                self.answered.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("the server closed the connection"))
