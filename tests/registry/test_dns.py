"""Endpoints from DNS, asked of real name servers over loopback; when to ask again, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registration, Registry, open_registry
from rpcfw.registry.dns import DnsRegistry
from rpcfw.registry.dns_endpoints import MAX_TARGETS, DnsOptions, Finder
from rpcfw.registry.dns_lookup import Answer, LookupFailed, Resolver, Target
from rpcfw.testing import registry_contract
from rpcfw.testing.registry_contract import Check, Offers
from rpcfw.testing.virtual_clock import VirtualClock
from tests.registry.name_server import DNSMASQ, NameServer, OwnNameServer, Record, dnsmasq, own_name_server

ORDERS = "shop.Orders"
FAST = "min_ttl_s=0.02&max_ttl_s=0.02&timeout_s=5"


@pytest.fixture
async def own() -> AsyncIterator[OwnNameServer]:
    async with own_name_server() as server:
        yield server


@pytest.fixture(params=["own", *(["dnsmasq"] if DNSMASQ else [])])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NameServer]:
    if request.param == "own":
        async with own_name_server() as made:
            yield made
    else:
        async with dnsmasq(tmp_path) as process:
            yield process


def opened(server: NameServer, rest: str) -> DnsRegistry:
    registry = open_registry(f"dns://127.0.0.1:{server.port}/{rest}")
    assert isinstance(registry, DnsRegistry)
    return registry


async def first(registry: Registry, service: str = ORDERS) -> list[str]:
    """The endpoints of the first snapshot; the registry is closed then."""
    watch = registry.watch(service)
    async with asyncio.timeout(10.0):
        snapshot = await anext(watch)
    await registry.close()
    return sorted(str(entry.endpoint) for entry in snapshot)


# ----------------------------------------------------------------------------------------------- contract


class DnsPlace:
    """SRV records, one name for each service."""

    patience_s = 10.0

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._offered: dict[str, list[Record]] = {}

    def open(self) -> Registry:
        return opened(self._server, f"_{{service}}._tcp.test?{FAST}")

    async def offer(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        name = f"_{service.lower().replace('.', '-')}._tcp.test"
        self._offered[service] = [
            (name, "SRV", f"1 {endpoint.weight} {endpoint.port} a.test.") for endpoint in endpoints
        ]
        services = [record for records in self._offered.values() for record in records]
        await self._server.serve([("a.test", "A", "127.0.0.1"), *services])


@pytest.mark.parametrize("check", registry_contract.WATCHING, ids=registry_contract.name_of)
async def test_contract(check: Check[Offers], server: NameServer) -> None:
    await check(DnsPlace(server))


# ------------------------------------------------------------------------------------------------ records


async def test_addresses_of_a_name_take_the_port_of_the_url(server: NameServer) -> None:
    await server.serve([("shop.test", "A", "127.0.0.2"), ("shop.test", "A", "127.0.0.1")])
    found = await first(opened(server, "shop.test:7000?zone=a&weight=50"))
    assert found == ["tcp://127.0.0.1:7000?weight=50&zone=a", "tcp://127.0.0.2:7000?weight=50&zone=a"]


async def test_ipv6_is_used_where_there_is_no_ipv4(server: NameServer) -> None:
    both = [("both.test", "A", "127.0.0.1"), ("both.test", "AAAA", "::1")]
    await server.serve([("six.test", "AAAA", "::1"), *both])
    assert await first(opened(server, "six.test:7000")) == ["tcp://[::1]:7000"]
    assert await first(opened(server, "both.test:7000")) == ["tcp://127.0.0.1:7000"]
    assert await first(opened(server, "both.test:7000?family=6")) == ["tcp://[::1]:7000"]
    assert await first(opened(server, "both.test:7000?family=any")) == [
        "tcp://127.0.0.1:7000",
        "tcp://[::1]:7000",
    ]


async def test_only_the_lowest_priority_of_srv_records_is_used(server: NameServer) -> None:
    await server.serve(
        [
            ("a.test", "A", "127.0.0.1"),
            ("b.test", "A", "127.0.0.2"),
            ("_orders._tcp.test", "SRV", "10 60 7001 a.test."),
            ("_orders._tcp.test", "SRV", "10 40 7002 b.test."),
            ("_orders._tcp.test", "SRV", "20 100 7003 b.test."),
        ]
    )
    found = await first(opened(server, "_orders._tcp.test"))
    assert found == ["tcp://127.0.0.1:7001?weight=60", "tcp://127.0.0.2:7002?weight=40"]


async def test_a_name_that_does_not_exist_has_no_endpoints_and_is_a_problem(server: NameServer) -> None:
    registry = opened(server, "typo.test:7000")
    assert await anext(registry.watch(ORDERS)) == frozenset()
    assert registry.problem == "typo.test does not exist in DNS"
    await registry.close()


async def test_a_name_that_appears_is_seen(server: NameServer) -> None:
    registry = opened(server, f"late.test:7000?{FAST}")
    watch = registry.watch(ORDERS)
    assert await anext(watch) == frozenset()
    await server.serve([("late.test", "A", "127.0.0.1")])
    assert [entry.endpoint.address for entry in await anext(watch)] == ["tcp://127.0.0.1:7000"]
    assert registry.problem == ""
    await registry.close()


async def test_an_answer_too_large_for_a_datagram_is_taken_over_tcp(own: OwnNameServer) -> None:
    await own.serve([("many.test", "A", f"127.0.{high}.{low}") for high in (1, 2) for low in range(1, 101)])
    found = await first(opened(own, "many.test:7000"))
    assert len(found) == 200
    assert own.over_tcp == 1


async def test_the_last_answer_holds_while_the_name_server_fails(
    own: OwnNameServer, caplog: pytest.LogCaptureFixture
) -> None:
    await own.serve([("shop.test", "A", "127.0.0.1")])
    registry = opened(own, f"shop.test:7000?{FAST}")
    watch = registry.watch(ORDERS)
    assert len(await anext(watch)) == 1
    own.failing.add("shop.test")
    after = asyncio.ensure_future(anext(watch))
    while not registry.problem:
        await asyncio.sleep(0.01)
    assert "cannot look up A of shop.test" in registry.problem
    assert "SERVFAIL" in registry.problem
    assert not after.done()
    await own.serve([("shop.test", "A", "127.0.0.2")])
    own.failing.clear()
    assert [entry.endpoint.address for entry in await after] == ["tcp://127.0.0.2:7000"]
    assert registry.problem == ""
    assert [record.message for record in caplog.records if "the last answer still holds" in record.message]
    await registry.close()


async def test_a_silent_name_server_is_a_problem_within_the_timeout(own: OwnNameServer) -> None:
    own.silent.add("shop.test")
    registry = opened(own, "shop.test:7000?timeout_s=0.05")
    waiting = asyncio.ensure_future(anext(registry.watch(ORDERS), None))
    async with asyncio.timeout(4.0):  # less than dnspython's own, which are five
        while not registry.problem:
            await asyncio.sleep(0.01)
    assert not waiting.done()
    await registry.close()
    assert await waiting is None


async def test_closing_while_a_question_is_open_leaves_nothing(own: OwnNameServer) -> None:
    own.silent.add("shop.test")
    registry = opened(own, "shop.test:7000?timeout_s=60")
    waiting = asyncio.ensure_future(anext(registry.watch(ORDERS), None))
    while not own.asked:
        await asyncio.sleep(0.01)
    await registry.close()
    assert await waiting is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_services_of_one_name_share_its_questions_and_the_last_watcher_ends_them(
    own: OwnNameServer,
) -> None:
    await own.serve([("shop.test", "A", "127.0.0.1")])
    registry = opened(own, f"shop.test:7000?{FAST}")
    one, other = registry.watch(ORDERS), registry.watch("shop.Stock")
    assert {entry.service for entry in await anext(one)} == {ORDERS}
    assert {entry.service for entry in await anext(other)} == {"shop.Stock"}
    assert len(registry._followed) == 1
    await one.aclose()
    await own.serve([("shop.test", "A", "127.0.0.2")])
    assert {entry.endpoint.host for entry in await anext(other)} == {"127.0.0.2"}
    await other.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(await anext(registry.watch(ORDERS))) == 1
    await registry.close()


async def test_dns_does_not_list_services() -> None:
    registry = DnsRegistry("shop.test", 7000, lookup=Planned())
    with pytest.raises(RpcError, match="DNS does not list services") as caught:
        await registry.services()
    assert caught.value.code is Code.UNIMPLEMENTED


# ------------------------------------------------------------------------------------- a planned name server


class Planned:
    """Answers with what stands in it; a text is a failure."""

    def __init__(self) -> None:
        self.hosts: dict[str, Answer | str] = {}
        self.srv: Answer | str = Answer((), 0.0)
        self.asked_at: list[float] = []

    async def addresses(self, host: str, kind: str) -> Answer:
        if kind == "A":
            self.asked_at.append(asyncio.get_running_loop().time())
            return _given(self.hosts.get(host, Answer((), None, exists=False)))
        return Answer(())

    async def targets(self, name: str) -> Answer:
        return _given(self.srv)


def _given(answer: Answer | str) -> Answer:
    if isinstance(answer, str):
        raise LookupFailed(answer)
    return answer


def finder(lookup: Planned, **options: str) -> Finder:
    return Finder("_orders._tcp.shop.test", None, lookup, DnsOptions(**options))  # type: ignore[arg-type]


def targets(*weights: int) -> Answer:
    return Answer(
        tuple(Target(1, weight, f"h{number}", 7000 + number) for number, weight in enumerate(weights)), 60.0
    )


async def weights_of(*weights: int) -> list[int]:
    lookup = Planned()
    lookup.srv = targets(*weights)
    lookup.hosts = {f"h{number}": Answer((f"10.0.0.{number}",), 60.0) for number in range(len(weights))}
    found = await finder(lookup).find()
    return [endpoint.weight for endpoint in sorted(found.endpoints, key=lambda endpoint: endpoint.port)]


async def test_srv_weights_are_shares_and_zero_is_a_small_one() -> None:
    assert await weights_of(60, 40) == [60, 40]
    assert await weights_of(0, 0) == [100, 100]
    assert await weights_of(0, 3) == [1, 300]


async def test_a_srv_host_without_an_answer_keeps_its_last_address() -> None:
    lookup = Planned()
    lookup.srv = targets(1, 1)
    lookup.hosts = {"h0": Answer(("10.0.0.1",), 60.0), "h1": Answer(("10.0.0.2",), 30.0)}
    names = finder(lookup)
    found = await names.find()
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.1", "10.0.0.2"]
    assert (found.ttl_s, found.problem) == (30.0, "")
    lookup.hosts = {"h0": Answer(("10.0.0.9",), 60.0), "h1": "no answer for h1"}
    found = await names.find()
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.9", "10.0.0.2"]
    assert (found.ttl_s, found.problem) == (0.0, "no answer for h1")  # asked again soon
    lookup.hosts["h0"] = "no answer for h0"
    with pytest.raises(LookupFailed, match="no answer for h0"):
        await names.find()
    lookup.hosts = {"h1": Answer(("10.0.0.2",), 60.0)}
    found = await names.find()
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.2"]
    assert found.problem == "h0 does not exist in DNS"


async def test_with_tls_servers_prove_the_name_that_was_looked_up() -> None:
    lookup = Planned()
    lookup.srv = targets(1)
    lookup.hosts = {"h0": Answer(("10.0.0.1",), 60.0), "shop.test": Answer(("10.0.0.2",), 60.0)}
    by_srv = await finder(lookup, scheme="tls").find()
    assert [str(endpoint) for endpoint in by_srv.endpoints] == [
        "tls://10.0.0.1:7000?weight=1&hostname=shop.test"
    ]
    by_name = await Finder("shop.test", 7443, lookup, DnsOptions(scheme="tls")).find()
    assert [str(endpoint) for endpoint in by_name.endpoints] == ["tls://10.0.0.2:7443?hostname=shop.test"]
    told = DnsOptions(scheme="tls", labels={"hostname": "other.test"})
    by_label = await Finder("shop.test", 7443, lookup, told).find()
    assert [str(endpoint) for endpoint in by_label.endpoints] == ["tls://10.0.0.2:7443?hostname=other.test"]


async def test_a_bounded_number_of_srv_records_is_looked_up(caplog: pytest.LogCaptureFixture) -> None:
    lookup = Planned()
    lookup.srv = Answer(tuple(Target(1, 1, f"h{number}", 7000) for number in range(MAX_TARGETS + 5)), 60.0)
    lookup.hosts = {
        f"h{number}": Answer((f"10.0.{number >> 8}.{number & 255}",), 60.0)
        for number in range(MAX_TARGETS + 5)
    }
    found = await finder(lookup).find()
    assert len(found.endpoints) == MAX_TARGETS == len(lookup.asked_at)
    assert f"{MAX_TARGETS + 5} SRV records" in caplog.text


async def asked_for(lookup: Planned, seconds: float, options: DnsOptions) -> list[float]:
    """The pauses between the questions that a registry asks in so many seconds."""
    registry = DnsRegistry("shop.test", 7000, lookup=lookup, options=options, rng=random.Random(7))
    watching = asyncio.ensure_future(_read(registry))
    await asyncio.sleep(seconds)
    await registry.close()
    await watching
    return [later - earlier for earlier, later in zip(lookup.asked_at, lookup.asked_at[1:], strict=False)]


async def _read(registry: DnsRegistry) -> list[frozenset[Registration]]:
    return [snapshot async for snapshot in registry.watch(ORDERS)]


@pytest.mark.parametrize(("ttl_s", "pause_s"), [(60.0, 60.0), (1.0, 5.0), (86_400.0, 300.0)])
async def test_it_is_asked_again_when_the_answer_runs_out_within_bounds(
    ttl_s: float, pause_s: float, virtual_clock: VirtualClock
) -> None:
    lookup = Planned()
    lookup.hosts = {"shop.test": Answer(("10.0.0.1",), ttl_s)}
    pauses = await asked_for(lookup, 20 * pause_s, DnsOptions())
    assert 17 <= len(pauses) <= 19
    assert all(pause_s <= pause <= pause_s * 1.1 + 1e-6 for pause in pauses)
    assert len(set(pauses)) > 1  # not all clients at once


async def test_it_is_asked_again_ever_less_often_while_it_fails(virtual_clock: VirtualClock) -> None:
    lookup = Planned()
    lookup.hosts = {"shop.test": "no answer"}
    pauses = await asked_for(lookup, 300.0, DnsOptions())
    for pause, least in zip(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], strict=False):
        assert least <= pause <= least * 1.1


async def test_the_same_failure_is_logged_once(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    lookup = Planned()
    lookup.hosts = {"shop.test": "no answer"}
    with caplog.at_level(logging.WARNING):
        await asked_for(lookup, 300.0, DnsOptions())
    assert [record.message for record in caplog.records] == ["no answer"]


# --------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("dns:///shop.test", "lacks a port: write shop.test:7000, or the name of an SRV record"),
        ("dns://10.0.0.1", "after the name server comes a name"),
        ("dns:///a/b:1", "after the name server comes a name"),
        ("dns:///shop.test:x", "port 'x' must be a number"),
        ("dns:///shop.test:0", "port 0 must be from 1 to 65535"),
        ("dns://ns.test/shop.test:7000", "the name server 'ns.test' must be an IP address"),
        ("dns:///shop.test:7000?scheme=unix", "scheme='unix' has no addresses in DNS"),
        ("dns:///shop.test:7000?family=5", "family='5' must be one of auto, 4, 6, any"),
        ("dns:///shop.test:7000?min_ttl_s=0", "min_ttl_s=0 and max_ttl_s=300"),
        ("dns:///shop.test:7000?min_ttl_s=soon", "min_ttl_s='soon' must be a number"),
        ("dns:///shop.test:7000?timeout_s=0", "timeout_s=0 must be above 0"),
        ("dns:///shop.test:7000?weight=1.5", "weight='1.5' must be a whole number"),
    ],
)
def test_a_wrong_url_is_refused_with_the_mend(url: str, message: str) -> None:
    with pytest.raises(ValueError, match="dns://") as caught:
        open_registry(url)
    assert message in str(caught.value)


def test_without_dnspython_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    with pytest.raises(ImportError, match=r"pip install 'rpcfw\[dns\]'"):
        open_registry("dns:///shop.test:7000")


async def test_without_name_servers_of_this_system_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.resolver

    def unconfigured(self: object, path: str) -> None:
        raise dns.resolver.NoResolverConfiguration("no nameservers")  # type: ignore[no-untyped-call]

    resolver = Resolver()
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", unconfigured)
    with pytest.raises(LookupFailed, match="cannot look up A of shop: no nameservers"):
        await resolver.addresses("shop", "A")
