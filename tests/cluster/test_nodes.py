"""Which nodes a client knows and uses: as the registry lists them, and as they answer."""

from __future__ import annotations

import asyncio
import logging

import pytest

import rpcfw
from rpcfw import Code, RpcError
from rpcfw.cluster.events import EventKind
from rpcfw.health import Status
from rpcfw.registry import Registration
from tests.calls.place import until
from tests.calls.virtual import now, virtual_time
from tests.cluster.fleet import Desk, Fleet, node_of, shares


@virtual_time
async def test_calls_go_to_all_servers_that_the_registry_lists() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    assert await shares(desk, 30) == {"a": 10, "b": 10, "c": 10}
    await fleet.close()


@virtual_time
async def test_a_server_that_comes_gets_calls_and_one_that_leaves_gets_none() -> None:
    fleet = Fleet()
    await fleet.open("a")
    desk = fleet.connect().stub(Desk)
    assert await shares(desk, 3) == {"a": 3}
    await fleet.open("b")
    await asyncio.sleep(0.1)
    assert await shares(desk, 10) == {"a": 5, "b": 5}
    await fleet.unlist("a")
    await fleet.servers["a"].drain()
    assert await shares(desk, 10) == {"b": 10}
    assert EventKind.REMOVED in fleet.kinds(of="a")
    await fleet.close()


@virtual_time
async def test_a_crash_costs_no_idempotent_call_and_the_server_returns_by_itself() -> None:
    fleet = Fleet()
    await fleet.open("a", "b", "c")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    for gated in fleet.desks.values():
        gated.gate.clear()
    calls = [asyncio.create_task(desk.who()) for _ in range(9)]
    await until(lambda: fleet.servers["b"].running == 3)
    await fleet.crash("b")
    for gated in fleet.desks.values():
        gated.gate.set()
    assert "b" not in await asyncio.gather(*calls)
    assert not node_of(client, "b").available
    assert await shares(desk, 10) == {"a": 5, "c": 5}
    await fleet.start("b")
    await asyncio.sleep(2)
    assert (await shares(desk, 9))["b"] == 3
    kinds = [kind for kind in fleet.kinds(of="b") if kind is not EventKind.RESTARTED]
    assert kinds == [EventKind.ADDED, EventKind.UP, EventKind.DOWN, EventKind.UP]
    await fleet.close()


@virtual_time
async def test_a_registry_that_lost_its_data_takes_no_calls_from_servers_that_answer() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    await fleet.unlist("a", "b")
    assert await shares(desk, 10) == {"a": 5, "b": 5}, "they answer heartbeats, so they stay for a while"
    await asyncio.sleep(9)
    await fleet.enlist("a")
    await asyncio.sleep(2)
    assert await shares(desk, 10) == {"a": 10}, "and b is gone after linger_s"
    await fleet.close()


@virtual_time
async def test_a_server_that_is_gone_from_the_registry_and_from_the_network_is_forgotten_at_once() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    await fleet.crash("b")
    await fleet.unlist("b")
    await asyncio.sleep(0.01)
    assert [node.endpoint.address for node in client.nodes] == ["mem://a"]
    await fleet.close()


@virtual_time
async def test_a_registry_that_is_away_costs_nothing() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    fleet.store.stop()
    await asyncio.sleep(600)
    assert await shares(desk, 10) == {"a": 5, "b": 5}
    await fleet.crash("a")
    assert await shares(desk, 10) == {"b": 10}
    fleet.store.start()
    await fleet.close()


@virtual_time
async def test_a_call_waits_for_a_server_to_come() -> None:
    fleet = Fleet()
    desk = fleet.connect().stub(Desk)
    call = asyncio.create_task(desk.who())
    await asyncio.sleep(1)
    await fleet.open("a")
    assert await call == "a"
    assert now() < 1.1
    await fleet.close()


@virtual_time
async def test_without_a_server_a_call_fails_after_a_while_and_says_why() -> None:
    fleet = Fleet()
    client = fleet.connect()
    desk = client.stub(Desk)
    with pytest.raises(
        RpcError, match=r"no server of tests\.Desk can be reached: the registry lists no"
    ) as none:
        await desk.who()
    assert (none.value.code, none.value.executed, now()) == (Code.UNAVAILABLE, False, 2.0)
    await fleet.enlist("a")
    with pytest.raises(
        RpcError, match=r"mem://a: cannot connect to mem://a: connection refused"
    ) as unreachable:
        await desk.who()
    assert unreachable.value.executed is False
    assert now() == pytest.approx(4.0)
    await fleet.close()


@virtual_time
async def test_a_registry_that_never_answered_is_named_in_the_error() -> None:
    fleet = Fleet()
    fleet.store.stop()
    desk = fleet.connect().stub(Desk)
    with pytest.raises(RpcError, match="the registry has not answered yet: the store in memory is stopped"):
        await desk.who()
    fleet.store.start()
    await fleet.close()


@virtual_time
async def test_a_deadline_ends_the_wait_for_a_server() -> None:
    fleet = Fleet()
    desk = fleet.connect().stub(Desk)
    with pytest.raises(RpcError) as late:
        await rpcfw.with_options(desk, timeout_s=0.5).who()
    assert late.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    assert now() == 0.5
    await fleet.close()


@virtual_time
async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    fleet = Fleet()
    client = fleet.connect()
    desk = client.stub(Desk)
    call = asyncio.create_task(desk.who())
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert client._cluster is not None
    assert not client._cluster._pools["tests.Desk"]._waiting
    await fleet.close()


@virtual_time
async def test_closing_the_client_ends_calls_that_wait_for_a_server() -> None:
    fleet = Fleet()
    client = fleet.connect()
    desk = client.stub(Desk)
    call = asyncio.create_task(desk.who())
    await asyncio.sleep(0.5)
    await client.close()
    with pytest.raises(RpcError) as closed:
        await call
    assert closed.value.code is Code.UNAVAILABLE
    assert now() == 0.5
    with pytest.raises(RpcError, match="this client is closed"):
        await desk.who()
    await fleet.close()


@virtual_time
async def test_a_server_whose_service_does_badly_gets_no_calls_until_it_does_well() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.servers["a"].health.set("tests.Desk", Status.NOT_SERVING)
    await asyncio.sleep(3.1)
    assert await shares(desk, 10) == {"b": 10}
    fleet.servers["a"].health.set("tests.Desk", Status.SERVING)
    await asyncio.sleep(3.1)
    assert await shares(desk, 10) == {"a": 5, "b": 5}
    await fleet.close()


@virtual_time
async def test_a_draining_server_gets_no_new_calls_and_ends_those_it_has() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    desk = fleet.connect().stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].gate.clear()
    calls = [asyncio.create_task(desk.who()) for _ in range(2)]
    await until(lambda: fleet.servers["a"].running == 1)
    drain = asyncio.create_task(fleet.servers["a"].drain())
    await asyncio.sleep(0.1)
    assert await shares(desk, 10) == {"b": 10}
    fleet.desks["a"].gate.set()
    assert sorted(await asyncio.gather(*calls)) == ["a", "b"]
    await drain
    await fleet.close()


@virtual_time
async def test_a_node_that_is_taken_off_the_list_ends_its_calls_and_then_its_connection() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect(cluster={"linger_s": 0.0})
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    fleet.desks["a"].gate.clear()
    calls = [asyncio.create_task(desk.who()) for _ in range(2)]
    await until(lambda: fleet.servers["a"].running == 1)
    await fleet.unlist("a")
    await asyncio.sleep(1)
    assert fleet.servers["a"].connections == 1
    assert await shares(desk, 3) == {"b": 3}
    fleet.desks["a"].gate.set()
    assert sorted(await asyncio.gather(*calls)) == ["a", "b"]
    await asyncio.sleep(0.1)
    assert fleet.servers["a"].connections == 0
    await fleet.close()


@virtual_time
async def test_labels_and_weights_that_change_keep_the_node_and_its_connection() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await shares(desk, 4)
    node = node_of(client, "a")
    await fleet.unlist("a")
    await fleet.enlist("a", weight="7", zone="x", version="2.0")
    await asyncio.sleep(0.1)
    assert node_of(client, "a") is node
    assert (node.weight, node.version, dict(node.labels)) == (7, "2.0", {"zone": "x"})
    assert EventKind.DOWN not in fleet.kinds(of="a")
    await fleet.close()


@virtual_time
async def test_endpoints_of_a_scheme_that_the_client_lacks_are_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet()
    await fleet.open("a")
    registry = fleet._registry()
    impostor = Registration("tests.Desk", rpcfw.Endpoint.parse("tcp://127.0.0.1:1"))
    fleet.place.transports = {"mem": fleet.place.memory}
    async with registry.register(impostor):
        desk = fleet.connect().stub(Desk)
        with caplog.at_level(logging.WARNING):
            assert await shares(desk, 5) == {"a": 5}
        assert "tcp://127.0.0.1:1 is passed over: this client has mem:// only" in caplog.text
    await fleet.close()


@virtual_time
async def test_a_subset_connects_to_so_many_servers_only() -> None:
    fleet = Fleet()
    await fleet.open(*"abcdefgh")
    client = fleet.connect(cluster={"subset": 3})
    desk = client.stub(Desk)
    await desk.who()
    await asyncio.sleep(0.1)
    used = await shares(desk, 30)
    assert sorted(used.values()) == [10, 10, 10]
    assert sum(server.connections for server in fleet.servers.values()) == 3
    await fleet.crash(min(used))
    await fleet.unlist(min(used))
    await asyncio.sleep(0.1)
    assert len(await shares(desk, 30)) == 3
    await fleet.close()


@virtual_time
async def test_another_run_of_a_server_begins_with_a_clean_record() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await shares(desk, 10)
    assert node_of(client, "a").statistics.window(asyncio.get_running_loop().time())[0] > 0
    await fleet.crash("a")
    await fleet.start("a")
    await asyncio.sleep(3)
    node = node_of(client, "a")
    assert node.peer.instance == fleet.servers["a"].instance
    assert node.statistics.window(asyncio.get_running_loop().time())[0] == 0
    await fleet.close()


@virtual_time
async def test_a_server_that_has_just_started_gets_its_weight_little_by_little() -> None:
    fleet = Fleet()
    await fleet.open("a")
    client = fleet.connect(cluster={"warm_up_s": 100.0})
    desk = client.stub(Desk)
    await asyncio.sleep(200)
    await desk.who()
    await fleet.open("b")
    await asyncio.sleep(50)
    assert node_of(client, "a").weight == 100
    assert 40 <= node_of(client, "b").weight <= 60
    await asyncio.sleep(60)
    assert node_of(client, "b").weight == 100
    await fleet.close()


@virtual_time
async def test_two_services_at_one_endpoint_share_its_connection() -> None:
    @rpcfw.service("tests.Second")
    class Second:
        async def hello(self) -> str:
            return "hello"

    fleet = Fleet()
    server = await fleet.place.serve(Desk("both"), Second(), listen="mem://both")
    client = rpcfw.connect(server.endpoint, "mem://nobody", transports=fleet.place.transports)
    fleet.place.clients.append(client)
    assert await client.stub(Desk).who() == "both"
    assert await client.stub(Second).hello() == "hello"
    assert server.connections == 1
    await fleet.close()


@virtual_time
async def test_changed_labels_come_with_a_new_sequence_of_nodes() -> None:
    fleet = Fleet()
    await fleet.open("a", "b")
    client = fleet.connect()
    desk = client.stub(Desk)
    await shares(desk, 4)
    assert client._cluster is not None
    pool = client._cluster._pools["tests.Desk"]
    before = pool._ready
    await fleet.unlist("a")
    await fleet.enlist("a", zone="x")
    await asyncio.sleep(0.1)
    assert pool._ready == before
    assert pool._ready is not before, "balancers and routers keep what they derive by the sequence's identity"
    await fleet.close()


@virtual_time
async def test_a_client_may_wait_until_its_servers_are_there() -> None:
    fleet = Fleet()
    client = fleet.connect()
    ready = asyncio.create_task(client.ready(Desk, nodes=2))
    await fleet.open("a")
    await asyncio.sleep(5)
    assert not ready.done()
    await fleet.open("b")
    await ready
    assert await shares(client.stub(Desk), 10) == {"a": 5, "b": 5}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await client.ready(Desk, nodes=3)
    waiting = asyncio.create_task(client.ready(Desk, nodes=3))
    await asyncio.sleep(1)
    await client.close()
    with pytest.raises(RpcError, match="this client was closed"):
        await waiting
    await fleet.close()
