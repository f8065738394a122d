"""A chain of services, each of which calls the next, and a tap on the links between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import rpcfw
from rpcfw import Client, Endpoint, Server
from rpcfw.transport import Link, MemoryTransport
from rpcfw.transport.link import ReceiverFactory
from rpcfw.transport.memory import MemoryLink
from rpcfw.wire.frames import FRAME_NAMES, HEADER, HEADER_BYTES
from tests.calls.place import Diary, Place

HOPS = 4


@rpcfw.service("tests.Hop")
class Hop(Protocol):
    """Passes everything on."""

    async def one(self, text: str) -> str: ...

    def out(self, text: str) -> AsyncIterator[str]: ...

    async def into(self, texts: AsyncIterator[str]) -> str: ...

    def both(self, texts: AsyncIterator[str]) -> AsyncIterator[str]: ...


class Passing(Hop):
    """One hop: the next one's stub, or none at the leaf, which waits for its gate.

    Attributes:
        remaining_s: what was left of the time of each call when it came here.
    """

    def __init__(self, following: Hop | None, diary: Diary, gate: asyncio.Event) -> None:
        self.following = following
        self.diary = diary
        self.gate = gate
        self.remaining_s: list[float] = []

    async def _arrive(self) -> None:
        self.remaining_s.append(rpcfw.current_call().remaining_s(asyncio.get_running_loop()))
        self.diary.note("arrived")
        if self.following is None:
            self.diary.note("leaf")
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.diary.note("leaf cancelled")
                raise

    async def one(self, text: str) -> str:
        try:
            await self._arrive()
            return text if self.following is None else await self.following.one(text + "+")
        finally:
            self.diary.note("ended")

    async def out(self, text: str) -> AsyncIterator[str]:
        try:
            if self.following is None:
                yield text
                await self._arrive()
                yield text
            else:
                self.remaining_s.append(rpcfw.current_call().remaining_s(asyncio.get_running_loop()))
                async for item in self.following.out(text + "+"):
                    yield item
        finally:
            self.diary.note("ended")

    async def into(self, texts: AsyncIterator[str]) -> str:
        try:
            if self.following is not None:
                return await self.following.into(texts)
            first = await anext(texts)
            await self._arrive()
            return first + "".join([text async for text in texts])
        finally:
            self.diary.note("ended")

    async def both(self, texts: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            if self.following is not None:
                async for item in self.following.both(texts):
                    yield item
            else:
                async for text in texts:
                    yield text
                    await self._arrive()
        finally:
            self.diary.note("ended")


class Chain:
    """`HOPS` servers in a row, and the client at their head."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.diary = Diary()
        self.gate = asyncio.Event()
        self.hops: list[Passing] = []
        self.servers: list[Server] = []
        self.clients: list[Client] = []

    async def build(self) -> Hop:
        """Serve all, the leaf first; the stub of the first."""
        following: Hop | None = None
        for _ in range(HOPS):
            hop = Passing(following, self.diary, self.gate)
            self.hops.insert(0, hop)
            self.servers.insert(0, await self.place.serve(hop))
            client = self.place.connect(self.servers[0], timeout_s=None)
            self.clients.insert(0, client)
            following = client.stub(Hop)
        assert following is not None
        return following

    @property
    def running(self) -> int:
        """Handlers running on all hops."""
        return sum(server.running for server in self.servers)


class TappedTransport(MemoryTransport):
    """Writes down all frames after HELLO as they are written: the endpoint's name with the way, the frame's name."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[str, str]] = []

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        link = await super().connect(endpoint, receiver)
        assert isinstance(link, MemoryLink)
        for end, way in ((link, ">"), (link._peer, "<")):
            self._tap(end, f"{endpoint.host}{way}")
        return link

    def _tap(self, link: MemoryLink, name: str) -> None:
        write = link.write

        def tapped(data: bytes | bytearray | memoryview) -> None:
            rest = bytes(data)
            while len(rest) >= HEADER_BYTES:
                length, kind, *_ = HEADER.unpack_from(rest)
                self.frames.append((name, FRAME_NAMES[kind]))
                rest = rest[HEADER_BYTES + length :]
            write(data)

        link.write = tapped  # type: ignore[method-assign]
