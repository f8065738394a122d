"""Places for the contract of registries: real ``rpcfw registry`` processes, and simulated hosts in virtual time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import rpcfw
from rpcfw import Limits, naming
from rpcfw.naming import NamingRegistry
from rpcfw.registry import Registry
from rpcfw.testing import Host, Simulation
from rpcfw.testing.host import Main
from tests.registry.servers import RealServer

QUIET = Limits(block_threshold_s=None, spin_turns=0, max_running=60_000, max_connections=20_000)


class RegistryProcess(RealServer):
    """``rpcfw registry`` in a process of its own. It keeps nothing."""

    def __init__(self, lease_s: float = 1.0) -> None:
        super().__init__()
        self._lease_s = lease_s

    def command(self) -> Sequence[str]:
        return (
            *(sys.executable, "-m", "rpcfw", "registry"),
            *("--listen", f"tcp://127.0.0.1:{self.port}", "--lease", str(self._lease_s)),
        )

    async def answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    @property
    def url(self) -> str:
        return f"rpcfw://127.0.0.1:{self.port}"


async def serve_names(host: Host, *, lease_s: float = 10.0) -> None:
    """The main of a simulated host that is a registry."""
    async with naming.serve("tcp://0.0.0.0:7400", lease_s=lease_s, limits=QUIET) as server:
        await server.wait_closed()


def relay_to(target: str) -> Main:
    """The main of a simulated host that passes bytes on to port 7400 of another."""
    return lambda host: serve_relay(target)


async def serve_relay(target: str) -> None:
    """Pass bytes on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(target, 7400)
            async with asyncio.TaskGroup() as group:
                group.create_task(pass_on(reader, there))
                group.create_task(pass_on(back, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            if there is not None:
                there.transport.abort()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    server = await asyncio.start_server(serve, "0.0.0.0", 7400)
    async with server:
        await asyncio.get_running_loop().create_future()


class SimulatedPlace:
    """One registry or several on hosts ``names1`` ..., and for each registry object a relay to each of them.

    A relay that loses its power is how an object's process dies: as for the registry, nobody says so.
    """

    patience_s = 60.0

    def __init__(self, simulation: Simulation, count: int = 1, *, lease_s: float = 10.0) -> None:
        self._simulation = simulation
        self.names = [f"names{number}" for number in range(1, count + 1)]
        self._relays: dict[Registry, list[str]] = {}
        for name in self.names:
            simulation.host(name, lambda host: serve_names(host, lease_s=lease_s))
            for number in range(6):
                simulation.host(f"relay{number}-{name}", relay_to(name))

    def open(self) -> Registry:
        relays = [f"relay{len(self._relays)}-{name}" for name in self.names]
        registry = NamingRegistry([f"tcp://{relay}:7400" for relay in relays])
        self._relays[registry] = relays
        return registry

    async def crash(self, registry: Registry) -> None:
        for relay in self._relays[registry]:
            self._simulation.hosts[relay].crash()

    async def stop_backend(self) -> None:
        for name in self.names:
            self._simulation.hosts[name].crash()

    async def start_backend(self) -> None:
        for name in self.names:
            self._simulation.hosts[name].restart()


@rpcfw.service("shop.Orders")
class Shop:
    """Says who it is."""

    def __init__(self, name: str = "shop") -> None:
        self.name = name

    @rpcfw.idempotent
    async def who(self) -> str:
        return self.name


@rpcfw.service("shop.Stock")
class Stock:
    """Another service."""

    async def left(self) -> int:
        return 3
