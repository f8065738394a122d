"""A client that writes whatever frames it likes, well formed or not, and reads what the server says to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack

from rpcfw import Code, RpcError, Server, Settings, spec_of
from rpcfw.wire.frames import (
    CHUNK,
    END,
    ERROR,
    GOAWAY,
    HEADER,
    METADATA,
    REPLY,
    REQUEST,
    Frame,
    frame,
    split_metadata,
    unpack_error,
    with_metadata,
)
from rpcfw.wire.handshake import Hello
from rpcfw.wire.reader import SCRATCH_BYTES, Budget, FrameReader
from tests.calls.contract import Contract

SERVICE = spec_of(Contract).name
PATIENCE_S = 10.0


class RawPeer:
    """A connection that has shaken hands.

    Attributes:
        frames: what the server has sent since, and nobody has taken.
        last_stream: the stream of the latest request.
        ended: the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = FrameReader(
            memoryview(bytearray(SCRATCH_BYTES)),
            max_frame_bytes=1 << 20,
            max_message_bytes=1 << 30,
            max_assemblies=1 << 20,
            budget=Budget(1 << 30),
        )
        self.frames: list[Frame] = []
        self.ended = False
        self.last_stream = 0
        self._methods: dict[str, int] = {}

    @classmethod
    async def connect(cls, server: Server, settings: Settings | None = None) -> RawPeer:
        """Connect and shake hands."""
        peer = cls(*await asyncio.open_connection(server.endpoint.host, server.endpoint.port))
        peer.write(Hello(settings or Settings()).pack())
        hello = await peer.until(lambda f: f[0] == 0)
        methods = Hello.unpack(hello[5]).services[SERVICE][1]
        peer._methods = {name: entry.id for name, entry in methods.items()}
        return peer

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)

    async def write_all(self, data: bytes) -> None:
        """Write and wait while the server does not read; until it closes the connection."""
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError:
            self.ended = True

    def method(self, name: str) -> int:
        """The number of a method of the contract."""
        return self._methods[name]

    def request(
        self, name: str, arguments: dict[str, Any] | bytes, *, flags: int = END, metadata: bytes = b""
    ) -> bytes:
        """A request of that method, on the next stream, which is then `last_stream`."""
        body = arguments if isinstance(arguments, bytes) else bytes(msgpack.packb(arguments))
        if metadata:
            flags, body = flags | METADATA, with_metadata(metadata, body)
        self.last_stream += 1
        return frame(REQUEST, flags, self.method(name), self.last_stream, 0, body)

    def chunks(self, name: str, body: bytes, chunk_bytes: int = 200_000) -> bytes:
        """A request in chunks, whole, on the next stream."""
        self.last_stream += 1
        stream = self.last_stream
        parts = [body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes)]
        sent = [frame(CHUNK, 0, 0, stream, len(body), part) for part in parts[:-1]]
        return b"".join([*sent, frame(REQUEST, END, self.method(name), stream, 0, parts[-1])])

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """Take the first frame of that sort. Raises EOFError when the connection ends before one comes."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for number, found in enumerate(self.frames):
                    if wanted(found):
                        del self.frames[number]
                        return found
                if not await self._read():
                    raise EOFError("the connection ended")

    async def reply(self, stream: int) -> Any:
        """The result of a call. Raises its RpcError."""
        _, flags, _, _, _, body = await self.until(lambda f: f[0] == REPLY and f[3] == stream)
        if flags & METADATA:
            _, body = split_metadata(body, 1 << 20)
        if flags & ERROR:
            raise unpack_error(body)
        return msgpack.unpackb(body)

    async def refusal(self, stream: int) -> RpcError:
        """The error of a call."""
        try:
            result = await self.reply(stream)
        except RpcError as error:
            return error
        raise AssertionError(f"stream {stream} has the result {result!r}")

    async def farewell(self) -> tuple[Code, str]:
        """Why the server sends this peer away; the connection is at its end then."""
        _, _, _, _, code, body = await self.until(lambda f: f[0] == GOAWAY)
        async with asyncio.timeout(PATIENCE_S):
            while await self._read():
                pass
        return Code(code), bytes(body).decode()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()

    async def _read(self) -> bool:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        self.ended = self.ended or not data
        self.frames += self._decoder.feed(data)
        return bool(data)


def header(
    length: int, kind: int, *, flags: int = 0, method: int = 0, stream: int = 0, extra: int = 0
) -> bytes:
    """A header that may lie about its body."""
    return HEADER.pack(length, kind, flags, method, stream, extra)
