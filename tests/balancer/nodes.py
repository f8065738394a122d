"""Nodes and calls without a network, for tests of balancers and routers."""

from __future__ import annotations

import contextvars
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import rpcfw
from rpcfw.balancer import Balancer, Node, Statistics
from rpcfw.call import Call, Metadata, Route, enter_call, pack_metadata
from rpcfw.endpoint import Endpoint

T = TypeVar("T")


@rpcfw.service("tests.Keyed")
class Keyed(Protocol):
    async def get(self, user: str) -> int: ...

    async def pair(self, one: str, two: Any) -> int: ...

    async def plain(self) -> int: ...


@rpcfw.service("tests.Other")
class Other(Protocol):
    async def plain(self) -> int: ...


METHODS = rpcfw.spec_of(Keyed).methods
OTHER = Call(rpcfw.spec_of(Other).methods["plain"], ())
PLAIN = Call(METHODS["plain"], ())


class FakeNode:
    """A node that is as the test says."""

    def __init__(
        self, name: str, weight: int = 100, *, version: str = "1.0", labels: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.endpoint = Endpoint("mem", name, weight=weight)
        self.version = version
        self.labels = dict(labels or {})
        self.weight: float = weight
        self.available = True
        self.statistics = Statistics()
        self.reported: Mapping[str, float] = {}

    @property
    def in_flight(self) -> int:
        return self.statistics.in_flight

    @in_flight.setter
    def in_flight(self, count: int) -> None:
        self.statistics.in_flight = count

    def reweigh(self, weight: int) -> None:
        self.weight = weight
        self.endpoint = dataclasses.replace(self.endpoint, weight=weight)

    def handler(self, call: Call) -> Awaitable[Any]:
        raise AssertionError("a balancer calls nobody")

    def __repr__(self) -> str:
        return self.name


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Served:
    """A call that is being served, for somebody at `peer`."""

    ended = False
    orphaned = False

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def set_reply_metadata(self, metadata: Metadata) -> None:
        raise AssertionError("a balancer replies to nobody")


def fleet(*weights: int) -> list[FakeNode]:
    """Nodes named a, b, c ... with these weights."""
    return [FakeNode(chr(ord("a") + index), weight) for index, weight in enumerate(weights)]


def many(count: int, prefix: str = "n") -> list[FakeNode]:
    return [FakeNode(f"{prefix}{index}") for index in range(count)]


def keyed(key: str, metadata: Metadata | None = None, route: Route | None = None) -> Call:
    return Call(METHODS["get"], (key,), metadata_bytes=pack_metadata(metadata or {}), route=route)


def plain(metadata: Metadata) -> Call:
    return Call(METHODS["plain"], (), metadata_bytes=pack_metadata(metadata))


def while_serving(peer: str, metadata: Metadata, do: Callable[[], T]) -> T:
    """Do something as a handler that serves a call from `peer` does."""

    def inside() -> T:
        served = Call(METHODS["plain"], (), metadata_bytes=pack_metadata(metadata), exchange=Served(peer))
        enter_call(served)
        return do()

    return contextvars.copy_context().run(inside)


def tally(balancer: Balancer, nodes: Sequence[Node], count: int, call: Call = PLAIN) -> Counter[str]:
    """How often each node is picked; by name of host."""
    return Counter(balancer.pick(nodes, call).endpoint.host for _ in range(count))


def names(nodes: Iterable[Node]) -> str:
    return " ".join(node.endpoint.host for node in nodes)
