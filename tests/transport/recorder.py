"""The two ends of a link under test: a receiver that keeps what it is told, and the place where such ends meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from rpcfw.endpoint import Endpoint
from rpcfw.transport import Link, Listener, Transport

Sizes = Callable[[], int]
"""How long the next buffer is to be, in bytes."""


class Recorder(asyncio.BufferedProtocol):
    """Keeps what arrives, and lets a test wait for it."""

    def __init__(self, sizes: Sizes = lambda: 65_536) -> None:
        self.received = bytearray()
        self.link: Link | None = None
        self.writing_paused = False
        self.pauses = self.resumes = self.ends = 0
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._sizes = sizes
        self._buffer = memoryview(bytearray())
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = cast(Link, transport)  # uvloop's transports are not asyncio.Transport
        self._news.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = memoryview(bytearray(self._sizes()))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self._buffer)
        assert not self.lost.done()
        self.received += self._buffer[:nbytes]
        self._news.set()

    def eof_received(self) -> None:
        self.ends += 1

    def pause_writing(self) -> None:
        assert not self.writing_paused
        self.writing_paused = True
        self.pauses += 1

    def resume_writing(self) -> None:
        assert self.writing_paused
        self.writing_paused = False
        self.resumes += 1
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds; it is asked again after each thing this receiver is told."""
        while not holds():
            assert not self.lost.done(), f"lost ({self.lost.result()!r}) after {len(self.received)} bytes"
            self._news.clear()
            await self._news.wait()

    async def until_received(self, count: int) -> bytes:
        await self.until(lambda: len(self.received) >= count)
        return bytes(self.received)


class Meeting:
    """One listener, and the links made to it. `close` ends all of them and waits for their ends."""

    def __init__(self, transport: Transport, listen_at: Endpoint) -> None:
        self.transport = transport
        self.listen_at = listen_at
        self.listener: Listener | None = None
        self.clients: list[Recorder] = []
        self.servers: list[Recorder] = []
        self._arrivals: asyncio.Queue[Recorder] = asyncio.Queue()

    async def listen(self, sizes: Sizes = lambda: 65_536) -> Endpoint:
        """Begin to listen; where."""
        meeting = self

        class Server(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                meeting.servers.append(self)
                meeting._arrivals.put_nowait(self)

        self.listener = await self.transport.listen(self.listen_at, lambda: Server(sizes))
        return self.listener.endpoint

    async def connect(self, endpoint: Endpoint | None = None, sizes: Sizes = lambda: 65_536) -> Recorder:
        """The client's end of a new link."""
        assert self.listener is not None
        client = Recorder(sizes)
        await self.transport.connect(endpoint or self.listener.endpoint, lambda: client)
        assert client.link is not None
        self.clients.append(client)
        return client

    async def accept(self) -> Recorder:
        """The server's end of the next link."""
        return await self._arrivals.get()

    async def pair(self, sizes: Sizes = lambda: 65_536) -> tuple[Recorder, Recorder]:
        """Both ends of a new link, the client's first."""
        if self.listener is None:
            await self.listen(sizes)
        client = await self.connect(sizes=sizes)
        return client, await self.accept()

    async def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            await self.listener.wait_closed()
        for end in (*self.clients, *self.servers):
            if not end.lost.done():
                link_of(end).abort()
                await end.lost


Meet = Callable[[Transport, str], Meeting]
"""Makes a meeting over a transport, at a URL."""


def link_of(end: Recorder) -> Link:
    """The link of an end that is connected."""
    assert end.link is not None
    return end.link
