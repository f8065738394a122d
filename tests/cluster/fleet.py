"""A few servers in memory, a registry that lists them, and clients of it that remember what happened to their nodes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any, cast

import rpcfw
from rpcfw import Client, Endpoint, Server
from rpcfw.balancer import RoundRobin
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.registry import MemoryRegistry, MemoryStore, Registration
from tests.calls.place import Place


@rpcfw.service("tests.Desk")
class Desk:
    """Answers with its name, and does as it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

    @rpcfw.idempotent
    async def who(self) -> str:
        """Its name, when the gate is open."""
        await self.gate.wait()
        if self.fails:
            raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, f"{self.name} does badly")
        return self.name

    async def other(self) -> str:
        """Its name."""
        return self.name

    async def count(self, up_to: int) -> AsyncIterator[int]:
        """Numbers; without end below 0."""
        number = 0
        while number != up_to:
            number += 1
            yield number
            await asyncio.sleep(0)


class Fleet:
    """Servers `a`, `b` ... in memory, a store that lists them, and clients."""

    def __init__(self) -> None:
        self.place = Place("mem")
        self.store = MemoryStore()
        self.desks: dict[str, Desk] = {}
        self.servers: dict[str, Server] = {}
        self.events: list[Event] = []
        self._registries: list[MemoryRegistry] = []
        self._listed: dict[str, Any] = {}

    async def start(self, *names: str) -> None:
        """Start servers that the store does not list yet."""
        for name in names:
            desk = self.desks[name] = Desk(name)
            self.servers[name] = await self.place.serve(desk, listen=f"mem://{name}")

    async def enlist(self, *names: str, **labels: str) -> None:
        """Have the store list servers, with `weight` and `version` and labels."""
        for name in names:
            registry = self._registry()
            given = dict(labels)
            weight, version = int(given.pop("weight", "100")), given.pop("version", "1.0")
            endpoint = Endpoint("mem", name, weight=weight, labels=MappingProxyType(given))
            instance = self.servers[name].instance if name in self.servers else ""
            context = registry.register(Registration("tests.Desk", endpoint, version, instance))
            await context.__aenter__()
            self._listed[name] = context

    async def unlist(self, *names: str) -> None:
        """Have the store forget servers."""
        for name in names:
            await self._listed.pop(name).__aexit__(None, None, None)

    async def open(self, *names: str) -> None:
        """Start and list servers."""
        await self.start(*names)
        await self.enlist(*names)

    def connect(self, *, cluster: dict[str, Any] | None = None, **options: Any) -> Client:
        """A client of the store's registry; `cluster` are changes of `ClusterOptions`."""
        options.setdefault("balancer", RoundRobin())
        client = rpcfw.connect(
            self._registry(),
            transports=self.place.transports,
            cluster=ClusterOptions(on_event=self.events.append, **(cluster or {})),
            **options,
        )
        self.place.clients.append(client)
        return client

    def break_link(self, name: str) -> None:
        """Cut all connections of a server, as a crash of it does."""
        for connection in list(self.servers[name]._connections):
            cast(Any, connection.session.link).abort()

    async def crash(self, name: str) -> None:
        """End a server at once."""
        server = self.servers.pop(name)
        self.place.servers.remove(server)
        for connection in list(server._connections):
            cast(Any, connection.session.link).abort()
        await server.close()

    def kinds(self, *, of: str = "") -> list[EventKind]:
        """What happened, in order; to one server if one is named."""
        return [event.kind for event in self.events if not of or event.endpoint == f"mem://{of}"]

    async def close(self) -> None:
        """End everything."""
        await self.place.close()
        for name in list(self._listed):
            await self.unlist(name)
        for registry in self._registries:
            await registry.close()

    def _registry(self) -> MemoryRegistry:
        self._registries.append(MemoryRegistry(self.store))
        return self._registries[-1]


async def shares(stub: Desk, calls: int) -> Counter[str]:
    """Who answered how many of so many calls, one after the other."""
    return Counter([await stub.who() for _ in range(calls)])


def node_of(client: Client, name: str) -> Node:
    """The node at a server."""
    return next(node for node in client.nodes if isinstance(node, Node) and node.address == f"mem://{name}")
