"""The registry by multicast DNS, on loopback: the contract, and what a network does that a server does not."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack

import pytest
from zeroconf import Zeroconf
from zeroconf._protocol.outgoing import DNSOutgoing

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registration, Registry
from rpcfw.registry import zeroconf as under_test
from rpcfw.registry.zeroconf import ZeroconfRegistry
from rpcfw.registry.zeroconf_announcer import Announcer
from rpcfw.registry.zeroconf_network import BURST, MAX_PACKET_BYTES
from rpcfw.registry.zeroconf_question import Asker
from rpcfw.registry.zeroconf_records import MAX_TXT_BYTES, Said, txt_of
from rpcfw.registry.zeroconf_table import MAX_IN_ALL, MAX_INCOMPLETE, MAX_OF_A_SERVICE
from rpcfw.testing import registry_contract
from rpcfw.testing.registry_expectations import Watch, opened
from rpcfw.testing.registry_places import Check, Leases, registration
from tests.registry.servers import Dying

CHECKS = (*registry_contract.REGISTERING, *registry_contract.LEASES)


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responders answer within 120 ms where nobody else asks."""
    monkeypatch.setattr(under_test, "SETTLING_S", 0.3)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """Of one test, so that none sees another's servers."""
    return f"{os.getpid()}-{abs(hash(request.node.name)) % 1_000_000}"


class NetworkPlace:
    """Loopback, in a group of its own."""

    patience_s = 8.0

    def __init__(self, group: str) -> None:
        self.url = f"zeroconf://127.0.0.1?ttl_s=1&timeout_s=1.5&group={group}"

    def open(self) -> ZeroconfRegistry:
        return ZeroconfRegistry.from_url(self.url)

    async def crash(self, registry: Registry) -> None:
        assert isinstance(registry, ZeroconfRegistry)
        registry._network.send = lambda out: None  # type: ignore[method-assign]


@pytest.fixture
def place(group: str) -> NetworkPlace:
    return NetworkPlace(group)


@pytest.mark.parametrize("check", CHECKS, ids=registry_contract.name_of)
async def test_contract(check: Check[Leases], place: NetworkPlace) -> None:
    await check(place)


async def test_a_killed_process_is_forgotten_when_its_records_are_over(place: NetworkPlace) -> None:
    async with opened(place) as registry:
        watch = Watch(place, registry)
        async with Dying(place.url) as process:
            await watch.until(registration())
            await process.kill()
            await watch.until()
        await watch.close()


async def test_who_leaves_says_so_and_is_gone_long_before_its_records_are_over(
    place: NetworkPlace, group: str
) -> None:
    async with opened(place) as client:
        watch = Watch(place, client)
        server = ZeroconfRegistry(group=group, ttl_s=120.0)
        async with server.register(registration()):
            await watch.until(registration())
        await watch.until()
        await watch.close()
        await server.close()


async def test_groups_on_one_network_do_not_see_each_other(place: NetworkPlace, group: str) -> None:
    async with (
        opened(place) as mine,
        opened(NetworkPlace(f"{group}-other")) as others,
        others.register(registration(7001)),
        mine.register(registration(7002)),
    ):
        watch = Watch(place, mine)
        await watch.until(registration(7002))
        await watch.close()


async def test_the_name_of_a_host_is_told_as_its_address(place: NetworkPlace) -> None:
    async with opened(place) as registry:
        endpoint = Endpoint.parse("tls://localhost:7000?zone=a&hostname=shop.example")
        async with registry.register(Registration("shop.Orders", endpoint)):
            watch = Watch(place, registry)
            await watch.until_endpoints(Endpoint.parse("tls://127.0.0.1:7000"))
            await watch.close()


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("unix:///run/shop.sock", "not an address on a network"),
        (
            f"tcp://127.0.0.1:7000?note={'x' * 300}",
            "note takes 307 bytes in DNS with its name, more than 255",
        ),
        (
            "tcp://127.0.0.1:7000?" + "&".join(f"label{n}={'x' * 200}" for n in range(7)),
            "bytes in DNS, more than 1,300: give it fewer or shorter labels",
        ),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(place: NetworkPlace, endpoint: str, why: str) -> None:
    async with opened(place) as registry:
        with pytest.raises(RpcError, match=why) as caught:
            async with registry.register(Registration("shop.Orders", Endpoint.parse(endpoint))):
                pass
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_the_largest_registration_fits_into_a_packet(place: NetworkPlace, group: str) -> None:
    def entry_of(last: int) -> Registration:
        sizes = (230, 230, 230, 230, last)
        labels = "&".join(f"label{number}={'x' * size}" for number, size in enumerate(sizes))
        return Registration("shop.Orders", Endpoint.parse(f"tcp://127.0.0.1:7000?{labels}"), instance="x")

    entry = entry_of(MAX_TXT_BYTES - len(txt_of(entry_of(0), group)))
    assert len(txt_of(entry, group)) == MAX_TXT_BYTES
    async with opened(place) as server, opened(place) as client, server.register(entry):
        watch = Watch(place, client)
        await watch.until(entry)
        await watch.close()


# ------------------------------------------------------------------------------------------------ one after another

FIRST_SNAPSHOT_S = 1.5


@pytest.fixture
async def three(place: NetworkPlace) -> AsyncIterator[frozenset[Registration]]:
    """Three servers, each with a registry of its own, that speak unasked only every five seconds."""
    place.url = place.url.replace("ttl_s=1&", "")
    entries = [registration(port) for port in (7001, 7002, 7003)]
    async with AsyncExitStack() as stack:
        for entry in entries:
            server = place.open()
            stack.push_async_callback(server.close)
            await stack.enter_async_context(server.register(entry))
        yield frozenset(entries)


async def first_snapshot(place: NetworkPlace, service: str = "shop.Orders") -> frozenset[Registration]:
    """What a client that starts now is shown first."""
    async with opened(place) as client, asyncio.timeout(FIRST_SNAPSHOT_S):
        watch = client.watch(service)
        first = await anext(watch)
        await watch.aclose()
        return first


async def test_clients_right_after_one_another_see_all_servers_in_their_first_snapshot(
    place: NetworkPlace, three: frozenset[Registration]
) -> None:
    for number in range(10):
        assert await first_snapshot(place) == three, f"client {number}"


async def test_clients_that_start_together_see_all_servers_in_their_first_snapshot(
    place: NetworkPlace, three: frozenset[Registration]
) -> None:
    assert await asyncio.gather(*(first_snapshot(place) for _ in range(5))) == [three] * 5


async def test_services_right_after_one_another_are_all_named(place: NetworkPlace, group: str) -> None:
    names = {"shop.Orders", "shop.Stock"}
    async with (
        Dying(place.url),
        opened(place) as server,
        server.register(registration(7002, service="shop.Stock")),
    ):
        for _ in range(5):
            async with opened(place) as client, asyncio.timeout(FIRST_SNAPSHOT_S):
                assert await client.services() == names


@pytest.mark.parametrize("fault", ["slow", "lost"])
async def test_a_server_that_answers_late_or_only_when_asked_again_is_in_the_first_snapshot(
    place: NetworkPlace, three: frozenset[Registration], fault: str
) -> None:
    late = registration(7004)
    async with opened(place) as server, server.register(late):
        assert isinstance(server, ZeroconfRegistry)
        receive = server._network.receive
        questions: list[bytes] = []

        def faulty(data: bytes, source: str, answer: Callable[[], None]) -> None:
            if data[2] & 0x80:
                receive(data, source, answer)
                return
            questions.append(data)
            if fault == "slow":
                asyncio.get_running_loop().call_later(0.17, receive, data, source, answer)
            elif len(questions) > 1:
                receive(data, source, answer)

        server._network.receive = faulty  # type: ignore[method-assign]
        assert await first_snapshot(place) == three | {late}


async def test_that_nobody_offers_a_service_is_not_said_because_others_have_answered(
    place: NetworkPlace, three: frozenset[Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "SETTLING_S", 1.0)
    only = registration(7004, service="shop.Stock")
    async with opened(place) as server, server.register(only):
        assert isinstance(server, ZeroconfRegistry)
        receive = server._network.receive

        def slow(data: bytes, source: str, answer: Callable[[], None]) -> None:
            if data[2] & 0x80:
                receive(data, source, answer)
            else:
                asyncio.get_running_loop().call_later(0.5, receive, data, source, answer)

        server._network.receive = slow  # type: ignore[method-assign]
        assert await first_snapshot(place, "shop.Stock") == {only}


async def test_who_is_known_already_does_not_answer_again(
    place: NetworkPlace, three: frozenset[Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(place) as client:
        assert isinstance(client, ZeroconfRegistry)
        await client.services()
        assert client._table.of("shop.Orders") == three
        answers: dict[bytes, int] = {}
        all_answered = asyncio.Event()

        def counted(self: Asker, data: bytes, source: tuple[object, ...]) -> None:
            answers[data[:2]] = answers.get(data[:2], 0) + 1
            if answers.get(asker._asked[-1]) == len(three):
                all_answered.set()

        monkeypatch.setattr(Asker, "receive", counted)
        asker = client._network._asker
        asker.ask(client._table.left_s(asyncio.get_running_loop().time()))
        asker.ask({})
        async with asyncio.timeout(FIRST_SNAPSHOT_S):
            await all_answered.wait()
        assert [*answers] == [asker._asked[-1]], "nobody answers the question that names them"


async def test_an_answer_counts_only_from_a_responder_and_to_a_question_that_was_asked() -> None:
    taken: list[bytes] = []
    asker = Asker(lambda data, source: taken.append(data), random.Random(1))
    asker.ask({})
    number = random.Random(1).getrandbits(16).to_bytes(2)
    other = bytes(byte ^ 1 for byte in number)
    response, query = b"\x84\x00", b"\x00\x00"
    asker.receive(number + response, ("127.0.0.1", 5354))
    asker.receive(other + response, ("127.0.0.1", 5353))
    asker.receive(number + query, ("127.0.0.1", 5353))
    asker.receive(b"", ("127.0.0.1", 5353))
    assert not taken
    asker.receive(number + response, ("127.0.0.1", 5353))
    assert taken == [number + response]


# ------------------------------------------------------------------------------------------------ outages


async def test_a_network_without_multicast_is_a_problem_with_a_mend(
    place: NetworkPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*what: object) -> None:
        """Not sent, and so not heard: not even the answers that the library gives to questions from before."""

    async with opened(place) as server, opened(place) as client:
        watch = Watch(place, client)
        async with server.register(registration(7001)):
            await watch.until(registration(7001))
            with monkeypatch.context() as broken:
                assert isinstance(client, ZeroconfRegistry)
                client._network.ask()  # and the library would answer this one, with all it knows by then
                broken.setattr(Zeroconf, "async_send", nothing)
                broken.setattr(Asker, "ask", nothing)
                with pytest.raises(
                    RpcError, match=r"what is sent there is not heard; .* use another registry"
                ) as caught:
                    async with server.register(registration(7002)):
                        pass
                assert caught.value.code is Code.UNAVAILABLE
                assert "multicast DNS on 127.0.0.1 does not work" in server.problem
            async with server.register(registration(7003)):
                await watch.until(registration(7001), registration(7003))
                assert not server.problem
        await watch.close()


async def test_an_interface_that_this_host_has_not_is_a_problem() -> None:
    registry = ZeroconfRegistry("203.0.113.7", timeout_s=0.5)
    with pytest.raises(RpcError, match=r"203\.0\.113\.7") as caught:
        await registry.services()
    assert caught.value.code is Code.UNAVAILABLE
    assert "203.0.113.7 is not an address of this host" in registry.problem
    await registry.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("zeroconf://eth0", "neither 'all' nor an address of this host"),
        ("zeroconf://0.0.0.0", "write zeroconf://all"),
        ("zeroconf://127.0.0.1:5353", "more than an interface"),
        ("zeroconf://?ttl_s=600", "must be from 1 to 120 seconds"),
        ("zeroconf://?group=" + "x" * 64, "longer than 63 bytes"),
        ("zeroconf://?lease_s=3", "unknown option lease_s"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ZeroconfRegistry.from_url(url)


# ------------------------------------------------------------------------------------------------ who may speak


async def test_by_default_nothing_leaves_or_enters_loopback(place: NetworkPlace) -> None:
    registry = ZeroconfRegistry.from_url("zeroconf://")
    threads = threading.active_count()
    async with registry.register(registration()):
        library = registry._network._zeroconf
        assert library is not None
        assert {sender.sock_name[0] for sender in library.zeroconf.engine.senders} == {"127.0.0.1"}
        known = len(registry._table)
        registry._network.receive(packet(7099, ""), "192.0.2.77", lambda: pytest.fail("answered"))
        assert len(registry._table) == known
        registry._network.receive(packet(7099, ""), "127.0.0.1", lambda: pytest.fail("answered"))
        assert len(registry._table) == known + 1
        assert threading.active_count() == threads
    await registry.close()


async def test_what_is_not_dns_harms_nothing(place: NetworkPlace) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    async with opened(place) as registry, registry.register(registration()):
        assert isinstance(registry, ZeroconfRegistry)
        whole = packet(7099, "")
        for _ in range(2000):
            data = bytearray(whole)
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            registry._network.receive(bytes(data[: rng.randrange(len(data) + 1)]), "127.0.0.1", lambda: None)
        watch = Watch(place, registry)
        await watch.until(registration())
        await watch.close()


def packet(port: int, group: str, service: str = "shop.Orders", label: str = "f" * 16) -> bytes:
    """An announcement as anybody may send it."""
    made: list[bytes] = []

    class Wire:
        async def open(self) -> None: ...

        def announce(self, info: object) -> None:
            from zeroconf import Zeroconf

            out = DNSOutgoing(0x8400)
            Zeroconf._add_broadcast_answer(None, out, info, None)  # type: ignore[arg-type]
            made.extend(out.packets())

    async def announce() -> None:
        wire = Wire()
        announcer = Announcer(wire, group=group, owner="x", ttl_s=60, heard=lambda label: None)  # type: ignore[arg-type]
        info = await announcer._info(registration(port, service=service))
        wire.announce(info)

    coroutine = announce()
    with pytest.raises(StopIteration):  # it awaits nothing that waits
        coroutine.send(None)
    (data,) = made
    mine = data[data.index(b"\x10") + 1 :][:16]
    return data.replace(mine, label.encode())


def flood(count: int, group: str) -> Iterator[bytes]:
    """Announcements of so many servers that do not exist, of some services."""
    templates = [packet(7099, group, f"shop.S{number}") for number in range(8)]
    templates.append(packet(7099, group))
    for number in range(count):
        yield templates[number % len(templates)].replace(b"f" * 16, b"%016x" % number)


async def test_a_flood_costs_no_memory_and_little_time_and_forgets_nobody(
    place: NetworkPlace, group: str
) -> None:
    async with opened(place) as server, opened(place) as client, server.register(registration()):
        assert isinstance(client, ZeroconfRegistry)
        watch = Watch(place, client)
        await watch.until(registration())
        packets = [*flood(20_000, group)]
        read: list[object] = []
        hear = client._network._heard

        def counted(said: Mapping[str, Said]) -> None:
            read.append(None)
            hear(said)

        client._network._heard = counted
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number, data in enumerate(packets):
            client._network.receive(data, "127.0.0.1", lambda: None)
            if number % 1000 == 0:
                await asyncio.sleep(0)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(read) < BURST + 8000, "the others are dropped unread"
        assert len(client._table) <= MAX_IN_ALL + MAX_INCOMPLETE
        assert after - before < 20_000_000
        assert registration() in client._table.of("shop.Orders")
        await watch.until_true(lambda found: registration() in found, "the one that is true")
        await watch.close()


async def test_a_flood_through_the_network_leaves_a_server_where_it_was(
    place: NetworkPlace, group: str
) -> None:
    async with opened(place) as server, opened(place) as client, opened(place) as attacker:
        assert isinstance(attacker, ZeroconfRegistry)
        async with server.register(registration()):
            watch = Watch(place, client)
            await watch.until(registration())
            await attacker.services()
            library = attacker._network._zeroconf
            assert library is not None
            (sender,) = library.zeroconf.engine.senders
            for number, data in enumerate(flood(5000, group)):
                sender.transport.sendto(data, ("224.0.0.251", 5353))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            async with server.register(registration(7002, service="shop.Calm")):
                calm = Watch(place, client, "shop.Calm")
                await calm.until(registration(7002, service="shop.Calm"))
                await calm.close()
            await watch.until_true(lambda found: registration() in found, "the one that is true")
            assert len(client._table) <= MAX_IN_ALL + MAX_INCOMPLETE  # type: ignore[attr-defined]
            await watch.close()


def test_bounds_are_those_that_are_told() -> None:
    assert (MAX_OF_A_SERVICE, MAX_IN_ALL, MAX_PACKET_BYTES) == (1000, 4000, 2048)
