"""Both ends of a real connection over fake links, with everything that crosses between them kept.

The server is a whole `Server` that never listens; the client is one `ClientConnection` with a stub on top.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import rpcfw
from rpcfw.call import Handler, Middleware
from rpcfw.connection.client import ClientConnection
from rpcfw.connection.resources import Resources
from rpcfw.stub import make_stub
from rpcfw.wire.handshake import Settings
from rpcfw.wire.reader import Budget
from tests.wire.links import FakeLink, join, split, turn

S = TypeVar("S")
QUIET = rpcfw.Limits(block_threshold_s=None)
CLIENT, SERVER = "client", "server"


class Ends:
    """A client and a server that share a link.

    Attributes:
        sent: every frame that crossed, with who sent it, in the order of the writes.
    """

    def __init__(
        self, server: rpcfw.Server, settings: Settings | None = None, *, timeout_s: float | None = None
    ) -> None:
        self.server = server
        self.timeout_s = timeout_s
        self.budget = Budget(1 << 30)
        self.client = ClientConnection("fake", Resources(self.budget), settings or Settings(), lambda: None)
        self.near, self.far = join(self.client.session, server._accept())
        self._writes: list[tuple[str, bytes]] = []
        self._keep(self.near, CLIENT)
        self._keep(self.far, SERVER)
        self._writes.append((CLIENT, self.near.take()))

    @property
    def sent(self) -> list[tuple[str, bytes]]:
        frames: list[tuple[str, bytes]] = []
        for sender in (CLIENT, SERVER):
            frames += [(sender, frame) for frame in split(self.bytes_of(sender))]
        return frames

    def bytes_of(self, sender: str) -> bytes:
        """All that one side has written."""
        return b"".join(data for who, data in self._writes if who == sender)

    @property
    def writes(self) -> list[tuple[str, bytes]]:
        """Every write with who made it, in order."""
        return self._writes

    @property
    def handler(self) -> Handler:
        return self.client.call

    def attach(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def stub(self, interface: type[S]) -> S:
        return make_stub(interface, self)

    async def open(self) -> Ends:
        """Wait for the handshake."""
        await self.client.opened(5)
        return self

    async def close(self) -> None:
        """End the connection and wait until no handler of it runs."""
        self.client.session.close("the test is over")
        self.far.close()
        await turn(5)
        assert self.server.running == 0, f"{self.server.running} handlers left"
        assert self.server._resources.budget.used == 0
        assert self.budget.used == 0

    def _keep(self, link: FakeLink, sender: str) -> None:
        deliver = link._on_write
        assert deliver is not None

        def keep(data: bytes) -> None:
            self._writes.append((sender, data))
            deliver(data)

        link.on_write(keep)


def serve(
    *implementations: Any, limits: rpcfw.Limits = QUIET, middleware: Sequence[Middleware] = ()
) -> rpcfw.Server:
    """A server that listens nowhere."""
    return rpcfw.serve(*implementations, listen=(), limits=limits, middleware=middleware)
