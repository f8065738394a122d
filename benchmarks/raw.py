"""The yardstick: an echo over bare uvloop with fixed message sizes and one write for each call and each reply."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

REQUEST_BYTES = 27
REPLY_BYTES = 248


class RawServer(asyncio.Protocol):
    """Answers each request of `REQUEST_BYTES` with `REPLY_BYTES`, one write each."""

    def __init__(self) -> None:
        self._pending = 0
        self._reply = bytes(REPLY_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        while self._pending >= REQUEST_BYTES:
            self._pending -= REQUEST_BYTES
            self._transport.write(self._reply)


class AwaitedClient(asyncio.Protocol):
    """Makes calls that are awaited, a future each: what any client with an asyncio face cannot do without."""

    def __init__(self) -> None:
        self._pending = 0
        self._request = bytes(REQUEST_BYTES)
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
        while self._pending >= REPLY_BYTES:
            self._pending -= REPLY_BYTES
            self._waiting.popleft().set_result(None)


class RawClient(asyncio.Protocol):
    """Keeps a number of requests in flight and calls back at each reply."""

    def __init__(self, on_reply: Callable[[], bool]) -> None:
        self._pending = 0
        self._request = bytes(REQUEST_BYTES)
        self._on_reply = on_reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's

    def send(self) -> None:
        """One request."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        while self._pending >= REPLY_BYTES:
            self._pending -= REPLY_BYTES
            if self._on_reply():
                self._transport.write(self._request)
