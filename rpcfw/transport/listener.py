"""The listener of every socket transport: the loop's servers behind one endpoint.

No accepting happens here, the loop does that; this only knows what to close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rpcfw.endpoint import Endpoint


class SocketListener:
    """Servers of the loop that share one endpoint (one per address of a name)."""

    def __init__(
        self,
        endpoint: Endpoint,
        servers: Sequence[asyncio.Server],
        before_close: Callable[[], None] | None = None,
    ) -> None:
        """Args: before_close: called once, before the sockets close; for the file of a Unix socket."""
        self.endpoint = endpoint
        self._servers = servers
        self._before_close = before_close
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Accept no more; links that exist stay."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._before_close is not None:
            self._before_close()
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until `close` was called and the address is free."""
        # Not Server.wait_closed(): from Python 3.12 on that waits for every link as well.
        await self._closed.wait()
        await asyncio.sleep(0)  # uvloop frees the descriptor in its next turn
