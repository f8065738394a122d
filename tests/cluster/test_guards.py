"""Breakers and ejection in a client, the careful way of a call, and what it tells of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import rpcfw
from rpcfw import Call, Code, Handler, RpcError
from rpcfw.breaker import ConsecutiveFailures, State
from rpcfw.call import Route
from rpcfw.cluster.events import EventKind
from rpcfw.detector import OutlierRules
from rpcfw.router import ByTag
from tests.calls.place import until
from tests.calls.virtual import virtual_time
from tests.cluster.fleet import Desk, Fleet, node_of, shares


def every(handler: Handler) -> Handler:
    """Middleware: each call goes to every node."""

    def to_all(call: Call) -> Any:
        return handler(msgspec.structs.replace(call, route=Route(every=True)))

    return to_all


@virtual_time
async def test_a_breaker_keeps_calls_away_from_a_node_that_fails_and_lets_them_back() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(
        cluster={"breaker": lambda: ConsecutiveFailures(failures=3), "outlier": None}, middleware=[]
    )
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].fails = True
    failed = []
    for _ in range(20):
        try:
            await desk.who()
        except RpcError as error:
            failed.append(error.endpoint)
    assert failed == ["mem://a"] * 3, "the breaker is open after the third"
    fleet.desks["a"].fails = False
    breaker = node_of(client, "a").breaker
    assert breaker is not None
    loop = asyncio.get_running_loop()
    await asyncio.sleep(breaker.retry_at(loop.time()) - loop.time() + 0.01)
    assert (await shares(desk, 10))["a"] == 5
    assert breaker.state(loop.time()) is State.CLOSED
    changes = [event.reason for event in fleet.events if event.kind is EventKind.BREAKER]
    assert [change.partition(",")[0] for change in changes] == [
        "closed -> open",
        "open -> half-open",
        "half-open -> closed",
    ]
    assert client.event_counts[EventKind.BREAKER, "mem://a"] == 3
    await fleet.close()


@virtual_time
async def test_with_all_breakers_open_a_call_fails_at_once_and_says_when_they_let_calls_through() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(
        cluster={"breaker": lambda: ConsecutiveFailures(failures=1), "outlier": None}, middleware=[]
    )
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for broken in fleet.desks.values():
        broken.fails = True
    for _ in range(2):
        with pytest.raises(RpcError, match="does badly"):
            await desk.who()
    with pytest.raises(RpcError, match=r"the breakers of all 2 nodes of tests\.Desk are open") as refused:
        await desk.who()
    assert refused.value.executed is False
    assert refused.value.details["retry_after_s"] > 0
    await fleet.close()


@virtual_time
async def test_a_breaker_of_one_method_leaves_the_others_alone() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(
        cluster={"method_breaker": lambda: ConsecutiveFailures(failures=2), "outlier": None}, middleware=[]
    )
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].fails = True
    failed = 0
    for _ in range(12):
        try:
            await desk.who()
        except RpcError:
            failed += 1
    assert failed == 2
    assert sorted([await desk.other() for _ in range(4)]) == ["a", "a", "b", "b"]
    await fleet.close()


@virtual_time
async def test_a_node_whose_calls_fail_in_a_row_is_ejected_and_returns() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    rules = OutlierRules(consecutive=3, ejection_s=30)
    desk = fleet.connect(cluster={"outlier": rules}).stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["b"].fails = True
    assert "b" not in await shares(desk, 30), "what fails is repeated elsewhere"
    assert EventKind.EJECTED in fleet.kinds(of="b")
    fleet.desks["b"].fails = False
    assert "b" not in await shares(desk, 30)
    await asyncio.sleep(31)
    assert (await shares(desk, 30))["b"] == 10
    assert fleet.kinds(of="b")[-1] is EventKind.RETURNED
    await fleet.close()


@virtual_time
async def test_a_node_that_fails_more_often_than_the_others_is_ejected() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c", "d", "e")
    rules = OutlierRules(consecutive=None, min_requests=20, interval_s=10)
    desk = fleet.connect(cluster={"outlier": rules}).stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for number in range(200):
        fleet.desks["b"].fails = number % 3 == 0
        await desk.who()
    assert EventKind.EJECTED not in fleet.kinds()
    await asyncio.sleep(10)
    assert [event.endpoint for event in fleet.events if event.kind is EventKind.EJECTED] == ["mem://b"]
    await fleet.close()


@virtual_time
async def test_when_too_few_are_left_ejection_is_not_believed() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    rules = OutlierRules(consecutive=2, max_ejected=1.0, panic=0.5)
    desk = fleet.connect(cluster={"outlier": rules}, middleware=[]).stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for broken in fleet.desks.values():
        broken.fails = True
    for _ in range(30):
        with pytest.raises(RpcError):
            await desk.who()
    assert EventKind.PANIC in fleet.kinds()
    for broken in fleet.desks.values():
        broken.fails = False
    assert len(await shares(desk, 9)) == 3, "all of them are used"
    await fleet.close()


@virtual_time
async def test_declared_errors_and_wrong_arguments_speak_against_nobody() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(middleware=[])
    desk: Any = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for _ in range(20):
        with pytest.raises(RpcError) as wrong:
            async for _ in desk.count("three"):
                pass
        assert wrong.value.code in (Code.INVALID_ARGUMENT, Code.INTERNAL)
    assert EventKind.EJECTED not in fleet.kinds()
    await fleet.close()


@virtual_time
async def test_a_stream_counts_as_in_flight_until_it_ends_however_it_ends() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)

    def in_flight() -> int:
        return sum(node.in_flight for node in client.nodes)

    async for _ in desk.count(3):
        assert in_flight() == 1
    assert in_flight() == 0
    stream = desk.count(-1)
    await anext(stream)
    assert in_flight() == 1
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert in_flight() == 0
    reading = asyncio.create_task(_read(desk))
    await until(lambda: in_flight() == 1)
    reading.cancel()
    await asyncio.wait([reading])
    assert in_flight() == 0
    await fleet.place.settle()
    await fleet.close()


@virtual_time
async def test_an_endless_stream_closes_a_half_open_breaker_at_its_first_item() -> None:
    fleet = Fleet()
    await fleet.open("a")
    client = fleet.connect(
        cluster={"breaker": lambda: ConsecutiveFailures(failures=1), "outlier": None}, middleware=[]
    )
    desk = client.stub(Desk)
    await desk.who()
    fleet.desks["a"].fails = True
    with pytest.raises(RpcError):
        await desk.who()
    fleet.desks["a"].fails = False
    with pytest.raises(RpcError, match=r"the breakers of all 1 nodes|its breaker is open"):
        await desk.who()
    await asyncio.sleep(20)
    streams = [desk.count(-1) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    assert await desk.who() == "a"
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]  # they are generators
    assert node_of(client, "a").in_flight == 0
    await fleet.place.settle()
    await fleet.close()


async def _read(desk: Desk) -> None:
    async for _ in desk.count(-1):
        pass


@virtual_time
async def test_a_route_tells_who_decided_what() -> None:
    fleet = Fleet()
    await fleet.start("a", "b", "c")
    await fleet.enlist("a")
    await fleet.enlist("b", "c", tag="canary")
    client = fleet.connect(cluster={"routers": [ByTag("tag")], "breaker": ConsecutiveFailures})
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["b"].fails = True
    routes = [Route(), Route()]
    for route in routes:
        stub = rpcfw.with_options(desk, route=route, metadata={"tag": "canary"})
        assert await stub.who() == "c"
    (route,) = (route for route in routes if len(route.tried) == 2)
    told = str(route)
    assert "router" in told
    assert "ByTag leaves 2 of 3: mem://b, mem://c" in told
    assert "mem://b: RoundRobin of 2" in told
    assert "retry" in told
    assert "does badly" in told
    assert route.tried == ["mem://b", "mem://c"]
    await fleet.close()


@virtual_time
async def test_a_pinned_call_goes_to_that_node_or_nowhere() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for _ in range(5):
        assert await rpcfw.with_options(desk, route=Route(pinned="mem://b")).who() == "b"
    await fleet.crash("b")
    with pytest.raises(RpcError, match="mem://b, the only node that may take this call, cannot be reached"):
        await rpcfw.with_options(desk, route=Route(pinned="mem://b")).who()
    await fleet.close()


@virtual_time
async def test_a_call_to_every_node_gives_the_outcome_of_each() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    client = fleet.connect(middleware=[every])
    desk: Any = client.stub(Desk)
    client.watch(Desk)
    await asyncio.sleep(0.1)
    assert sorted(await desk.who()) == [("mem://a", "a"), ("mem://b", "b"), ("mem://c", "c")]
    await fleet.crash("b")
    fleet.desks["c"].fails = True
    (_, first), (_, second), (_, third) = sorted(await desk.who(), key=str)
    assert first == "a"
    assert isinstance(second, RpcError)
    assert second.executed is False
    assert isinstance(third, RpcError)
    assert third.endpoint == "mem://c"
    await fleet.close()


@virtual_time
async def test_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    await fleet.open("a")

    def broken(event: object) -> None:
        raise RuntimeError("no")

    client = rpcfw.connect(
        fleet._registry(),
        transports=fleet.place.transports,
        cluster=rpcfw.ClusterOptions(on_event=broken),
    )
    fleet.place.clients.append(client)
    assert await client.stub(Desk).who() == "a"
    assert "the listener of cluster events raised an error" in caplog.text
    await fleet.close()
