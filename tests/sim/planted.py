"""Four planted bugs, to see whether simulation finds them, and for each a scenario that fails by it alone.

A scenario says what must hold; with ``_planted`` behind its name it is played with the bug. `python -m
tests.sim.planted` says after how many seeds each bug is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import rpcfw
from rpcfw import Code, RpcError, Server
from rpcfw.connection.client import ClientConnection
from rpcfw.testing.history import History
from rpcfw.testing.host import Host
from rpcfw.testing.linearizability import check_kv
from rpcfw.testing.scenario import Played, Scenario, many_runs, play
from rpcfw.testing.schedule import Fault, Kind, Schedule, random_schedule
from rpcfw.testing.simulation import Simulation
from rpcfw.wire.liveness import Liveness, Verdict
from tests.sim.office import (
    CLIENT,
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    SERVER,
    Clerk,
    Desk,
    calling,
    serve,
    unreliable,
    violation,
)
from tests.sim.store import LoggedStore, Store

SETTLE_S = 60.0
CONNECT_S = 3.0 + 5.0
"""For a link, then for the handshake."""
SLACK_S = 1.0


# ------------------------------------------------------------------------------------------- a reply delivered twice


async def replies_reach_their_own_calls(simulation: Simulation) -> None:
    """Calls that overlap, of which some are given up: each gets the reply to it, or none."""
    simulation.host(CLIENT)
    simulation.host(SERVER, lambda host: serve(Clerk(simulation), []))
    nemesis = simulation.inject(unreliable(simulation, ("slow", "partition", "lossy", "pause"), 20.0))

    async def one(desk: Desk, token: str, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0.0, 20.0))
        try:
            reply = await rpcfw.with_options(desk, timeout_s=1.0).echo(token, rng.uniform(0.0, 0.3))
        except RpcError as error:
            if error.code not in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
                raise
            reply = error.code.name
        simulation.saw("ended", CLIENT, f"{token}: {reply}")
        if reply.startswith("call") and reply != token:
            raise violation(simulation, CLIENT, f"{token} got the reply to {reply}")

    async def work(client: rpcfw.Client, rng: random.Random) -> None:
        await asyncio.gather(*(one(client.stub(Desk), f"call-{number}", rng) for number in range(40)))

    await calling(simulation, CLIENT, work)
    await nemesis


@contextlib.contextmanager
def reply_delivered_twice() -> Iterator[None]:
    """Once a call is given up, its connection takes the next reply for that of its oldest call as well."""
    owing: weakref.WeakSet[ClientConnection] = weakref.WeakSet()
    give_up, take = ClientConnection._give_up, ClientConnection._reply

    def _give_up(self: ClientConnection, stream: int, code: Code, error: Exception | None = None) -> None:
        owing.add(self)
        give_up(self, stream, code, error)

    def _reply(self: ClientConnection, flags: int, method: int, stream: int, *rest: Any) -> None:
        take(self, flags, method, stream, *rest)
        if self in owing and self._pending:
            owing.discard(self)
            take(self, flags, method, min(self._pending), *rest)

    with mock.patch.multiple(ClientConnection, _give_up=_give_up, _reply=_reply):
        yield


# ----------------------------------------------------------------------------------------------- a lost cancellation


async def no_handler_outlives_its_call(simulation: Simulation) -> None:
    """Calls without a deadline that are all given up: in the end no handler runs."""
    clerks: list[Clerk] = []
    servers: list[Server] = []

    async def main(host: Host) -> None:
        clerks.append(Clerk(simulation))
        await serve(clerks[-1], servers)

    async def one(desk: Desk, token: str, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0.0, 40.0))
        try:
            async with asyncio.timeout(rng.uniform(0.0, 3.0)):
                await desk.hold(token)
        except TimeoutError:
            simulation.saw("ended", CLIENT, f"{token} is given up")
        except RpcError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            simulation.saw("ended", CLIENT, f"{token}: UNAVAILABLE")

    async def work(client: rpcfw.Client, rng: random.Random) -> None:
        await asyncio.gather(*(one(client.stub(Desk), f"call-{number}", rng) for number in range(40)))
        await nemesis
        await asyncio.sleep(SETTLE_S)
        running = servers[-1].running
        if running or clerks[-1].held:
            left = ", ".join(sorted(clerks[-1].held))
            raise violation(simulation, SERVER, f"{running} handlers outlive their calls: {left}")

    simulation.host(CLIENT)
    simulation.host(SERVER, main)
    kinds: tuple[Kind, ...] = ("slow", "partition", "lossy", "pause", "crash")
    nemesis = simulation.inject(unreliable(simulation, kinds, 40.0))
    await calling(simulation, CLIENT, work)


@contextlib.contextmanager
def lost_cancellation() -> Iterator[None]:
    """A call that is given up while five others are in progress is forgotten, and its server not told."""
    give_up = ClientConnection._give_up

    def _give_up(self: ClientConnection, stream: int, code: Code, error: Exception | None = None) -> None:
        if len(self._pending) > 5:
            del self._pending[stream]
        else:
            give_up(self, stream, code, error)

    with mock.patch.object(ClientConnection, "_give_up", _give_up):
        yield


# ----------------------------------------------------------------------------------------------- a deaf heartbeat


async def no_call_waits_for_a_dead_host(simulation: Simulation) -> None:
    """Calls without a deadline, and one fault after the other: each ends as soon as keepalive can know."""
    rng = simulation.rng
    simulation.host(CLIENT)
    simulation.host(SERVER, lambda host: serve(Clerk(simulation), []))
    faults: list[Fault] = []
    at_s = 0.0
    for _ in range(5):
        at_s += rng.uniform(60.0, 120.0)
        kind: Kind = rng.choice(("crash", "pause", "partition"))
        targets = ((CLIENT,), (SERVER,)) if kind == "partition" else (SERVER,)
        faults.append(Fault(round(at_s, 3), kind, targets, round(rng.uniform(1.0, 60.0), 3)))
        at_s = faults[-1].ends_s
    nemesis = simulation.inject(Schedule(tuple(faults)))

    async def work(client: rpcfw.Client, rng: random.Random) -> None:
        loop, desk = asyncio.get_running_loop(), client.stub(Desk)
        while not nemesis.done():
            await asyncio.sleep(rng.expovariate(1 / 20.0))
            began_s, after_s = loop.time(), rng.uniform(0.0, 3.0)
            end = "reply"
            try:
                await desk.echo("call", after_s)
            except RpcError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                end = "UNAVAILABLE"
            took_s = loop.time() - began_s
            simulation.saw("ended", CLIENT, f"{end} after {took_s:.1f} s")
            if took_s > CONNECT_S + after_s + KEEPALIVE_S + KEEPALIVE_TIMEOUT_S + SLACK_S:
                raise violation(
                    simulation, CLIENT, f"a call took {took_s:.1f} s, which keepalive should have ended"
                )

    await calling(simulation, CLIENT, work)


@contextlib.contextmanager
def heartbeat_without_end() -> Iterator[None]:
    """A ping that stays unanswered is sent again, and again."""
    look = Liveness.look

    def _look(self: Liveness, now: float) -> Verdict:
        verdict = look(self, now)
        if verdict is Verdict.LOST:
            self._pinged_at = now
            return Verdict.PING
        return verdict

    with mock.patch.object(Liveness, "look", _look):
        yield


# ----------------------------------------------------------------------------------------------- a file not synced


async def what_was_acknowledged_survives(simulation: Simulation) -> None:
    """Two clients of a store that crashes now and then: what they see is linearizable."""
    history = History()
    values = iter(range(10_000))

    async def main(host: Host) -> None:
        await serve(LoggedStore(host.disk), [])

    async def one(name: str, store: Store, rng: random.Random) -> None:
        key = rng.choice(("a", "b"))
        value = next(values) if rng.random() < 0.5 else None
        operation = history.begin(
            name, "read" if value is None else "write", key, [] if value is None else [value]
        )
        stub = rpcfw.with_options(store, timeout_s=1.0)
        try:
            if value is None:
                operation.ok(await stub.read(key))
            else:
                await stub.write(key, value)
                operation.ok()
        except RpcError as error:
            if error.executed is False:
                operation.fail(error)
            else:
                operation.unknown()
        simulation.saw("ended", name, str(operation))

    async def work(name: str, client: rpcfw.Client, rng: random.Random) -> None:
        while not nemesis.done():
            await one(name, client.stub(Store), rng)
            await asyncio.sleep(rng.expovariate(1 / 0.1))

    kinds: tuple[Kind, ...] = ("crash",)
    simulation.host(SERVER, main)
    nemesis = simulation.inject(random_schedule(simulation.rng, (SERVER,), 20.0, kinds=kinds, mean_gap_s=2.0))
    names = ("c1", "c2")
    await asyncio.gather(*(calling(simulation, name, functools.partial(work, name)) for name in names))
    verdict = check_kv(history)
    if not verdict:
        raise violation(simulation, SERVER, str(verdict))


@contextlib.contextmanager
def file_not_synced() -> Iterator[None]:
    """A write is answered while the log is still on its way to the disk."""
    sync = LoggedStore.sync
    syncing: set[asyncio.Task[None]] = set()

    async def _sync(self: LoggedStore) -> None:
        task = asyncio.ensure_future(sync(self))
        syncing.add(task)
        task.add_done_callback(syncing.discard)

    with mock.patch.object(LoggedStore, "sync", _sync):
        yield


# ----------------------------------------------------------------------------------------------- played with the bug


@dataclasses.dataclass(frozen=True)
class Planted:
    """A scenario, and the bug that it finds."""

    scenario: Scenario
    bug: Callable[[], contextlib.AbstractContextManager[None]]

    async def __call__(self, simulation: Simulation) -> None:
        """Play the scenario with the bug."""
        with self.bug():
            await self.scenario(simulation)


replies_reach_their_own_calls_planted = Planted(replies_reach_their_own_calls, reply_delivered_twice)
no_handler_outlives_its_call_planted = Planted(no_handler_outlives_its_call, lost_cancellation)
no_call_waits_for_a_dead_host_planted = Planted(no_call_waits_for_a_dead_host, heartbeat_without_end)
what_was_acknowledged_survives_planted = Planted(what_was_acknowledged_survives, file_not_synced)
ALL = (
    replies_reach_their_own_calls_planted,
    no_handler_outlives_its_call_planted,
    no_call_waits_for_a_dead_host_planted,
    what_was_acknowledged_survives_planted,
)


def first_failure(scenario: Scenario, seeds: range) -> Played | None:
    """The run of the first seed that fails."""
    with many_runs() as clean:
        for seed in seeds:
            played = play(scenario, seed)
            if played.error is not None:
                return played
            clean()
    return None


def main(sound: int, most: int) -> None:
    """Play so many seeds without each bug, and with it until it is found, but no more than `most`."""
    for planted in ALL:
        began_s = time.monotonic()
        failed = first_failure(planted.scenario, range(sound))
        took_s = (time.monotonic() - began_s) / sound
        wrong = "no violation" if failed is None else f"seed {failed.simulation.seed}: {failed.error!r}"
        print(f"{planted.scenario.__name__}: {sound} seeds without the bug, {took_s:.3f} s each: {wrong}")
        found = first_failure(planted, range(most))
        if found is None:
            print(f"  {planted.bug.__name__}: not found in {most} seeds")
        else:
            print(
                f"  {planted.bug.__name__}: found by seed {found.simulation.seed}: {found.outcome().first_line}"
            )


if __name__ == "__main__":
    main(sound=int(sys.argv[1]) if len(sys.argv) > 1 else 50, most=1000)
