"""The trouble that the demo makes for a server: calls that fail, or that take long, until it is told otherwise.

Middleware and three words. A real server needs none of this; what clients make of it is what the demo shows.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import rpcfw

SLOW_S = 0.25


class Word(enum.Enum):
    """What a server may be told to be."""

    WELL = "well"
    FAILING = "failing"
    """Each call fails with UNAVAILABLE, as that of a server does which has lost its disk."""
    SLOW = "slow"
    """Each call waits for `SLOW_S` before it begins."""


class Trouble:
    """Middleware of one server.

    Attributes:
        word: how the server is.
    """

    def __init__(self) -> None:
        self.word = Word.WELL

    async def heed(self, lines: asyncio.StreamReader) -> None:
        """Take a `Word` from each line, until there are no more."""
        async for line in lines:
            self.word = Word(line.decode().strip())

    def __call__(self, handler: rpcfw.Handler) -> rpcfw.Handler:
        async def troubled(call: rpcfw.Call) -> Any:
            if self.word is Word.FAILING:
                raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "this server was told to fail its calls")
            if self.word is Word.SLOW:
                await asyncio.sleep(SLOW_S)
            return await handler(call)

        return troubled
