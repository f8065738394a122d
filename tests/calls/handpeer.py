"""An end of a link that speaks frames by hand, reads no faster than it is told to, and knows the rules of the wire.

It stands at the far end of a real client or server, over ``mem://``, where no buffer of the system's lies between the
two. What it is sent against the rules of docs/wire.md it writes down. For what a server makes of wrong bytes there is
`rawpeer`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgpack

import rpcfw
from rpcfw import ConnectionOptions, Endpoint, Settings, spec_of
from rpcfw.transport import Link
from rpcfw.wire.frames import (
    CHUNK,
    CREDIT,
    END,
    FRAME_NAMES,
    HEADER,
    HEADER_BYTES,
    HELLO,
    ITEMS,
    PING,
    PONG,
    REPLY,
    REQUEST,
    RESET,
    frame,
)
from rpcfw.wire.handshake import Hello, MethodEntry
from rpcfw.wire.window import cost_of
from tests.calls.contract import Contract
from tests.calls.place import Place


class Message(NamedTuple):
    """A message, or another frame, with its parts joined."""

    kind: int
    flags: int
    method: int
    stream: int
    extra: int
    body: bytes

    def is_end(self, kind: int, stream: int | None = None) -> bool:
        """Whether it is the last of that kind, in that stream or in any."""
        return self.kind == kind and bool(self.flags & END) and stream in (None, self.stream)


class Peer(asyncio.BufferedProtocol):
    """The other end of a link. It reads one frame at a time, and answers nothing but `nothing` and pings.

    Attributes:
        link: the link, once there is one.
        came: the frames that have come, with the parts of messages, as type and stream.
        messages: what has come whole.
        breaches: what came against the rules, as a sentence each.
        credit: what each stream has left.
        methods: the number of each method, as this side or the other has said.
        lost: set when the link is gone.
    """

    def __init__(self, hello: Hello) -> None:
        self.link: Link
        self.came: list[tuple[int, int]] = []
        self.messages: list[Message] = []
        self.breaches: list[str] = []
        self.lost = asyncio.Event()
        self.methods: dict[str, int] = {}
        self._hello = hello
        self._learn(hello)
        self.credit: defaultdict[int, int] = defaultdict(lambda: hello.settings.window_bytes)
        self._parts: dict[int, tuple[int, bytearray]] = {}
        self._over: set[int] = set()
        self._room: int | None = None
        self._buffer = bytearray(HEADER_BYTES)
        self._header: tuple[int, int, int, int, int, int] | None = None
        self._filled = 0
        self._news = asyncio.Event()

    # what a test does

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.link.write(data)

    def call(self, name: str, arguments: dict[str, Any], stream: int, *, flags: int = END) -> None:
        """Send a request."""
        self.say(frame(REQUEST, flags, self.methods[name], stream, 0, msgpack.packb(arguments)))

    def grant(self, stream: int, credit: int) -> None:
        """Give credit, as it is counted here."""
        self.credit[stream] += credit
        self.say(frame(CREDIT, 0, 0, stream, credit))

    def hold(self) -> None:
        """Read nothing more."""
        self._room = None
        self.link.pause_reading()

    def read_on(self, frames: int | None = None) -> None:
        """Read on, to the end or so many frames and no more."""
        self._room = frames
        self.link.resume_reading()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for frames until it holds. Raises EOFError when the link is gone before; a breach ends it as well."""
        while not holds():
            assert self.breaches == []
            if self.lost.is_set():
                raise EOFError("the link is gone")
            self._news.clear()
            await self._news.wait()

    async def message(self, wanted: Callable[[Message], object]) -> Message:
        """The first message of that sort, now or when it has come."""
        await self.until(lambda: any(map(wanted, self.messages)))
        return next(filter(wanted, self.messages))

    def items(self, stream: int) -> list[Any]:
        """All items that have come in a stream, which has kept the rules."""
        assert self.breaches == []
        batches = [m.body for m in self.messages if m.kind == ITEMS and m.stream == stream and m.body]
        return [item for batch in batches for item in msgpack.unpackb(batch)]

    # what a link tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = cast(Link, transport)
        self.say(self._hello.pack())

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._buffer):
            return
        if self._header is None:
            self._header = HEADER.unpack(self._buffer)
            self._buffer, self._filled = bytearray(self._header[0]), 0
            if self._buffer:
                return
        (_, kind, flags, method, stream, extra), body = self._header, bytes(self._buffer)
        self._header, self._buffer, self._filled = None, bytearray(HEADER_BYTES), 0
        if self._room is not None:
            self._room -= 1
            if self._room <= 0:
                self.hold()
        self._take(Message(kind, flags, method, stream, extra, body))
        self._news.set()

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._news.set()

    # the rules

    def _take(self, part: Message) -> None:
        kind, stream = part.kind, part.stream
        self.came.append((kind, stream))
        if kind == RESET:
            self._parts.pop(stream, None)
            self._over.add(stream)
        elif kind in (CHUNK, REQUEST, REPLY, ITEMS):
            if stream in self._over:
                self._breach(part, "after the last")
            joined = self._join(part)
            if joined is None:
                return
            part = joined
            if part.flags & END:
                self._over.add(stream)
        self.messages.append(part)
        if kind == PING:
            self.say(frame(PONG, 0, 0, 0, part.extra))
        elif kind == HELLO:
            self._learn(Hello.unpack(part.body))
        elif kind == REQUEST and part.method == self.methods["nothing"]:
            self.say(frame(REPLY, END, 0, stream, 0, b"\xc0"))

    def _learn(self, hello: Hello) -> None:
        for _, methods in hello.services.values():
            self.methods |= {name: entry.id for name, entry in methods.items()}

    def _join(self, part: Message) -> Message | None:
        """The message that this part completes, if it does."""
        total, body = self._parts.get(part.stream, (None, bytearray()))
        if total is None and part.kind in (CHUNK, ITEMS) and (part.body or part.extra):
            self._begin(part)
        body += part.body
        if part.kind == CHUNK:
            if total not in (None, part.extra) or len(body) >= part.extra:
                self._breach(part, f"of a message of {part.extra} amid one of {total}")
            self._parts[part.stream] = part.extra, body
            return None
        if total not in (None, len(body)):
            self._breach(part, f"brings {len(body)} where a message of {total} was on its way")
        self._parts.pop(part.stream, None)
        if part.kind == ITEMS:
            self.credit[part.stream] -= cost_of(len(body), part.extra)
        return part._replace(body=bytes(body))

    def _begin(self, part: Message) -> None:
        """A message begins; it may be of items, where the request of that stream has come."""
        if part.kind == CHUNK and len(self._parts) >= self._hello.settings.max_assemblies:
            self._breach(part, f"beside {len(self._parts)} others")
        if self.credit[part.stream] <= 0:
            self._breach(part, f"with a credit of {self.credit[part.stream]}")

    def _breach(self, part: Message, what: str) -> None:
        name = FRAME_NAMES[part.kind]
        self.breaches.append(f"stream {part.stream}: {name} of {len(part.body):,} bytes {what}")


class Hands:
    """Servers and clients that are peers, each with a real one at the other end, over ``mem://``.

    Attributes:
        place: where the real ones are.
        peers: in the order of their links.
    """

    def __init__(self) -> None:
        self.place = Place("mem")
        self.peers: list[Peer] = []
        self._complaints: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self._complaints.append(context))

    async def serve(
        self, *, timeout_s: float | None = None, options: ConnectionOptions | None = None, **settings: int
    ) -> tuple[Peer, Contract]:
        """A server that is a peer, and the stub of its client, connected."""
        spec = spec_of(Contract)
        methods = {
            name: MethodEntry(number, method.fingerprint)
            for number, (name, method) in enumerate(spec.methods.items(), 1)
        }
        hello = Hello(Settings(**settings), {spec.name: (spec.version, methods)})
        address = Endpoint.parse(self.place.address())
        await self.place.memory.listen(address, lambda: self._peer(hello))
        client = rpcfw.connect(
            address,
            timeout_s=timeout_s,
            middleware=[],
            options=options or ConnectionOptions(keepalive_s=None, idle_s=None),
            transports=self.place.transports,
        )
        self.place.clients.append(client)
        stub = client.stub(Contract)
        await stub.nothing()
        return self.peers[-1], stub

    async def connect(self, server: rpcfw.Server, **settings: int) -> Peer:
        """A client that is a peer."""
        peer = self._peer(Hello(Settings(**settings)))
        await self.place.memory.connect(server.endpoint, lambda: peer)
        await peer.message(lambda m: m.kind == HELLO)
        return peer

    async def close(self) -> None:
        """End all; the peers first, so that nobody waits for one that does not read."""
        for peer in self.peers:
            peer.link.abort()
        await self.place.close()
        assert self._complaints == []
        for peer in self.peers:
            assert peer.breaches == []

    def _peer(self, hello: Hello) -> Peer:
        self.peers.append(Peer(hello))
        return self.peers[-1]
