"""Connections opened by the thousand, used once and left idle, to see what the server's memory grows by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from benchmarks.subject import SERVER_PID, Sample, resident_bytes

_WARM_UP = 50
"""Connections that are opened and closed first, for what a server makes once."""
_AT_A_TIME = 100
_SETTLE_S = 0.3
_DIAL_S = 30.0


class Caller(Protocol):
    """An `asyncio.Protocol` that makes one call by itself."""

    answered: asyncio.Future[None]
    """Done when the reply has come; holds the error where there is none."""


async def open_idle(port: int, connections: int, caller: Callable[[], asyncio.Protocol]) -> Sample:
    """Open so many, each with a `Caller`, and look at the server's memory. Raises TimeoutError for one that hangs."""
    loop, pid = asyncio.get_running_loop(), int(os.environ[SERVER_PID])
    started = loop.time()
    for transport in await _open(port, _WARM_UP, caller):
        transport.close()
    await asyncio.sleep(_SETTLE_S)
    before = resident_bytes(pid)
    transports = await _open(port, connections, caller)
    elapsed = loop.time() - started
    await asyncio.sleep(_SETTLE_S)
    grown = resident_bytes(pid) - before
    for transport in transports:
        transport.abort()
    return Sample(connections, elapsed, server_bytes=grown)


async def _open(port: int, count: int, caller: Callable[[], asyncio.Protocol]) -> list[asyncio.Transport]:
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(_AT_A_TIME)

    async def one() -> asyncio.Transport:
        async with slots, asyncio.timeout(_DIAL_S):
            transport, protocol = await loop.create_connection(caller, "127.0.0.1", port)
            await protocol.answered  # type: ignore[attr-defined]  # it is a Caller
            return transport

    return list(await asyncio.gather(*(one() for _ in range(count))))
