"""A server and a client of it in one process, joined in memory: the least that a service's own test needs.

No ports, no files, no network of any kind, simulated or real; it runs on whatever loop the test runs on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import rpcfw
from rpcfw.transport import MemoryTransport

_QUIET = rpcfw.Limits(block_threshold_s=None)
"""Without the watchdog, which is a thread."""


@contextlib.asynccontextmanager
async def in_memory(
    *implementations: Any,
    middleware: Sequence[rpcfw.Middleware] = (),
    client_middleware: Sequence[rpcfw.Middleware] | None = None,
    limits: rpcfw.Limits = _QUIET,
    timeout_s: float | None = 10.0,
) -> AsyncIterator[rpcfw.Client]:
    """Serve implementations and give a client of them, while it is entered.

        async with in_memory(Shop()) as client:
            assert await client.stub(Orders).get(7) == Order(7)

    Args:
        implementations: as for `rpcfw.serve`; tracebacks of unexpected errors are sent to the client.
        middleware: the server's.
        client_middleware: the client's; `Retry()` unless given.
        limits: the server's; without its watchdog unless given.
        timeout_s: of unary calls where neither the interface nor the call says otherwise.
    """
    transports = {"mem": MemoryTransport()}
    server = rpcfw.serve(
        *implementations,
        listen="mem://test",
        middleware=middleware,
        limits=limits,
        dev=True,
        transports=transports,
    )
    async with server:
        client = rpcfw.connect(
            server.endpoint, timeout_s=timeout_s, middleware=client_middleware, transports=transports
        )
        async with client:
            yield client
