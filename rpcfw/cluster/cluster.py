"""The cluster: what a client with several nodes sends its calls to. Pools by service, peers by address, one registry.

Wiring and lifetime; who may take a call is decided in `pool`, who can be reached in `peer`. Source of the shape:
Finagle's, where a balancer is itself a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from rpcfw.balancer import Balancer
from rpcfw.call import Attempter, Call, Recover
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.cluster.peer import Peer, Setting
from rpcfw.cluster.pool import Pool
from rpcfw.connection.channel import Shared
from rpcfw.connection.client import Choose, make_call
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registration, Registry
from rpcfw.transport import Transport

logger = logging.getLogger("rpcfw.cluster")

_WATCH_AGAIN_S = 1.0
"""A registry whose watch raises, which none should, is watched again after this time."""
_ASK_REGISTRY_S = 1.0
MAX_COUNTS = 10_000
"""So many pairs of an event and an endpoint are counted; further endpoints are not."""


class Cluster(Attempter):
    """Several nodes as one handler. Nothing is opened before the first call.

    Args:
        source: a registry, or endpoints that all serve every service.
        balancer: picks a node for each call.
        options: how nodes are watched and chosen.
        shared: how connections are kept, and what they share; some of it is stricter in a cluster.
        transports: by scheme; a node of any other scheme is passed over.
    """

    def __init__(
        self,
        source: Registry | Sequence[Endpoint],
        balancer: Balancer,
        options: ClusterOptions,
        shared: Shared,
        transports: Mapping[str, Transport],
    ) -> None:
        self.options = options
        self.balancer = balancer
        self._source = source
        self.client_id = f"{shared.rng.getrandbits(64):016x}"
        connection = shared.options
        shared.options = dataclasses.replace(
            connection,
            attempt_s=connection.attempt_s or options.attempt_s,
            max_backoff_s=min(connection.max_backoff_s, options.max_backoff_s),
            idle_s=None,  # heartbeats need a connection
        )
        self.quick: dict[str, Choose] = {}
        self._setting = Setting(options, shared, transports)
        self._pools: dict[str, Pool] = {}
        self._peers: dict[str, Peer] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._passed_over: set[str] = set()
        self._minding: asyncio.Task[None] | None = None
        self._problem = ""
        self._closed = False
        self.counts: Counter[tuple[EventKind, str]] = Counter()

    def __repr__(self) -> str:
        if isinstance(self._source, Sequence):
            return ", ".join(endpoint.address for endpoint in self._source)
        return repr(self._source)

    def attempt(self, call: Call, recover: Recover | None = None) -> Awaitable[Any]:
        """Make a call at one of the nodes of its service; what `recover` makes of a failure is the outcome."""
        return make_call(None, call, recover, self)

    handler = attempt

    def call_carefully(self, call: Call, recover: Recover | None) -> Awaitable[Any]:
        """Make a call that has a route or streams, or for which something must be waited for."""
        service = call.method.service
        return (self._pools.get(service) or self._open(service)).call_carefully(call, recover)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """All endpoints."""
        return tuple(self._peers.values())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes of the services called so far."""
        return tuple(node for pool in self._pools.values() for node in pool.nodes.values())

    def watch(self, service: str) -> None:
        """Find and connect to the nodes of a service now, and not only when it is first called."""
        if service not in self._pools:
            self._open(service)

    async def ready(self, service: str, count: int) -> None:
        """Wait until so many nodes of a service take calls."""
        self.watch(service)
        await self._pools[service].ready(count)

    async def close(self) -> None:
        """Close all connections and watches. Calls in progress fail with UNAVAILABLE."""
        self._closed = True
        tasks = [*self._watching.values(), *self._leaving]
        if self._minding is not None:
            tasks.append(self._minding)
        self._watching.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        peers = list(self._peers.values())
        self._peers.clear()
        await asyncio.gather(*(peer.close() for peer in peers))

    # --------------------------------------------------------------------------------------- what pools need

    def acquire(self, endpoint: Endpoint) -> Peer | None:
        """The peer at an endpoint, one use more; None where this client has no transport for it."""
        if not self._speaks(endpoint):
            if endpoint.address not in self._passed_over and len(self._passed_over) < 1000:
                self._passed_over.add(endpoint.address)
                known = ", ".join(f"{scheme}://" for scheme in sorted(self._setting.transports))
                logger.warning("%s is passed over: this client has %s only", endpoint.address, known)
            return None
        peer = self._peers.get(endpoint.address)
        if peer is None:
            peer = self._peers[endpoint.address] = Peer(endpoint, self._setting, self._peer_changed)
            peer.start()
        peer.uses += 1
        return peer

    def _speaks(self, endpoint: Endpoint) -> bool:
        if endpoint.scheme != "udp":
            return endpoint.scheme in self._setting.transports
        # datagrams are neither encrypted nor signed: no registry leads a client there that was given only `tls`
        return isinstance(self._source, Sequence) or "tcp" in self._setting.transports

    def release(self, peer: Peer) -> None:
        """One use less; the last one ends it, when its calls in progress have ended."""
        peer.uses -= 1
        if peer.uses == 0 and not self._closed:
            self._peers.pop(peer.address, None)
            leaving = asyncio.get_running_loop().create_task(peer.leave(), context=contextvars.Context())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def tell(self, event: Event) -> None:
        """Count it, and tell the listener; its own errors are logged, since nobody else could mend them."""
        key = (event.kind, event.endpoint)
        if key in self.counts or len(self.counts) < MAX_COUNTS:
            self.counts[key] += 1
        try:
            self.options.on_event(event)
        except Exception:
            logger.exception("the listener of cluster events raised an error for: %s", event)

    def problem(self) -> str:
        """Why the registry cannot be reached; empty when it can."""
        return "" if isinstance(self._source, Sequence) else self._source.problem

    # ----------------------------------------------------------------------------------------------- watching

    def _open(self, service: str) -> Pool:
        if self._closed:
            raise RpcError(Code.FAILED_PRECONDITION, "this client is closed; make a new one", executed=False)
        pool = self._pools[service] = Pool(service, self)
        if isinstance(self._source, Sequence):
            pool.update(Registration(service, endpoint, version="") for endpoint in self._source)
        else:
            loop = asyncio.get_running_loop()
            self._watching[service] = loop.create_task(
                self._watch(self._source, pool), name=f"rpcfw watch {service}", context=contextvars.Context()
            )
            if self._minding is None:
                self._minding = loop.create_task(
                    self._mind(self._source), name="rpcfw registry", context=contextvars.Context()
                )
        return pool

    async def _watch(self, registry: Registry, pool: Pool) -> None:
        while True:
            try:
                async with contextlib.aclosing(registry.watch(pool.service)) as snapshots:
                    async for snapshot in snapshots:
                        self._tell_of_registry(registry)
                        pool.update(sorted(snapshot, key=_order))
                logger.warning("the registry ended its watch of %s; what is known stays", pool.service)
                return
            except Exception:
                logger.exception("the watch of %s failed; it begins again", pool.service)
                await asyncio.sleep(_WATCH_AGAIN_S)

    async def _mind(self, registry: Registry) -> None:
        """Ask the registry how it does now and then: while it is away its watches say nothing."""
        while True:
            self._tell_of_registry(registry)
            await asyncio.sleep(_ASK_REGISTRY_S)

    def _tell_of_registry(self, registry: Registry) -> None:
        if registry.problem != self._problem:
            self._problem = registry.problem
            now = asyncio.get_running_loop().time()
            self.tell(Event(now, EventKind.REGISTRY, "", "", self._problem or "it can be reached"))

    def _peer_changed(self, peer: Peer, event: Event) -> None:
        self.tell(event)
        if self._peers.get(peer.address) is not peer:  # it leaves, and another may be at its endpoint by now
            return
        anew = event.kind is EventKind.RESTARTED or (event.kind is EventKind.UP and peer.was_silent)
        for pool in list(self._pools.values()):
            if anew:
                pool.begin_anew(peer)
            pool.changed(peer)


def _order(known: Registration) -> tuple[str, ...]:
    """Sets have none. Of several registrations of one address the last counts, and it is always the same one."""
    return known.key, str(known.endpoint), known.version, known.instance
