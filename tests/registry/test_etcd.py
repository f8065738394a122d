"""The registry in etcd, at a real one: the contract, and what etcd does that others do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registration, Registry, etcd_gateway, etcd_watch, upkeep
from rpcfw.registry.etcd import EtcdRegistry
from rpcfw.registry.etcd_gateway import Done, Gateway, Ranged, base64_of
from rpcfw.testing import registry_contract, registry_failures
from rpcfw.testing.registry_expectations import Watch, opened
from rpcfw.testing.registry_places import Check, Outages, Store, registration
from tests.registry.servers import Dying, Etcd, ServerPlace, free_port, owned

LOSING = (
    registry_failures.a_watch_goes_on_after_an_outage,
    registry_failures.registrations_are_made_again_after_an_outage,
)
"""What differs when all data is lost."""


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with owned(Etcd()) as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the keys of one test, so that all can share a server."""
    return f"test-{abs(hash(request.node.name))}"


@pytest.fixture(autouse=True)
def short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LEAVING_S", 0.3)


def place_of(etcd: Etcd, prefix: str, *, forgets: bool = False) -> ServerPlace:
    def make(port: int) -> Registry:
        return EtcdRegistry.from_url(f"etcd://127.0.0.1:{port}/{prefix}?lease_s=1&timeout_s=1")

    return ServerPlace(etcd, make, forgets=forgets)


@pytest.fixture
async def place(etcd: Etcd, prefix: str) -> AsyncIterator[ServerPlace]:
    async with place_of(etcd, prefix) as place:
        yield place


@pytest.fixture
async def gateway(etcd: Etcd, place: ServerPlace) -> AsyncIterator[Gateway]:
    gateway = Gateway([f"http://127.0.0.1:{etcd.port}"], timeout_s=2.0)
    yield gateway
    await gateway.close()


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A mark for each range that is read, and no readings but those that are necessary."""
    marks: list[str] = []
    ask = Gateway.ask

    def counted(self: Gateway, path: str, body: dict[str, Any], answer: Any) -> Any:
        if path == "kv/range":
            marks.append(path)
        return ask(self, path, body, answer)

    monkeypatch.setattr(Gateway, "ask", counted)
    monkeypatch.setattr(etcd_watch, "CHECK_S", 600.0)
    monkeypatch.setattr(etcd_watch, "_CHECK_AFTER_BREAK_S", 600.0)
    return marks


# ------------------------------------------------------------------------------------------------ the contract


@pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
async def test_contract(check: Check[Store], place: ServerPlace) -> None:
    await check(place)


@pytest.mark.parametrize("check", LOSING, ids=registry_contract.name_of)
async def test_contract_when_an_outage_loses_all_data(check: Check[Outages], etcd: Etcd, prefix: str) -> None:
    async with place_of(etcd, prefix, forgets=True) as place:
        await check(place)


# ------------------------------------------------------------------------------------------------ leases


async def test_a_killed_process_is_forgotten_when_its_lease_ends(
    place: ServerPlace, etcd: Etcd, prefix: str
) -> None:
    async with opened(place) as registry:
        watch = Watch(place, registry)
        async with Dying(f"etcd://127.0.0.1:{etcd.port}/{prefix}?lease_s=1") as process:
            await watch.until(registration())
            await process.kill()
            await watch.until()
        await watch.close()


async def test_a_key_that_was_deleted_is_put_again(place: ServerPlace, gateway: Gateway, prefix: str) -> None:
    async with opened(place) as registry, registry.register(registration()):
        watch = Watch(place, registry)
        await watch.until(registration())
        key = base64_of(f"{prefix}/shop.Orders/{registration().endpoint.address}")
        await gateway.ask("kv/deleterange", {"key": key}, Done)
        await watch.until()
        await watch.until(registration())
        await watch.close()


async def test_a_lease_that_was_revoked_is_made_again(
    place: ServerPlace, gateway: Gateway, prefix: str
) -> None:
    async with opened(place) as registry, registry.register(registration()):
        watch = Watch(place, registry)
        await watch.until(registration())
        key = base64_of(f"{prefix}/shop.Orders/{registration().endpoint.address}")
        ranged = await gateway.ask("kv/range", {"key": key}, Ranged)
        await gateway.ask("lease/revoke", {"ID": str(ranged.kvs[0].lease)}, Done)
        await watch.until()
        await watch.until(registration())
        await watch.close()


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("unix:///run/shop.sock", "not an address on a network"),
        ("tcp://0.0.0.0:7000", "where a server listens, not where it is reached"),
        (f"tcp://127.0.0.1:7000?note={'x' * 5000}", "over 4,096"),
    ],
)
async def test_what_no_client_could_use_is_not_registered(
    place: ServerPlace, endpoint: str, why: str
) -> None:
    async with opened(place) as registry:
        with pytest.raises(RpcError, match=why) as caught:
            async with registry.register(Registration("shop.Orders", Endpoint.parse(endpoint))):
                pass
        assert caught.value.code is Code.INVALID_ARGUMENT


# ------------------------------------------------------------------------------------------------ the watch


async def test_a_broken_watch_goes_on_where_it_was(place: ServerPlace, ranges: list[str]) -> None:
    async with opened(place) as client, opened(place) as server:
        watch = Watch(place, client)
        await watch.until()
        await place.relay_of(client).cut()
        async with server.register(registration(7001)), server.register(registration(7002)):
            await place.relay_of(client).open()
            await watch.until(registration(7001), registration(7002))
        await watch.until()
        assert len(ranges) == 1
        await watch.close()


async def test_after_a_compaction_the_range_is_read_anew(
    place: ServerPlace, gateway: Gateway, ranges: list[str]
) -> None:
    async with opened(place) as client, opened(place) as server:
        watch = Watch(place, client)
        async with server.register(registration(7001)):
            await watch.until(registration(7001))
            await place.relay_of(client).cut()
        async with server.register(registration(7002)):
            head = (await gateway.ask("kv/range", {"key": base64_of("none")}, Ranged)).header
            await gateway.ask("kv/compaction", {"revision": str(head.revision), "physical": True}, Done)
            before = len(ranges)
            await place.relay_of(client).open()
            await watch.until(registration(7002))
            assert len(ranges) == before + 1
        await watch.until()
        await watch.close()


async def test_a_watch_that_is_silent_is_found_out(
    place: ServerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_watch, "CHECK_S", 0.2)
    monkeypatch.setattr(etcd_watch.Follower, "_apply", lambda self, message: True)
    async with opened(place) as registry:
        watch = Watch(place, registry)
        await watch.until()
        async with registry.register(registration()):
            await watch.until(registration())
        await watch.close()


async def test_an_etcd_that_lost_its_data_costs_nobody_a_server(etcd: Etcd, prefix: str) -> None:
    async with (
        place_of(etcd, prefix, forgets=True) as place,
        opened(place) as client,
        opened(place) as alive,
        opened(place) as dying,
    ):
        one, dead, new = registration(7001), registration(7002), registration(7003)
        watch = Watch(place, client)
        seen: list[Registration] = []
        async with alive.register(one), dying.register(dead):
            await watch.until(one, dead)
            await place.crash(dying)
            await place.stop_backend()
            await place.start_backend()
            async with alive.register(new):
                while new not in seen or dead in seen:
                    async with asyncio.timeout(place.patience_s):
                        seen = [*await watch.next()]
                    assert one in seen
        await watch.close()


async def test_entries_that_are_none_are_left_out_and_told_once(
    place: ServerPlace, gateway: Gateway, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = registration(7009)
    bad = {
        "tcp://1.2.3.4:1": b"\xff",
        "unix:///run/x": b'{"service": "shop.Orders", "endpoint": "unix:///run/x"}',
        "tcp://1.2.3.4:5": other.to_json(),
    }
    with caplog.at_level(logging.WARNING, logger="rpcfw.registry"):
        async with opened(place) as registry, registry.register(registration()):
            watch = Watch(place, registry)
            await watch.until(registration())
            for _ in range(2):
                for address, value in bad.items():
                    key = base64_of(f"{prefix}/shop.Orders/{address}")
                    await gateway.ask("kv/put", {"key": key, "value": base64_of(value)}, Done)
            async with registry.register(other):
                await watch.until(registration(), other)
            await watch.close()
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 3, told


# ------------------------------------------------------------------------------------------------ members


async def test_another_member_is_used_when_one_fails(place: ServerPlace, etcd: Etcd, prefix: str) -> None:
    async with opened(place) as marker:  # its relay is the member that fails
        relay = place.relay_of(marker)
        urls = [f"http://127.0.0.1:{port}" for port in (free_port(), relay.port, etcd.port)]
        registry = EtcdRegistry(urls, prefix=prefix, lease_s=1.0)
        watch = Watch(place, registry)
        async with registry.register(registration(7001)):
            await watch.until(registration(7001))
            await relay.cut()
            async with registry.register(registration(7002)):
                await watch.until(registration(7001), registration(7002))
        await watch.until()
        await watch.close()
        await registry.close()


async def test_an_answer_that_is_too_long_is_not_read(
    place: ServerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(place) as registry:
        monkeypatch.setattr(etcd_gateway, "MAX_ANSWER_BYTES", 20)
        with pytest.raises(RpcError, match="with more than 20 bytes") as caught:
            await registry.services()
        assert caught.value.code is Code.UNAVAILABLE


async def test_an_etcd_that_is_away_is_told_with_the_mend() -> None:
    registry = EtcdRegistry(["http://127.0.0.1:1"])
    said = "etcd at http://127.0.0.1:1 cannot be reached: connection refused; check that etcd runs"
    with pytest.raises(RpcError, match=said):
        await registry.services()
    await registry.close()


async def test_what_is_not_etcd_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    registry = EtcdRegistry([f"http://127.0.0.1:{port}"])
    with pytest.raises(RpcError, match=f"etcd at http://127.0.0.1:{port} answers what is not etcd's"):
        await registry.services()
    await registry.close()
    server.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("etcd://127.0.0.1:2379/p?ttl=3", "unknown option ttl"),
        ("etcd://127.0.0.1:x/p", "is not host:port"),
        ("etcd://127.0.0.1:2379,:2380/p", "is not host:port"),
        ("etcd://127.0.0.1:2379?lease_s=0", "lease_s='0' must be a number of seconds"),
        ("etcd://127.0.0.1:2379?lease_s=nan", "lease_s='nan' must be a number of seconds"),
        ("etcd://ada:secret@127.0.0.1:2379", "takes no user"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        EtcdRegistry.from_url(url)
    assert "secret" not in str(caught.value)


def test_a_url_may_name_several_members_and_no_port() -> None:
    registry = EtcdRegistry.from_url("etcd://10.0.0.5,[::1]:2380,[::1],h:1/shop/eu?lease_s=3")
    assert registry._gateway._urls == (
        "http://10.0.0.5:2379",
        "http://[::1]:2380",
        "http://[::1]:2379",
        "http://h:1",
    )
    assert (registry._prefix, registry._lease_s) == ("shop/eu", 3.0)
