"""`make faults-registries`: registries are killed and started again, with their data and without, under load.

    python -m tests.faults.registries [--rounds 3] [--rate 1000]

Real servers of etcd, Redis and rpcfw's own registry, each with three office processes and a client that finds them
there. While the registry is away an office is restarted, too, and is listed when the registry is back. No call may
fail.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

from tests.faults.cluster import judge, offices, show, under_load
from tests.faults.processes import Server, running
from tests.registry.servers import Etcd, RealServer, Redis, free_port, owned

AWAY_S = 3.0
"""How long a registry is away."""


class Killable:
    """A registry that can be killed and started again.

    Args:
        url: for clients and servers.
        kill: ends it as a crash does.
        start: starts it again, with what it kept.
        forget: throws away what it kept.
    """

    def __init__(
        self,
        url: str,
        kill: Callable[[], Awaitable[None]],
        start: Callable[[], Awaitable[None]],
        forget: Callable[[], None],
    ) -> None:
        self.url, self.kill, self.start, self.forget = url, kill, start, forget


@contextlib.asynccontextmanager
async def of_server(server: RealServer, scheme: str) -> AsyncIterator[Killable]:
    """etcd or Redis."""
    with owned(server):
        await server.start()

        async def kill() -> None:
            server.kill()

        yield Killable(f"{scheme}://127.0.0.1:{server.port}?lease_s=3", kill, server.start, server.forget)


@contextlib.asynccontextmanager
async def of_rpcfw() -> AsyncIterator[Killable]:
    """rpcfw's own, which keeps nothing."""
    port = free_port()
    command = ["-m", "rpcfw", "registry", "--listen", f"tcp://127.0.0.1:{port}", "--lease", "3"]
    server = Server(command, ready="serving")
    async with running([server]):
        yield Killable(f"rpcfw://127.0.0.1:{port}", server.kill, server.start, lambda: None)


async def play(name: str, registry: Killable, rounds: int, rate: int, folder: Path) -> int:
    """Kill it, restart an office, start it again; every other time without its data. How many calls failed."""
    servers = offices(3, registry.url, folder)

    async def course(tell: Callable[[str], None]) -> None:
        for number in range(1, rounds + 1):
            await registry.kill()
            if number % 2 == 0:
                registry.forget()
            office = servers[number % len(servers)]
            assert await office.leave() == 0
            starting = asyncio.create_task(office.start())  # it is ready when it is registered
            await asyncio.sleep(AWAY_S)
            assert not starting.done(), "an office says that it is registered in a registry that is away"
            await registry.start()
            await starting
            await asyncio.sleep(AWAY_S)
            tell(f"{name}: killed and started {number} of {rounds} times")

    outcome = await under_load(registry.url, servers, rate, orders=True, course=course)
    twice = judge(name, outcome, folder / "ledger")
    return outcome.failed + outcome.unknown + twice


async def main() -> int:
    """All of them; 0 when no call failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.registries")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each is killed (default: %(default)s)"
    )
    parser.add_argument("--rate", type=int, default=1000, help="calls a second (default: %(default)s)")
    options = parser.parse_args()
    failed = 0
    registries: dict[str, contextlib.AbstractAsyncContextManager[Killable]] = {
        "etcd": of_server(Etcd(), "etcd"),
        "redis": of_server(Redis(), "redis"),
        "rpcfw": of_rpcfw(),
    }
    with tempfile.TemporaryDirectory(prefix="rpcfw-faults-") as name:
        for kind, opened in registries.items():
            async with opened as registry:
                failed += await play(kind, registry, options.rounds, options.rate, Path(name))
    show(f"registries {len(registries)}, failed calls {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
