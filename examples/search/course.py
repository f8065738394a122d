"""The course of events while the callers ask: balancers take turns, servers are stopped, fail, restart and are killed.

Each part waits for what is to happen, never for a time by which it should have; `WITHIN_S` only says when to give up.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence

import rpcfw
from examples.search.cluster import ServerProcess
from examples.search.fleet import Fleet
from examples.search.timeline import Timeline
from examples.search.traffic import Traffic, Turn
from examples.search.trouble import SLOW_S, Word
from rpcfw.balancer import Balancer, LeastInFlight, Node, PowerOfTwo, RoundRobin, SmoothWeighted

WITHIN_S = 60.0
CALLS_PER_TURN = 40
"""No balancer's turn ends before so many calls have been answered, however busy the machine."""
_LOOK_S = 0.001


class PartFailed(RuntimeError):
    """What a part of the demo waits for did not happen."""


class Switch:
    """A balancer that leaves each choice to another one, which may be changed while calls are made."""

    def __init__(self) -> None:
        self.balancer: Balancer = PowerOfTwo()

    def pick(self, nodes: Sequence[Node], call: rpcfw.Call) -> Node:
        return self.balancer.pick(nodes, call)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A balancer's turn.

    Attributes:
        name: what it is called in the table.
        make: makes the balancer.
        slow: whether one server is slow meanwhile.
    """

    name: str
    make: Callable[[], Balancer]
    slow: bool = False


PLANS = (
    Plan("round robin", RoundRobin),
    Plan("smooth weighted", SmoothWeighted),
    Plan("round robin", RoundRobin, slow=True),
    Plan("least in flight", LeastInFlight, slow=True),
    Plan("power of two", PowerOfTwo, slow=True),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """All that takes part in a course."""

    servers: Sequence[ServerProcess]
    traffic: Traffic
    fleet: Fleet
    timeline: Timeline
    switch: Switch


class Course:
    """Has the callers ask, and puts the servers through it, one part after the other.

    Attributes:
        turns: what came of each plan.
    """

    def __init__(self, stage: Stage, seconds: float, rng: random.Random) -> None:
        self.turns: list[tuple[Plan, Turn]] = []
        self._servers, self._traffic = stage.servers, stage.traffic
        self._fleet, self._timeline = stage.fleet, stage.timeline
        self._switch = stage.switch
        self._seconds = seconds
        self._rng = rng
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """All parts. Raises PartFailed or ServerFailed when one cannot go on."""
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self._traffic.run())
            try:
                await self._as_usual("As usual: all servers answer; the client found them in the registry")
                for plan in PLANS:
                    await self._take_turn(plan)
                self._switch.balancer = LeastInFlight()  # gives a server calls as soon as it is back
                await self._lose_heartbeats(self._servers[1])
                await self._open_breaker(self._servers[2])
                await self._restart_all()
                await self._kill(self._rng.choice(self._servers))
                await self._as_usual("As usual again")
            finally:
                self._traffic.stop()
            await asking
        self._timeline.tell("the last call has ended")

    async def _as_usual(self, part: str) -> None:
        self._timeline.begin(part)
        await asyncio.sleep(self._seconds)

    async def _take_turn(self, plan: Plan) -> None:
        slow = self._servers[-1]
        before = f"server {slow.node} takes {SLOW_S * 1000:.0f} ms longer: " if plan.slow else ""
        self._timeline.begin(f"Balancers: {before}{plan.name}")
        self._switch.balancer = plan.make()
        slow.tell(Word.SLOW if plan.slow else Word.WELL)
        self._traffic.turn = turn = Turn()
        begun = self._loop.time()
        async with self._patience(f"so few calls were answered under {plan.name}"):
            await asyncio.sleep(self._seconds)
            while turn.by_node.total() < CALLS_PER_TURN:  # noqa: ASYNC110  it nearly always is enough already
                await asyncio.sleep(_LOOK_S)
        turn.seconds = self._loop.time() - begun
        self._traffic.turn = None
        self.turns.append((plan, turn))
        slow.tell(Word.WELL)
        shares = (f"{server.node} {_percent(turn, server.node)} %" for server in self._servers)
        self._timeline.tell(f"{turn.by_node.total():,} calls: {', '.join(shares)}")

    async def _lose_heartbeats(self, server: ServerProcess) -> None:
        node = server.node
        self._timeline.begin(f"Heartbeats: server {node} is stopped, and says nothing any more (SIGSTOP)")
        await self._until_busy(server)
        lost = self._fleet.expect(rpcfw.EventKind.DOWN, node)
        server.send(signal.SIGSTOP)
        stopped_at = self._timeline.elapsed_s
        self._timeline.tell(
            f"server {node} (pid {server.pid}) is stopped; in flight to it: {self._fleet.in_flight(node)}"
        )
        async with self._patience(f"the heartbeats of server {node} were not missed"):
            lost_at = await lost
        self._timeline.tell(f"server {node} is taken out {lost_at - stopped_at:.1f} s after it was stopped")
        await asyncio.sleep(self._seconds / 2)
        self._timeline.tell(f"server {node} may go on (SIGCONT)")
        server.send(signal.SIGCONT)
        await self._until_back(server)

    async def _open_breaker(self, server: ServerProcess) -> None:
        node = server.node
        self._timeline.begin(f"Breaker: server {node} fails all calls, as it is told to")
        kind = rpcfw.EventKind.BREAKER
        opened, closed = (self._fleet.expect(kind, node, text) for text in ("-> open", "-> closed"))
        server.tell(Word.FAILING)
        async with self._patience(f"the breaker of server {node} did not open"):
            await opened
        self._timeline.tell(f"the calls go elsewhere; server {node} is told to be well again")
        server.tell(Word.WELL)
        async with self._patience(f"the breaker of server {node} did not close"):
            await closed
        await self._until_back(server)

    async def _restart_all(self) -> None:
        self._timeline.begin("Rolling restart: one server after the other leaves in good order (SIGTERM)")
        for server in self._servers:
            async with self._patience(f"server {server.node} did not end"):
                server.terminate()
                await server.gone()
            await self._start_again(server, f"server {server.node} has left and ended")

    async def _kill(self, server: ServerProcess) -> None:
        node = server.node
        self._timeline.begin(f"kill -9 of a server at random: {node}")
        await self._until_busy(server)
        lost = self._fleet.expect(rpcfw.EventKind.DOWN, node)
        server.kill()
        self._timeline.tell(
            f"SIGKILL to server {node} (pid {server.pid}); in flight to it: {self._fleet.in_flight(node)}"
        )
        async with self._patience(f"nobody noticed that server {node} was killed"):
            await lost
            await server.gone()
        await asyncio.sleep(self._seconds / 2)
        await self._start_again(server, f"server {node} is gone")

    async def _start_again(self, server: ServerProcess, why: str) -> None:
        up = self._fleet.expect(rpcfw.EventKind.UP, server.node)
        async with self._patience(f"server {server.node} was not back"):
            await server.start()
            self._timeline.tell(f"{why}; it is started again (pid {server.pid})")
            await server.served()
            await up
        await self._until_back(server)

    async def _until_back(self, server: ServerProcess) -> None:
        async with self._patience(f"server {server.node} answered no call"):
            await self._traffic.answer_of(server.node)
        self._timeline.tell(f"server {server.node} answers calls again, at {server.address}")

    async def _until_busy(self, server: ServerProcess) -> None:
        async with self._patience(f"server {server.node} got no call"):
            while not self._fleet.in_flight(server.node):  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(_LOOK_S)

    @contextlib.asynccontextmanager
    async def _patience(self, what_if_not: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WITHIN_S):
                yield
        except TimeoutError:
            raise PartFailed(f"{what_if_not} within {WITHIN_S:g} s; is this machine very busy?") from None


def _percent(turn: Turn, node: str) -> str:
    return f"{100 * turn.by_node[node] / max(1, turn.by_node.total()):.1f}"
