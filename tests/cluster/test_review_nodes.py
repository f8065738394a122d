"""What a review of the cluster found to go wrong: ends, leaks, what registries say, and what peers say."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import random
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import rpcfw
from rpcfw import Call, Client, Code, Endpoint, Handler, RpcError
from rpcfw.balancer import LeastInFlight, PowerOfTwo, RoundRobin
from rpcfw.breaker import ConsecutiveFailures
from rpcfw.call import Route
from rpcfw.cluster.cluster import Cluster
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.node import Node
from rpcfw.cluster.options import ClusterOptions
from rpcfw.health import Status
from rpcfw.registry import Registration
from rpcfw.transport import Link, Listener, MemoryTransport, TlsTransport
from rpcfw.transport.link import ReceiverFactory
from tests.calls.place import until
from tests.calls.virtual import now, turns, virtual_time
from tests.cluster.fleet import Desk, Fleet, node_of, shares


class Said:
    """A registry that says what a test makes it say, and whose registrations end as a test tells."""

    def __init__(self, *ends: Exception) -> None:
        self.problem = ""
        self.closed = 0
        self._ends = list(ends)
        self._snapshots: asyncio.Queue[frozenset[Registration]] = asyncio.Queue()

    def say(self, *registrations: Registration) -> None:
        """These are all there are."""
        self._snapshots.put_nowait(frozenset(registrations))

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """Fail as told, then succeed."""
        return self._register()

    @contextlib.asynccontextmanager
    async def _register(self) -> AsyncIterator[None]:
        if self._ends:
            raise self._ends.pop(0)
        yield

    async def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """What is said."""
        while True:
            yield await self._snapshots.get()

    async def services(self) -> frozenset[str]:
        """None."""
        return frozenset()

    async def close(self) -> None:
        """Count."""
        self.closed += 1


def listed(url: str, instance: str = "") -> Registration:
    """A registration of the desk."""
    return Registration("tests.Desk", Endpoint.parse(url), instance=instance)


def cluster_of(client: Client) -> Cluster:
    """What is behind a client."""
    assert client._cluster is not None
    return client._cluster


def join(fleet: Fleet, registry: Said, **options: Any) -> Client:
    """A client of such a registry that watches the desk."""
    client = rpcfw.connect(registry, transports=fleet.place.transports, **options)
    fleet.place.clients.append(client)
    client.watch(Desk)
    return client


@rpcfw.service("tests.Feed")
class Feed:
    """Has streams only."""

    async def some(self, count: int) -> AsyncIterator[int]:
        """So many numbers; an error below 0."""
        if count < 0:
            raise RpcError(Code.UNAVAILABLE, "no numbers")
        for number in range(count):
            yield number


# ------------------------------------------------------------------------------------------------------ ends


@virtual_time
async def test_closing_the_client_ends_calls_at_a_node_that_was_taken_off_the_list_before() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"linger_s": 0.0}, middleware=[])
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for gated in fleet.desks.values():
        gated.gate.clear()
    calls = [asyncio.create_task(rpcfw.with_options(desk, timeout_s=100).who()) for _ in range(2)]
    await until(lambda: fleet.servers["a"].running == 1)
    await fleet.unlist("a")
    await asyncio.sleep(1)
    begun = now()
    await client.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [outcome.code for outcome in outcomes if isinstance(outcome, RpcError)] == [Code.UNAVAILABLE] * 2
    assert now() == begun
    await fleet.place.settle()
    assert fleet.servers["a"].connections == 0
    await fleet.close()


@virtual_time
async def test_a_call_awaited_after_a_node_is_gone_goes_to_another() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"linger_s": 0.0}, middleware=[])
    desk = client.stub(Desk)
    await shares(desk, 2)
    await asyncio.sleep(0.1)
    calls = [desk.who(), desk.who()]  # one for each, by turns, if a node were chosen here
    await fleet.unlist("a")
    await asyncio.sleep(1)
    assert await asyncio.gather(*calls) == ["b", "b"]
    await fleet.close()


@virtual_time
@pytest.mark.parametrize("middleware", [None, []], ids=["retried", "bare"])
async def test_calls_that_are_made_before_the_first_is_awaited_are_balanced_all_the_same(
    middleware: list[Any] | None,
) -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c", "d")
    client = fleet.connect(balancer=LeastInFlight(), middleware=middleware)
    desk = client.stub(Desk)
    await client.ready(Desk, 4)
    for gated in fleet.desks.values():
        gated.gate.clear()
    calls = asyncio.gather(*[desk.who() for _ in range(40)])
    await until(lambda: sum(server.running for server in fleet.servers.values()) == 40)
    for gated in fleet.desks.values():
        gated.gate.set()
    assert Counter(await calls) == dict.fromkeys("abcd", 10)
    await fleet.close()


@virtual_time
async def test_what_a_call_fails_with_is_raised_where_it_is_awaited() -> None:
    class Broken(RoundRobin):
        def pick(self, nodes: Any, call: Call) -> Any:
            raise ZeroDivisionError("in the balancer")

    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(balancer=Broken())
    desk = client.stub(Desk)
    await client.ready(Desk, 2)
    calls = [desk.who() for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 2
    await client.close()
    calls = [desk.who() for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RpcError] * 2
    await fleet.close()


@virtual_time
async def test_a_stream_that_a_middleware_drops_is_not_in_flight_for_ever() -> None:
    def drop(handler: Handler) -> Handler:
        async def dropping(call: Call) -> Any:
            await handler(call)
            return _nothing()

        async def _nothing() -> AsyncIterator[int]:
            for number in range(0):
                yield number

        return dropping

    fleet = Fleet()
    await fleet.open("a")
    client = fleet.connect(middleware=[drop])
    async for _ in client.stub(Desk).count(-1):
        pass
    gc.collect()
    await fleet.place.settle()
    assert node_of(client, "a").in_flight == 0
    await fleet.close()


@virtual_time
async def test_what_a_server_says_while_its_node_leaves_counts_for_nobody() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"linger_s": 0.0}, middleware=[])
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].gate.clear()
    calls = [asyncio.create_task(rpcfw.with_options(desk, timeout_s=100).who()) for _ in range(2)]
    await until(lambda: fleet.servers["a"].running == 1)
    await fleet.unlist("a")
    await asyncio.sleep(0.1)
    fleet.servers["a"].health.set("tests.Desk", Status.NOT_SERVING)
    await asyncio.sleep(40)  # keepalive pings it
    assert fleet.kinds(of="a")[-1] is EventKind.REMOVED
    fleet.desks["a"].gate.set()
    await asyncio.gather(*calls)
    await fleet.close()


@virtual_time
async def test_timers_do_not_keep_the_context_of_a_call() -> None:
    class Large:
        pass

    kept: contextvars.ContextVar[object] = contextvars.ContextVar("kept")
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    desk = fleet.connect(middleware=[]).stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].fails = True

    async def serve() -> weakref.ref[Large]:
        large = Large()
        kept.set(large)
        for _ in range(30):
            with contextlib.suppress(RpcError):
                await desk.who()
        return weakref.ref(large)

    large = await asyncio.create_task(serve())
    assert EventKind.EJECTED in fleet.kinds(of="a")
    await asyncio.sleep(100)
    gc.collect()
    assert large() is None
    await fleet.close()


@virtual_time
async def test_calls_leave_nothing_for_the_collector() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"breaker": ConsecutiveFailures})
    desk = client.stub(Desk)

    async def calls(count: int) -> None:
        for _ in range(count):
            for call in (desk.who(), rpcfw.with_options(desk, route=Route()).who()):
                with contextlib.suppress(RpcError):
                    await call
            with contextlib.suppress(RpcError):
                async for _ in desk.count(2):
                    pass

    await calls(5)
    for fails in (False, True):
        fleet.desks["a"].fails = fails
        await calls(5)
        gc.collect()
        gc.disable()
        try:
            await calls(50)
            assert gc.collect() == 0
        finally:
            gc.enable()
    await fleet.close()


# ------------------------------------------------------------------------------------------------ registries


@virtual_time
async def test_a_registry_that_goes_and_comes_back_is_told_though_its_watches_say_nothing() -> None:
    fleet = Fleet()
    await fleet.open("a")
    await fleet.connect().stub(Desk).who()
    fleet.store.stop()
    await asyncio.sleep(5)
    gone = [event.reason for event in fleet.events if event.kind is EventKind.REGISTRY]
    assert gone == ["the store in memory is stopped; call its start()"]
    fleet.store.start()
    await asyncio.sleep(5)
    assert fleet.kinds().count(EventKind.REGISTRY) == 2
    await fleet.close()


@virtual_time
async def test_of_two_registrations_of_one_address_it_is_always_the_same_that_counts() -> None:
    fleet = Fleet()
    registry = Said()
    client = join(fleet, registry)
    weights = set()
    for number in range(30):  # sets of other things have another order
        registry.say(*(listed(f"mem://a?weight={weight}", str(number)) for weight in (1, 2)))
        await asyncio.sleep(0.01)
        weights |= {node.weight for node in client.nodes if isinstance(node, Node)}
    assert weights == {2}
    await fleet.close()


@virtual_time
async def test_a_node_that_was_never_reached_is_told_to_be_down_once() -> None:
    fleet = Fleet()
    await fleet.enlist("a")
    with pytest.raises(RpcError):
        await fleet.connect().stub(Desk).who()
    await asyncio.sleep(5)
    assert fleet.kinds(of="a") == [EventKind.ADDED, EventKind.DOWN]
    await fleet.close()


class Strange(MemoryTransport):
    """Raises what no transport should, twice."""

    def __init__(self, memory: MemoryTransport) -> None:
        super().__init__()
        self._memory = memory
        self.attempts = 0

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """As the other one does, from the third attempt on."""
        self.attempts += 1
        if self.attempts <= 2:
            raise UnicodeError("label too long")
        return await self._memory.connect(endpoint, receiver)

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """As the other one does."""
        return await self._memory.listen(endpoint, receiver)


@virtual_time
async def test_an_error_that_no_transport_should_raise_does_not_lose_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet()
    await fleet.start("a")
    fleet.place.transports = {"mem": Strange(fleet.place.memory)}
    registry = Said()
    client = join(fleet, registry)
    registry.say(listed("mem://a"))
    assert await client.stub(Desk).who() == "a"
    assert caplog.text.count("mem://a cannot be used") == 1
    await fleet.close()


@virtual_time
async def test_calls_that_want_a_reply_go_past_the_datagrams_of_a_server() -> None:
    fleet = Fleet()
    await fleet.start("a")
    registry = Said()
    client = join(fleet, registry, middleware=[])
    registry.say(listed("mem://a"), listed("udp://127.0.0.1:9"))
    await asyncio.sleep(0.1)
    assert await shares(client.stub(Desk), 20) == {"a": 20}
    registry.say(listed("mem://b"), listed("udp://127.0.0.1:9"))
    await asyncio.sleep(20)
    with pytest.raises(RpcError, match=r"no server of tests\.Desk can be reached: .*one-way calls only"):
        await client.stub(Desk).who()
    await fleet.close()


@virtual_time
async def test_a_registry_leads_no_client_to_datagrams_that_was_given_only_tls() -> None:
    registry = Said()
    tls = TlsTransport(None)
    async with rpcfw.connect(registry, transports={"tls": tls}) as client:
        client.watch(Desk)
        registry.say(listed("udp://127.0.0.1:9"))
        await asyncio.sleep(0.1)
        assert client.nodes == ()


# ------------------------------------------------------------------------------------- what peers say and do


@virtual_time
async def test_the_last_word_of_a_server_that_goes_does_not_keep_the_next_run_out() -> None:
    fleet = Fleet()
    await fleet.open("a")
    client = fleet.connect(middleware=[])
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    old, gate = fleet.servers["a"], fleet.desks["a"].gate
    gate.clear()
    call = asyncio.create_task(desk.who())
    await until(lambda: old.running == 1)
    (connection,) = node_of(client, "a").peer.channel.connections  # type: ignore[union-attr]  # of a channel
    drain = asyncio.create_task(old.drain())
    await asyncio.sleep(0)
    connection.session.beat()  # crosses the GOAWAY, and its answer says that the server is draining
    await asyncio.sleep(0)
    await fleet.start("a")
    await asyncio.sleep(1)
    assert await desk.who() == "a"
    gate.set()
    assert await call == "a"
    await drain
    await fleet.close()


@virtual_time
async def test_a_server_that_drains_no_more_gets_calls_again() -> None:
    fleet = Fleet()
    await fleet.open("a")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    load = fleet.servers["a"]._load
    load.draining = True
    await asyncio.sleep(3.1)
    assert not node_of(client, "a").available
    load.draining = False
    await asyncio.sleep(3.1)
    assert await desk.who() == "a"
    await fleet.close()


@virtual_time
async def test_only_another_run_of_a_server_is_a_restart() -> None:
    fleet = Fleet()
    await fleet.open("a")
    await fleet.connect().stub(Desk).who()
    await asyncio.sleep(10)
    assert EventKind.RESTARTED not in fleet.kinds()
    await fleet.crash("a")
    await fleet.start("a")
    await asyncio.sleep(3)
    assert fleet.kinds().count(EventKind.RESTARTED) == 1
    await fleet.close()


@virtual_time
async def test_a_lost_connection_is_one_failure_however_many_calls_were_in_progress() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"breaker": ConsecutiveFailures})
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for gated in fleet.desks.values():
        gated.gate.clear()
    calls = [asyncio.create_task(desk.who()) for _ in range(40)]
    await until(lambda: fleet.servers["a"].running == 20)
    fleet.break_link("a")
    await asyncio.sleep(0.5)
    for gated in fleet.desks.values():
        gated.gate.set()
    await asyncio.gather(*calls)
    assert node_of(client, "a").statistics.failures == 1
    assert not {EventKind.EJECTED, EventKind.BREAKER} & set(fleet.kinds())
    assert await shares(desk, 10) == {"a": 5, "b": 5}
    await fleet.close()


@virtual_time
async def test_a_server_that_breaks_each_connection_is_ejected_nevertheless() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    for _ in range(8):
        await asyncio.sleep(2)
        fleet.desks["a"].gate.clear()
        calls = [asyncio.create_task(desk.who()) for _ in range(2)]
        await asyncio.sleep(0.1)
        fleet.break_link("a")
        await asyncio.gather(*calls)
    assert EventKind.EJECTED in fleet.kinds(of="a")
    await fleet.close()


@virtual_time
async def test_streams_that_end_well_count_for_their_node() -> None:
    fleet = Fleet()
    for name in "ab":
        await fleet.place.serve(Feed(), listen=f"mem://{name}")
    events: list[Event] = []
    client = rpcfw.connect(
        "mem://a",
        "mem://b",
        transports=fleet.place.transports,
        balancer=RoundRobin(),
        middleware=[],
        cluster=ClusterOptions(on_event=events.append),
    )
    fleet.place.clients.append(client)
    feed = client.stub(Feed)
    for _ in range(8):
        for count in (-1, -1, 2, 2):
            with contextlib.suppress(RpcError):
                async for _ in feed.some(count):
                    pass
        await asyncio.sleep(1)
    assert EventKind.EJECTED not in [event.kind for event in events]
    for node in client.nodes:
        assert isinstance(node, Node)
        assert (node.statistics.successes, node.statistics.failures) == (8, 8)
    await fleet.close()


@virtual_time
async def test_a_fleet_that_is_lost_at_once_is_looked_at_once() -> None:
    fleet = Fleet()
    await fleet.open(*"abcdefgh")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(1)
    pool = cluster_of(client)._pools["tests.Desk"]
    looks, refresh = 0, pool._refresh

    def count(at: float = -math.inf) -> None:
        nonlocal looks
        looks += 1
        refresh(at)

    pool._refresh = count  # type: ignore[method-assign]
    for name in fleet.servers:
        fleet.break_link(name)
    await asyncio.sleep(0.05)
    assert fleet.kinds().count(EventKind.DOWN) == 8
    assert looks <= 6
    assert await desk.who() in "abcdefgh"
    await fleet.close()


@virtual_time
async def test_an_idle_client_turns_its_loop_for_heartbeats_only() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    client.watch(Desk)
    await asyncio.sleep(10)
    before = turns()
    await asyncio.sleep(300)
    assert turns() - before < 300 * 12  # servers measure their lag four times a second
    await fleet.close()


# ------------------------------------------------------------------------------------------------ membership


@virtual_time
async def test_a_registration_that_is_refused_later_is_told(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    await fleet.start("a")
    away, refused = RpcError(Code.UNAVAILABLE, "away"), RpcError(Code.PERMISSION_DENIED, "not you")
    async with rpcfw.register(fleet.servers["a"], Said(away, refused)):
        await asyncio.sleep(5)
        assert "is not registered any more: PERMISSION_DENIED: not you" in caplog.text
    await fleet.close()


@virtual_time
async def test_a_registry_of_ones_own_is_closed_when_it_refuses() -> None:
    fleet = Fleet()
    await fleet.start("a")
    registry = Said(RpcError(Code.FAILED_PRECONDITION, "takes none"))
    membership = rpcfw.register(fleet.servers["a"], registry)
    membership._owns_registry = True  # as where it is given by its URL
    with pytest.raises(RpcError, match="takes none"):
        await membership.__aenter__()
    assert registry.closed == 1
    await fleet.close()


def test_a_weight_below_0_is_refused() -> None:
    server = rpcfw.serve(listen="mem://nowhere")
    with pytest.raises(ValueError, match="weight=-1"):
        rpcfw.register(server, "static://127.0.0.1:1", weight=-1)


# --------------------------------------------------------------------------------------------------- at large


class _Storm:
    """Calls of all kinds at a fleet to which all sorts of things happen."""

    LASTS_S = 40

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.fleet = Fleet()
        self.names = "abcdef"
        self.late: list[float] = []
        self.strange: list[RpcError] = []

    async def run(self) -> Client:
        await self.fleet.open(*self.names)
        options = {
            "breaker": ConsecutiveFailures,
            "method_breaker": ConsecutiveFailures,
            "linger_s": self.rng.choice([0.0, 2.0]),
        }
        client = self.fleet.connect(cluster=options, balancer=PowerOfTwo(rng=self.rng))
        desk = client.stub(Desk)
        weather = asyncio.create_task(self._weather())
        calls = []
        while now() < self.LASTS_S:
            calls.append(asyncio.create_task(self._call(desk)))
            await asyncio.sleep(self.rng.expovariate(30))
            if self.rng.random() < 0.3:
                self.rng.choice(calls[-5:]).cancel()
        await weather
        await asyncio.wait(calls)
        return client

    async def _call(self, desk: Desk) -> None:
        begun, timeout_s = now(), self.rng.choice([0.5, 1.0, 3.0])
        route = None
        if self.rng.random() < 0.2:
            route = Route(pinned=f"mem://{self.rng.choice(self.names)}" if self.rng.random() < 0.5 else None)
        stub = rpcfw.with_options(desk, timeout_s=timeout_s, route=route)
        try:
            if self.rng.random() < 0.3:
                await self._read(stub.count(self.rng.choice([0, 1, 20])))
            else:
                await stub.who()
        except RpcError as error:
            if error.code not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                self.strange.append(error)
        finally:
            if now() > begun + timeout_s + 0.001:
                self.late.append(now() - begun)

    async def _read(self, items: AsyncIterator[int]) -> None:
        enough = self.rng.choice([1, 5, 50])
        async for number in items:
            if number == enough:
                return  # the generator is left to the collector
            await asyncio.sleep(0)

    async def _weather(self) -> None:
        fleet = self.fleet
        while now() < self.LASTS_S:
            name, what = (
                self.rng.choice(self.names),
                self.rng.choice(["crash", "drain", "unlist", "break", "fail", "gate"]),
            )
            if what == "crash" and name in fleet.servers:
                await fleet.crash(name)
            elif what == "drain" and name in fleet.servers:
                server = fleet.servers.pop(name)
                fleet.place.servers.remove(server)
                await server.drain(1.0)
            elif what == "unlist" and name in fleet._listed:
                await fleet.unlist(name)
            elif what == "break" and name in fleet.servers:
                fleet.break_link(name)
            elif what == "fail":
                fleet.desks[name].fails = True
            elif what == "gate":
                fleet.desks[name].gate.clear()
            await asyncio.sleep(self.rng.expovariate(3))
            await self.mend(self.rng.choice(self.names))

    async def mend(self, name: str) -> None:
        fleet = self.fleet
        if name not in fleet.servers:
            await fleet.start(name)
        if name not in fleet._listed:
            await fleet.enlist(name)
        fleet.desks[name].fails = False
        fleet.desks[name].gate.set()


@pytest.mark.parametrize("seed", range(4))
@virtual_time
async def test_after_a_storm_nothing_is_left_and_no_call_took_longer_than_it_might(seed: int) -> None:
    storm = _Storm(seed)
    print(f"seed {seed}")
    client = await storm.run()
    assert storm.late == []
    assert storm.strange == []
    for name in storm.names:
        await storm.mend(name)
    gc.collect()
    await asyncio.sleep(400)
    desk = client.stub(Desk)
    used = set()
    for _ in range(20):
        used |= set(await shares(desk, 20))
        await asyncio.sleep(4)
    assert used == set(storm.names)
    assert all(node.in_flight == 0 for node in client.nodes)
    assert not cluster_of(client)._leaving
    await storm.fleet.close()
