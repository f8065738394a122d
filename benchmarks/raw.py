"""Bare messages of fixed sizes over asyncio transports: what is left of a call when all that a framework does is gone.

Servers and clients that write once for each message, and such that join what one turn of the loop has queued.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable

REQUEST_BYTES = 27
REPLY_BYTES = 248
FLUSH_AFTER = 32
"""Messages after which a joined write goes out in the middle of a turn, so that the other side has work meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How long a request and its reply are, in bytes."""

    request: int
    reply: int


ORDER = Sizes(REQUEST_BYTES, REPLY_BYTES)
ECHO = Sizes(16 + 16, 16 + 16)
"""Sixteen bytes after a header of sixteen."""


class RawServer(asyncio.Protocol):
    """Answers each request with one write."""

    def __init__(self, sizes: Sizes = ORDER) -> None:
        self._request_bytes = sizes.request
        self._reply = bytes(sizes.reply)
        self._pending = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        while self._pending >= self._request_bytes:
            self._pending -= self._request_bytes
            self._transport.write(self._reply)


class BatchingServer(RawServer):
    """Joins the replies to all that one read brought, up to `FLUSH_AFTER` at a time."""

    def data_received(self, data: bytes) -> None:
        count, self._pending = divmod(self._pending + len(data), self._request_bytes)
        while count > 0:
            self._transport.write(b"".join([self._reply] * min(count, FLUSH_AFTER)))
            count -= FLUSH_AFTER


class AwaitedClient(asyncio.Protocol):
    """Makes calls that are awaited, a future each: what any client with an asyncio face cannot do without."""

    def __init__(self, sizes: Sizes = ORDER) -> None:
        self._reply_bytes = sizes.reply
        self._request = bytes(sizes.request)
        self._pending = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    async def call(self) -> None:
        """One request and its reply."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        self._transport.write(self._request)
        await future

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        while self._pending >= self._reply_bytes:
            self._pending -= self._reply_bytes
            self._waiting.popleft().set_result(None)


class BatchingClient(AwaitedClient):
    """Joins the requests of a turn of the loop, up to `FLUSH_AFTER` at a time."""

    def __init__(self, sizes: Sizes = ORDER) -> None:
        super().__init__(sizes)
        self._queued: list[bytes] = []

    async def call(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        self._queued.append(self._request)
        if len(self._queued) == 1:
            self._loop.call_soon(self._flush)
        elif len(self._queued) == FLUSH_AFTER:
            self._flush()
        await future

    def _flush(self) -> None:
        if self._queued:
            self._transport.write(b"".join(self._queued))
            self._queued.clear()


class RawClient(asyncio.Protocol):
    """Keeps a number of requests in flight and calls back at each reply, which says whether to send another."""

    def __init__(self, on_reply: Callable[[], bool], sizes: Sizes = ORDER) -> None:
        self._reply_bytes = sizes.reply
        self._request = bytes(sizes.request)
        self._pending = 0
        self._on_reply = on_reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    def send(self) -> None:
        """One request."""
        self._transport.write(self._request)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        while self._pending >= self._reply_bytes:
            self._pending -= self._reply_bytes
            if self._on_reply():
                self._transport.write(self._request)
