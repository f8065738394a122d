"""Where the servers and clients of a test meet: one transport, addresses on it, and the end of all of them.

At the end it counts: a test that leaves a handler, a call or memory behind fails, whatever else it was about.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rpcfw
from rpcfw import Client, Endpoint, Limits, Server, TlsConfig
from rpcfw.connection.channel import Channel
from rpcfw.connection.client import ClientConnection
from rpcfw.transport import MemoryTransport, TcpTransport, TlsTransport, Transport, UnixTransport

SCHEMES = ("tcp", "unix", "tls", "mem")
QUIET = Limits(block_threshold_s=None)
"""The standard limits without the watchdog's thread."""
SETTLE_S = 5.0


class Place:
    """Servers and clients over one transport."""

    def __init__(self, scheme: str, folder: Path | None = None, tls: TlsConfig | None = None) -> None:
        self.scheme = scheme
        self.servers: list[Server] = []
        self.clients: list[Client] = []
        self.memory = MemoryTransport()
        self.transports: dict[str, Transport] = {
            "tcp": TcpTransport(),
            "unix": UnixTransport(),
            "tls": TlsTransport(tls),
            "mem": self.memory,
        }
        self._folder = folder
        self._numbers = itertools.count()

    def address(self) -> str:
        """One nobody listens at yet."""
        if self.scheme == "unix":
            return f"unix://{self._folder}/{next(self._numbers)}"
        return f"mem://{next(self._numbers)}" if self.scheme == "mem" else f"{self.scheme}://127.0.0.1:0"

    async def serve(
        self, *implementations: Any, listen: str | Endpoint | None = None, **options: Any
    ) -> Server:
        """A server that listens; `options` as for `rpcfw.serve`."""
        options.setdefault("limits", QUIET)
        server = rpcfw.serve(
            *implementations, listen=listen or self.address(), transports=self.transports, **options
        )
        await server.start()
        self.servers.append(server)
        return server

    def connect(self, *servers: Server, **options: Any) -> Client:
        """A client of servers; `options` as for `rpcfw.connect`."""
        endpoints = [server.endpoint for server in servers]
        self.clients.append(rpcfw.connect(*endpoints, transports=self.transports, **options))
        return self.clients[-1]

    async def close(self) -> None:
        """End all, and check that nothing is left of any call."""
        for client in self.clients:
            await client.close()
        for server in self.servers:
            await server.close()
        for server in self.servers:
            assert_idle(server)
        for client in self.clients:
            assert_unused(client)

    async def settle(self) -> None:
        """Wait until no call is in progress on any side."""
        await until(lambda: not any(server.running for server in self.servers))
        await until(lambda: not any(map(in_flight, self.clients)))


async def until(holds: Callable[[], object]) -> None:
    """Turn the loop until it holds: for what tells nobody that it has happened."""
    async with asyncio.timeout(SETTLE_S):
        while not holds():
            await asyncio.sleep(0)  # there is no event for it


def limits(**changes: Any) -> Limits:
    """The limits of `QUIET` with some changed."""
    return dataclasses.replace(QUIET, **changes)


def in_flight(client: Client) -> int:
    """Calls in progress of a client."""
    return sum(channel.in_flight for channel in client.channels)


def connection_of(client: Client) -> ClientConnection:
    """The one connection of a client of one server."""
    (channel,) = client.channels
    assert isinstance(channel, Channel)
    (connection,) = channel.connections
    return connection


def assert_idle(server: Server) -> None:
    """No handler, stream or buffer of any call is left on a server."""
    assert server.running == 0
    assert server._resources.budget.used == 0
    for connection in server._connections:
        assert not connection._exchanges
        assert connection.session.outbox.is_empty()


def assert_unused(client: Client) -> None:
    """No call, stream or buffer is left on a client."""
    assert client._shared.resources.budget.used == 0
    for node in client.nodes:
        assert node.in_flight == 0
    for channel in client.channels:
        assert channel.in_flight == 0
        if isinstance(channel, Channel):
            for connection in (*channel._ready, *channel._draining):
                assert not connection._pending
                assert connection._streams.is_empty()
                assert connection.session.outbox.is_empty()


class Diary:
    """What handlers did, and a way to wait until they have done it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._news = asyncio.Event()

    def note(self, what: str) -> None:
        """It happened once more."""
        self.counts[what] += 1
        self._news.set()

    async def until(self, what: str, count: int = 1) -> None:
        """Wait until it has happened so often."""
        while self.counts[what] < count:
            self._news.clear()
            await self._news.wait()
