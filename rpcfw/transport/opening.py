"""Opening one link through the loop: bounded in time, its failures translated, and nothing left when it is given up.

What the sockets of every scheme share on the connecting side; each scheme brings its own call of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from rpcfw.endpoint import Endpoint
from rpcfw.transport.failure import connecting
from rpcfw.transport.link import Link, ReceiverFactory

Dial = Callable[[Callable[[], asyncio.BufferedProtocol]], Awaitable[tuple[asyncio.Transport, object]]]
"""A call of the loop, such as `create_connection`, that wants a protocol factory."""


async def open_link(endpoint: Endpoint, timeout_s: float, receiver: ReceiverFactory, dial: Dial) -> Link:
    """Open a link within `timeout_s` seconds. Raises RpcError; cancelled, it closes what it has begun."""
    door = _Door(receiver())
    try:
        async with connecting(endpoint, timeout_s):
            link, _ = await dial(lambda: door)
        return link
    except BaseException:
        door.shut()
        raise


class _Door(asyncio.BufferedProtocol):
    """Stands before the receiver until the link is made, to know whether it was."""

    def __init__(self, receiver: asyncio.BufferedProtocol) -> None:
        self._receiver = receiver
        self._link: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = cast(asyncio.Transport, transport)  # uvloop's are not asyncio.Transport
        self._link.set_protocol(self._receiver)
        self._receiver.connection_made(transport)

    def shut(self) -> None:
        """Tell the receiver that its link is gone, where the loop does not."""
        # uvloop, cancelled between connection_made and the end of create_connection, frees the handle and
        # calls nobody; the transport does not even say that it is closing, as asyncio's does.
        if self._link is not None and not self._link.is_closing():
            self._link.abort()
            self._receiver.connection_lost(None)
