"""An HTTP client, aiohttp's, of peers that are web servers; bodies are JSON, streams a line of JSON per item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson

from benchmarks.peers.contents import KEPT, tick_fields
from benchmarks.peers.links import HOST, Link

IDLE_S = 3600
"""Seconds after which an idle connection is closed; longer than any benchmark."""
JOINED_BYTES = 1 << 14
"""Lines that are at hand are sent together, up to this size."""


class HttpLink(Link):
    """A session. A connection takes one call at a time, so it opens as many as calls are in flight."""

    def __init__(
        self,
        port: int,
        order_type: type,
        decode_order: Callable[[bytes], Any],
        decode_tick: Callable[[bytes], Any],
    ) -> None:
        self.order_type = order_type
        self._decode_order, self._decode_tick = decode_order, decode_tick
        self._root = f"http://{HOST}:{port}"  # URLs stay text: those that were parsed lately are remembered
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            raise_for_status=True,
        )
        self._ticks = [tick_fields(number) for number in range(KEPT)]

    async def get_order(self, number: int) -> object:
        return self._decode_order(await self._get("orders", number))

    async def echo(self, body: bytes) -> bytes:
        async with self._session.post(f"{self._root}/echo", data=body) as reply:
            return await reply.read()

    async def download(self, size: int) -> bytes:
        return await self._get("blobs", size)

    async def upload(self, body: bytes) -> int:
        async with self._session.post(f"{self._root}/blobs", data=body) as reply:
            return int(await reply.read())

    async def list_ticks(self, count: int) -> AsyncIterator[object]:
        async for line in self._lines("ticks", count):
            yield self._decode_tick(line)

    async def send_ticks(self, count: int) -> int:
        async def lines() -> AsyncIterator[bytes]:
            joined = bytearray()
            for number in range(count):
                joined += orjson.dumps(self._ticks[number % KEPT], option=orjson.OPT_APPEND_NEWLINE)
                if len(joined) >= JOINED_BYTES:
                    yield bytes(joined)
                    joined.clear()
            yield bytes(joined)

        async with self._session.post(f"{self._root}/ticks", data=lines()) as reply:
            return int(await reply.read())

    async def list_orders(self, count: int) -> AsyncIterator[object]:
        async for line in self._lines("all-orders", count):
            yield self._decode_order(line)

    async def close(self) -> None:
        await self._session.close()

    async def _get(self, kind: str, number: int) -> bytes:
        async with self._session.get(f"{self._root}/{kind}/{number}") as reply:
            return await reply.read()

    async def _lines(self, kind: str, count: int) -> AsyncIterator[bytes]:
        async with self._session.get(f"{self._root}/{kind}/{count}") as reply:
            async for line in reply.content:
                yield line
