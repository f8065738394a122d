"""A server in a process of its own, on uvloop: ``python -m tests.calls.server_process URL``.

It prints its endpoint once it listens. SIGTERM makes it drain, and lets those of its calls end that wait for that; at
the end it prints how many calls it has served.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Protocol

import uvloop

import rpcfw
from tests.calls.place import QUIET

GRACE_S = 20.0


@rpcfw.service("tests.Parting")
class Parting(Protocol):
    """Calls that are in flight when the server is told to go."""

    async def ready(self, calls: int) -> int: ...

    async def wait(self, number: int) -> int: ...

    def stream(self, number: int) -> AsyncIterator[int]: ...

    async def total(self, numbers: AsyncIterator[int]) -> int: ...

    @rpcfw.method(oneway=True)
    async def tell(self, number: int) -> None: ...


class Server(Parting):
    """Holds its calls until it drains."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.waiting = 0
        self.told = 0
        self._news = asyncio.Event()

    async def _wait(self) -> None:
        self.waiting += 1
        self._news.set()
        await self.draining.wait()

    async def ready(self, calls: int) -> int:
        """Wait until so many calls wait."""
        while self.waiting < calls:
            self._news.clear()
            await self._news.wait()
        return self.waiting

    async def wait(self, number: int) -> int:
        await self._wait()
        return number

    async def stream(self, number: int) -> AsyncIterator[int]:
        yield number
        await self._wait()
        for _ in range(100):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        total = await anext(numbers)
        await self._wait()
        return total + sum([number async for number in numbers])

    async def tell(self, number: int) -> None:
        await self._wait()
        self.told += 1


async def main(url: str) -> None:
    implementation = Server()
    server = rpcfw.serve(implementation, listen=url, limits=QUIET, grace_s=GRACE_S)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with server:
        print(server.endpoint, flush=True)
        await stopping.wait()
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        implementation.draining.set()
        await draining
    print(f"told {implementation.told}, running {server.running}", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
