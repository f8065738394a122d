"""Random walks through the states of a pool and of a retry budget: whatever happens in any order, the books balance.

Peers are made up, so that 50,000 steps take seconds: they come, go, are lost and fail as the walk will have it.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Mapping
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import Code, Endpoint, Origin, RpcError
from rpcfw.balancer import Balancer, PowerOfTwo
from rpcfw.breaker import ConsecutiveFailures, Recovery
from rpcfw.call import Call, Recover
from rpcfw.cluster.events import Event
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.cluster.peer import Peer
from rpcfw.cluster.pool import Pool
from rpcfw.connection.client import Choose, make_call
from rpcfw.detector import OutlierRules
from rpcfw.limiter import RetryBudget
from rpcfw.registry import Registration
from tests.calls.virtual import virtual_time
from tests.cluster.fleet import Desk

STEPS = 50_000
WHO = rpcfw.spec_of(Desk).methods["who"]
ADDRESSES = [f"mem://{name}" for name in "abcdef"]


class MadeUpPeer:
    """A peer that does as it is told, and its own channel."""

    one_way = was_silent = False
    attempted = True
    reason = ""
    instance = ""
    sole = None  # its calls take the way through `handler`
    unhealthy: frozenset[str] = frozenset()
    reported: Mapping[str, float] = {}

    def __init__(self, address: str) -> None:
        self.address = address
        self.endpoint = Endpoint.parse(address)
        self.channel = self
        self.up = False
        self.uses = 0
        self.losses = 0
        self.context = contextvars.Context()
        self.open: list[asyncio.Future[str]] = []

    async def handler(self, call: Call) -> str:
        """A call that lasts until the walk ends it."""
        assert self.up, f"a call was given to {self.address}, which is known to be gone"
        ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.open.append(ending)
        try:
            return await ending
        finally:
            self.open.remove(ending)

    def warmth(self, now: float) -> float:
        """All of it."""
        return 1.0


class MadeUpFleet:
    """What a pool needs of its client."""

    client_id = "walk"
    pool: Pool

    def __init__(self, rng: random.Random) -> None:
        recovery = Recovery(open_s=2.0)
        self.options = ClusterOptions(
            wait_s=0.5,
            linger_s=1.0,
            breaker=lambda: ConsecutiveFailures(failures=4, recovery=recovery, rng=rng),
            outlier=OutlierRules(consecutive=3, interval_s=1.0, ejection_s=2.0, max_ejection_s=10.0),
            on_event=lambda event: None,
        )
        self.balancer: Balancer = PowerOfTwo(rng=rng)
        self.quick: dict[str, Choose] = {}
        self.peers: dict[str, MadeUpPeer] = {}
        self.left: list[MadeUpPeer] = []

    def acquire(self, endpoint: Endpoint) -> Peer:
        """One use more."""
        peer = self.peers.setdefault(endpoint.address, MadeUpPeer(endpoint.address))
        peer.uses += 1
        return cast(Peer, peer)

    def release(self, peer: Peer) -> None:
        """One use less."""
        peer.uses -= 1
        assert peer.uses == 0
        self.left.append(self.peers.pop(peer.address))

    def tell(self, event: Event) -> None:
        """Nobody listens."""

    def problem(self) -> str:
        """None."""
        return ""

    def call_carefully(self, call: Call, recover: Recover | None) -> Awaitable[Any]:
        """At the pool of the walk."""
        return self.pool.call_carefully(call, recover)


class Walk:
    """A pool, and what may happen to it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.fleet = MadeUpFleet(rng)
        self.pool = self.fleet.pool = Pool("tests.Desk", self.fleet)
        self.calls: set[asyncio.Task[Any]] = set()
        self.nodes: set[Node] = set()
        self.listed: set[str] = set()
        self.faults: list[BaseException | None] = []

    async def step(self) -> None:
        """One thing happens, and everything is looked at."""
        what = self.rng.choices(
            (self.begin, self.end, self.toggle, self.enlist, self.begin_anew), (40, 42, 8, 3, 1)
        )[0]
        what()
        await asyncio.sleep(self.rng.uniform(0.0, 0.2) if self.rng.random() < 0.1 else 0)
        self.check()

    def begin(self) -> None:
        """A call."""
        if len(self.calls) < 50:
            made = Call(WHO, (), asyncio.get_running_loop().time() + 100)
            task = asyncio.ensure_future(make_call(None, made, None, self.fleet))
            self.calls.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.calls.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            if not isinstance(error, RpcError):
                self.faults.append(error)

    def end(self) -> None:
        """A call ends well, badly, or is given up."""
        open_ = [ending for peer in self.everybody() for ending in peer.open if not ending.done()]
        how = self.rng.random()
        if how < 0.15 and self.calls:
            self.rng.choice(sorted(self.calls, key=id)).cancel()
        elif open_ and how < 0.6:
            self.rng.choice(open_).set_result("")
        elif open_:
            code, origin = self.rng.choice(
                ((Code.UNAVAILABLE, Origin.REMOTE), (Code.INVALID_ARGUMENT, Origin.REMOTE))
            )
            self.rng.choice(open_).set_exception(RpcError(code, "so it is", origin=origin, executed=True))

    def toggle(self) -> None:
        """A peer is lost, with its calls, or is there again."""
        if self.fleet.peers:
            peer = self.rng.choice(list(self.fleet.peers.values()))
            peer.up = not peer.up
            if not peer.up:
                peer.losses += 1
                for ending in peer.open:
                    if not ending.done():
                        ending.set_exception(RpcError(Code.UNAVAILABLE, "lost", origin=Origin.CONNECTION))
            self.pool.changed(cast(Peer, peer))

    def enlist(self) -> None:
        """The registry lists others."""
        self.listed = {address for address in ADDRESSES if self.rng.random() < 0.7}
        self.pool.update(
            Registration("tests.Desk", Endpoint.parse(f"{address}?weight={self.rng.randrange(4) * 50}"))
            for address in sorted(self.listed)
        )

    def begin_anew(self) -> None:
        """Another run of a server is there."""
        if self.fleet.peers:
            peer = cast(Peer, self.rng.choice(list(self.fleet.peers.values())))
            self.pool.begin_anew(peer)
            self.pool.changed(peer)  # as the cluster does

    def everybody(self) -> list[MadeUpPeer]:
        """Peers in use, and those that have left with calls in progress."""
        self.fleet.left = [peer for peer in self.fleet.left if peer.open]
        return [*self.fleet.peers.values(), *self.fleet.left]

    def check(self) -> None:
        """What must hold at any moment."""
        pool, now = self.pool, asyncio.get_running_loop().time()
        assert not self.faults, self.faults
        self.nodes = {node for node in self.nodes if node.in_flight} | set(pool.nodes.values())
        assert pool.nodes.keys() == self.fleet.peers.keys()
        assert all(peer.uses == 1 for peer in self.fleet.peers.values())
        assert self.listed <= pool.nodes.keys()
        quick = "tests.Desk" in self.fleet.quick
        if quick:
            assert pool._ready
            assert not any(node.guarded for node in pool._ready)
        if not pool._stale:
            assert quick == (bool(pool._ready) and not any(node.guarded for node in pool._ready))
            for node in pool._ready:
                assert node.peer.up
                assert pool.nodes[node.address] is node
            assert bool(pool._ready) == any(peer.up for peer in self.fleet.peers.values())
        for node in pool.nodes.values():
            if node.unlisted_at is not None and not pool._stale:
                assert node.peer.up
                assert now <= node.unlisted_at + self.fleet.options.linger_s + 1e-6
        assert all(node.in_flight >= 0 for node in self.nodes)
        in_progress = sum(len(peer.open) for peer in self.everybody())
        assert sum(node.in_flight for node in self.nodes) == in_progress
        assert in_progress <= len(self.calls)
        assert len(pool._waiting) <= len(self.calls) - in_progress
        ejected = sum(node.ejected for node in pool.nodes.values())
        assert ejected <= max(1, len(pool.nodes) // 2)
        assert ejected < max(1, len(pool.nodes)) or not ejected


@pytest.mark.parametrize("seed", range(2))
@virtual_time
async def test_a_pool_keeps_its_books_whatever_happens(seed: int) -> None:
    walk = Walk(random.Random(seed))
    for number in range(STEPS // 2):
        try:
            await walk.step()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {number}: {error}") from error
    walk.pool.close()
    for call in list(walk.calls):
        call.cancel()
    if walk.calls:
        await asyncio.wait(walk.calls)
    assert not any(node.in_flight for node in walk.nodes)
    assert not walk.pool._waiting


@pytest.mark.parametrize("seed", range(2))
def test_a_budget_never_gives_more_than_it_got(seed: int) -> None:
    rng = random.Random(seed)
    ratio, reserve = 0.1, 20
    budget = RetryBudget(ratio=ratio, reserve=reserve, window_s=5.0)
    now, deposited, given = 0.0, 0, 0
    for number in range(STEPS):
        now += rng.expovariate(rng.choice((0.5, 10.0, 1000.0)))
        what = rng.random()
        if what < 0.5:
            budget.deposit(now)
            deposited += 1
        elif what < 0.9:
            given += budget.withdraw(now)
        elif given and what < 0.93:
            budget.refund()
            given -= 1
        assert given <= reserve + ratio * deposited + 1e-6, f"seed {seed}, step {number}"
        assert -1e-9 <= budget.tokens(now) <= budget.capacity + 1e-9, f"seed {seed}, step {number}"
