"""The servers as the client sees them: a row each for the live table, and events that can be waited for.

All of it comes from the client: its nodes, and the events that it tells. Of the processes it takes names and ids.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import rpcfw
from examples.search.cluster import ServerProcess
from examples.search.timeline import Timeline
from examples.search.traffic import Traffic
from rpcfw.balancer import Node
from rpcfw.breaker import Breaker

_PASSED_OVER = (rpcfw.EventKind.ADDED, rpcfw.EventKind.RESTARTED)
"""Events that say no more here than the one that follows: a server that is started again has another port."""


@runtime_checkable
class Guarded(Node, Protocol):
    """A node of a client of several servers: what balancers see of it, and what guards it."""

    ejected: bool
    breaker: Breaker | None


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One server now. What its heartbeats say is None while none has come."""

    name: str
    pid: int
    address: str
    state: str
    breaker: str
    in_flight: int
    calls: int
    share: float
    latency_ms: float
    running: int | None
    lag_ms: float | None


class Fleet:
    """What a client knows of the demo's servers. Give the client `heard` as its listener, then call `watch`."""

    def __init__(self, servers: Sequence[ServerProcess], timeline: Timeline) -> None:
        self._servers = servers
        self._timeline = timeline
        self._client: rpcfw.Client | None = None
        self._names: dict[str, str] = {}
        self._expected: list[tuple[rpcfw.EventKind, str, str, asyncio.Future[float]]] = []

    def watch(self, client: rpcfw.Client) -> None:
        """These are the client's nodes."""
        self._client = client

    def heard(self, event: rpcfw.Event) -> None:
        """The client's listener of events."""
        for node in self._nodes():
            self._names[node.endpoint.address] = node.labels.get("node", "?")
        name = self._names.get(event.endpoint, "")
        if event.kind not in _PASSED_OVER:
            self._notice(event, name)
        for kind, node_name, text, future in self._expected:
            if kind is event.kind and node_name == name and text in event.reason and not future.done():
                future.set_result(self._timeline.elapsed_s)
        self._expected = [expected for expected in self._expected if not expected[3].done()]

    def _notice(self, event: rpcfw.Event, name: str) -> None:
        about = f"{name} at {event.endpoint}" if name else event.endpoint or "the registry"
        self._timeline.notice(f"{about}: {event.kind.value}{': ' if event.reason else ''}{event.reason}")

    def expect(self, kind: rpcfw.EventKind, name: str, text: str = "") -> asyncio.Future[float]:
        """When an event of this kind, about this server, with this text in its reason, comes from now on."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected.append((kind, name, text, future))
        return future

    def in_flight(self, name: str) -> int:
        """Calls in progress at a server."""
        return sum(node.in_flight for node in self._nodes() if node.labels.get("node") == name)

    def rows(self, traffic: Traffic) -> list[Row]:
        """All servers now, in the order of their names."""
        now, recent = asyncio.get_running_loop().time(), traffic.last_second()
        nodes = {server.node: self._node_of(server) for server in self._servers}
        return [
            self._row(server, nodes[server.node], now, recent[server.node], recent.total())
            for server in self._servers
        ]

    def _row(self, server: ServerProcess, node: Guarded | None, now: float, calls: int, total: int) -> Row:
        share = calls / total if total else 0.0
        if node is None:
            state = "starts" if server.running else "gone"
            return Row(server.node, server.pid, server.address, state, "-", 0, calls, share, 0.0, None, None)
        running, lag_s = node.reported.get("running"), node.reported.get("lag_s")
        return Row(
            server.node,
            server.pid,
            node.endpoint.address,
            self._state(node),
            node.breaker.state(now).value if node.breaker is not None else "-",
            node.in_flight,
            calls,
            share,
            node.statistics.latency_s(now) * 1000,
            None if running is None else int(running),
            None if lag_s is None else lag_s * 1000,
        )

    @staticmethod
    def _state(node: Guarded) -> str:
        if not node.available:
            return "draining" if node.in_flight else "down"
        return "ejected" if node.ejected else "up"

    def _node_of(self, server: ServerProcess) -> Guarded | None:
        """Of all addresses that a server has had lately the one that works, else the last."""
        known = [node for node in self._nodes() if node.labels.get("node") == server.node]
        known.sort(key=lambda node: node.available)
        return known[-1] if known else None

    def _nodes(self) -> list[Guarded]:
        nodes = self._client.nodes if self._client is not None else ()
        return [node for node in nodes if isinstance(node, Guarded)]
