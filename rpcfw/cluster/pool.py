"""The nodes of one service: kept as the registry lists them, and one of them chosen for each call.

Which may be chosen is worked out when something changes, not for each call. A call that is retried, routed or
explained, or that comes while a breaker is not closed, takes the careful way; every other the quick one.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from rpcfw.balancer import Balancer, Timed
from rpcfw.call import Call, Outcomes, Recover, Route
from rpcfw.cluster.choice import Choice, unavailable
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.node import Node, WarmingNode
from rpcfw.cluster.options import ClusterOptions
from rpcfw.cluster.peer import Peer
from rpcfw.connection.client import Choose, ClientConnection
from rpcfw.detector import Judgement, Outlier
from rpcfw.endpoint import Endpoint
from rpcfw.errors import RpcError
from rpcfw.interface import CallKind
from rpcfw.registry import Registration
from rpcfw.router import subset

_UNARY = CallKind.UNARY
_TOLD = 5
"""So many nodes are named in an error."""


class Fleet(Protocol):
    """What a pool needs of the client it belongs to.

    Attributes:
        quick: the pools whose calls need no more than a look; each enters itself, and takes itself out.
    """

    options: ClusterOptions
    balancer: Balancer
    client_id: str
    quick: dict[str, Choose]

    def acquire(self, endpoint: Endpoint) -> Peer | None:
        """The peer at an endpoint, one use more; None where this client has no transport for it."""
        ...

    def release(self, peer: Peer) -> None:
        """One use less; the last one ends it."""
        ...

    def tell(self, event: Event) -> None:
        """Something happened."""
        ...

    def problem(self) -> str:
        """Why the registry cannot be reached; empty when it can, or when there is none."""
        ...


class Pool:
    """The nodes of one service.

    Attributes:
        nodes: all that are known, by address.
    """

    def __init__(self, service: str, fleet: Fleet) -> None:
        self.service = service
        self.nodes: dict[str, Node] = {}
        self._fleet = fleet
        self._options = fleet.options
        self._loop = asyncio.get_running_loop()
        if isinstance(fleet.balancer, Timed):
            fleet.balancer.use_clock(self._loop.time)
        self._pick: Callable[[Sequence[Any], Call], Any] = fleet.balancer.pick  # what goes in comes out
        self._choice = Choice(service, fleet.options, fleet.balancer)
        self._make_node = WarmingNode if fleet.options.warm_up_s else Node
        rules = fleet.options.outlier
        self._outlier = Outlier(rules) if rules is not None else None
        self._ready: tuple[Node, ...] = ()
        self._two_way: tuple[Node, ...] = ()  # those of them that can reply
        self._stale = True
        self._has_breakers = fleet.options.breaker is not None or fleet.options.method_breaker is not None
        self._context: contextvars.Context | None = None  # a timer would keep that of whichever call set it
        self._panicking = False
        self._known = False
        self._described_anew = False
        self._closed = False
        self._waiting: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def choose(self, call: Call) -> tuple[ClientConnection, Node] | None:
        """The connection and node for a plain call that begins now; None where that takes more than a look."""
        if call.route is not None or call.method.kind is not _UNARY:
            return None
        nodes = self._ready
        node: Node = nodes[0] if len(nodes) == 1 else self._pick(nodes, call)
        connection = node.channel.sole
        return None if connection is None else (connection, node)

    async def ready(self, count: int) -> None:
        """Wait until so many nodes take calls. Raises RpcError UNAVAILABLE when the client is closed meanwhile."""
        while len(self._ready) < count:
            if self._closed:
                raise unavailable("this client was closed", {"waited_s": 0.0})
            await self._until_changed(math.inf)

    def close(self) -> None:
        """Give the nodes up; calls that wait for one fail."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.nodes.clear()
        self._ready = self._two_way = ()
        self._closed = True
        self._be_careful()
        self._wake()

    # ------------------------------------------------------------------------------------------ what is known

    def update(self, registrations: Iterable[Registration]) -> None:
        """The registry lists these now."""
        now, self._known = self._loop.time(), True
        wanted = {registration.endpoint.address: registration for registration in registrations}
        if self._options.subset is not None:
            kept = subset(list(wanted), self._fleet.client_id, self._options.subset)
            wanted = {address: wanted[address] for address in kept}
        for address, registration in wanted.items():
            node = self.nodes.get(address)
            if node is None:
                self._add(registration)
            elif node.registration != registration or node.unlisted_at is not None:
                if _restarted(node.registration, registration):
                    self._begin_anew(node)
                self._described_anew |= node.registration != registration
                node.describe(registration)
                node.unlisted_at = None
        for address in [address for address in self.nodes if address not in wanted]:
            node = self.nodes[address]
            if node.unlisted_at is None:
                node.unlisted_at = now
        self._refresh()

    def changed(self, peer: Peer) -> None:
        """Something is different about a peer."""
        if peer.address in self.nodes:
            self._refresh_soon()

    def begin_anew(self, peer: Peer) -> None:
        """What is known of calls at a peer's endpoint says nothing of those to come."""
        node = self.nodes.get(peer.address)
        if node is not None:
            self._begin_anew(node)

    def _add(self, registration: Registration) -> None:
        peer = self._fleet.acquire(registration.endpoint)
        if peer is None:
            return
        node = self._make_node(
            peer, registration, self._options, self._outlier, self._failed, self._breaker_changed
        )
        self.nodes[peer.address] = node
        if self._context is None and not peer.one_way:
            self._context = peer.context
        self._say(EventKind.ADDED, peer.address, "")

    def _remove(self, node: Node, reason: str) -> None:
        del self.nodes[node.address]
        if self._outlier is not None:
            self._take(self._outlier.forget(node.address))
        self._say(EventKind.REMOVED, node.address, reason)
        self._fleet.release(node.peer)

    def _begin_anew(self, node: Node) -> None:
        back = self._outlier.forget(node.address) if self._outlier is not None else []
        node.reset()
        node.ejected = False
        self._take(back)

    def _refresh_soon(self) -> None:
        """Refresh before the next call, and in the next turn at the latest: once, though a whole fleet may be lost."""
        if not self._stale and not self._closed:
            self._stale = True
            self._be_careful()
            self._loop.call_soon(self._refresh_stale, context=self._context)

    def _refresh_stale(self) -> None:
        if self._stale:
            self._refresh()

    def _refresh(self, at: float = -math.inf) -> None:
        """Work out which nodes may be chosen, and when to look again.

        A loop may call a timer a little before its time, `at`: it counts, or the timer would be set for it again.
        """
        now, options, self._stale = max(self._loop.time(), at), self._options, False
        for node in list(self.nodes.values()):
            if node.unlisted_at is not None:
                stays = node.peer.up and now < node.unlisted_at + options.linger_s
                if not stays:
                    self._remove(node, "the registry lists it no longer")
        if self._outlier is not None:
            for node in self.nodes.values():
                node.tell_outlier(now)
            self._take(self._outlier.sweep(now))
        nodes = list(self.nodes.values())
        up = [node for node in nodes if node.peer.up and self.service not in node.peer.unhealthy]
        healthy = [node for node in up if not node.ejected]
        panicking = self._outlier is not None and self._outlier.panicking(len(up), len(healthy))
        if panicking != self._panicking:
            self._panicking = panicking
            text = "too many nodes are ejected: all get calls" if panicking else "ejection counts again"
            self._say(EventKind.PANIC, "", text)
        chosen = two_way = tuple(up if panicking or not healthy else healthy)
        mixed = 0 < sum(node.peer.one_way for node in nodes) < len(nodes)
        if mixed:
            two_way = tuple(node for node in chosen if not node.peer.one_way)
        if chosen != self._ready or two_way != self._two_way or self._described_anew:
            self._ready, self._two_way, self._described_anew = chosen, two_way, False
        if not chosen or mixed or options.routers or self._guarded():
            self._be_careful()
        else:
            self._fleet.quick[self.service] = self.choose
        self._look_again(now)
        self._wake()

    def _be_careful(self) -> None:
        self._fleet.quick.pop(self.service, None)

    def _guarded(self) -> bool:
        return self._has_breakers and any(node.guarded for node in self._ready)

    def _look_again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        looks = [
            node.unlisted_at + self._options.linger_s
            for node in self.nodes.values()
            if node.unlisted_at is not None
        ]
        if self._outlier is not None and self.nodes:
            looks.append(self._outlier.next_look())
        at = min(looks, default=math.inf)
        if at != math.inf:
            at = max(at, now)
            self._timer = self._loop.call_at(at, self._refresh, at, context=self._context)

    def _take(self, judgements: Iterable[Judgement]) -> None:
        now = self._loop.time()
        for judgement in judgements:
            node = self.nodes.get(judgement.node_id)
            if node is None or node.ejected == judgement.ejected:
                continue
            node.set_ejected(now, judgement.ejected)
            kind = EventKind.EJECTED if judgement.ejected else EventKind.RETURNED
            self._say(kind, node.address, judgement.why)

    def _failed(self, node: Node, now: float) -> None:
        """A call has failed in a way that speaks against its node."""
        if self._outlier is None or self.nodes.get(node.address) is not node:
            return  # it was removed, and another may be at its address
        node.tell_outlier(now)
        judgement = self._outlier.failed(node.address, now)
        if judgement is not None:
            self._take([judgement])
            self._refresh()

    def _breaker_changed(self, node: Node, method: str, what: str) -> None:
        about = f"of {method}: {what}" if method else what
        self._say(EventKind.BREAKER, node.address, about)
        self._refresh_soon()

    # ---------------------------------------------------------------------------------------- the careful way

    async def call_carefully(self, call: Call, recover: Recover | None) -> Any:
        """Make a call at one of the nodes, or at each; what `recover` makes of a failure is the outcome."""
        began = self._loop.time()
        try:
            if call.route is not None and call.route.every:
                return await self._call_every(call)
            node = await self._choose(call)
        except RpcError as error:
            if recover is None:
                raise
            failure = error
        else:
            if call.route is not None and node.address not in call.route.tried:
                call.route.tried.append(node.address)
            return await node.handler(call, recover)
        try:
            return await recover(call, began, failure)
        finally:
            del failure  # whose traceback has this frame: a circle

    async def _call_every(self, call: Call) -> Outcomes:
        """Make a call at each node; a pair of address and result, or exception, for each."""
        give_up_at = min(call.deadline, self._loop.time() + self._options.wait_s)
        in_time = self._loop.time() < give_up_at
        while in_time and not self._all_tried() and not self._closed:
            in_time = await self._until_changed(give_up_at)
        nodes = list(self.nodes.values())
        if not call.method.oneway:
            nodes = [node for node in nodes if not node.peer.one_way] or nodes
        if not nodes:
            raise self._none_there()
        outcomes = await asyncio.gather(*(self._at(node, call) for node in nodes), return_exceptions=True)
        return Outcomes((node.address, outcome) for node, outcome in zip(nodes, outcomes, strict=True))

    def _all_tried(self) -> bool:
        return bool(self.nodes) and all(node.peer.up or node.peer.attempted for node in self.nodes.values())

    async def _at(self, node: Node, call: Call) -> Any:
        if not node.peer.up:
            raise unavailable(f"{node.address} cannot be reached: {node.peer.reason}", {})
        return await node.handler(call)

    async def _choose(self, call: Call) -> Node:
        """The node that takes a call. Raises RpcError UNAVAILABLE, after a while, when there is none."""
        route, told = call.route, False
        give_up_at = min(call.deadline, self._loop.time() + self._options.wait_s)
        in_time = self._loop.time() < give_up_at
        while True:
            now = self._loop.time()
            self._refresh_stale()
            nodes: Sequence[Node] = self._ready if call.method.oneway else self._two_way
            if route is not None and route.pinned is not None:
                node = self.nodes.get(route.pinned)  # also one that is ejected: there is no other to go to
                nodes = [node] if node is not None and node.peer.up else []
            if nodes:
                return self._choice.narrow(nodes, call, now)
            if self._closed:
                raise unavailable("this client was closed", {"waited_s": 0.0})
            if not in_time:
                raise self._none_there() if route is None or route.pinned is None else self._not_pinned(route)
            if route is not None and not told:
                told = True
                route.note(now, "cluster", f"waits for {route.pinned or self._why_none()}")
            in_time = await self._until_changed(give_up_at)

    async def _until_changed(self, at: float) -> bool:
        """Wait until something is different, but not after that time; whether it is earlier yet."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.add(waiter)
        timer = self._loop.call_at(at, _wake, waiter, False) if at != math.inf else None
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for waiter in self._waiting:
            _wake(waiter, True)

    # ------------------------------------------------------------------------------------------------- errors

    def _why_none(self) -> str:
        problem = self._fleet.problem()
        if not self._known:
            return f"the registry has not answered yet{': ' + problem if problem else ''}"
        if not self.nodes:
            return f"the registry lists no server of {self.service}{'; ' + problem if problem else ''}"
        told = [
            f"{node.address}: {node.peer.reason or ('does badly' if node.peer.up else 'not connected')}"
            for node in list(self.nodes.values())[:_TOLD]
        ]
        more = len(self.nodes) - len(told)
        return "; ".join(told) + (f"; and {more} more" if more > 0 else "")

    def _none_there(self) -> RpcError:
        return unavailable(
            f"no server of {self.service} can be reached: {self._why_none()}",
            {"waited_s": self._options.wait_s},
        )

    def _not_pinned(self, route: Route) -> RpcError:
        """Without `waited_s`: who must go to that very node may well wait for it again."""
        message = f"{route.pinned}, the only node that may take this call, cannot be reached"
        return unavailable(message, {})

    def _say(self, kind: EventKind, address: str, reason: str) -> None:
        self._fleet.tell(Event(self._loop.time(), kind, address, self.service, reason))


def _restarted(before: Registration, after: Registration) -> bool:
    return bool(before.instance and after.instance and before.instance != after.instance)


def _wake(future: asyncio.Future[bool], in_time: bool) -> None:
    if not future.done():
        future.set_result(in_time)
