"""Names for single servers: bound, taken, lost, looked up; and the URLs of all this."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme

import rpcfw
from rpcfw import Code, RpcError, naming
from rpcfw.naming import NamingRegistry
from rpcfw.naming.address import endpoints_of
from rpcfw.registry import is_registry_url, open_registry
from rpcfw.testing import Host, Simulation, simulate
from tests.naming.places import QUIET, Shop, Stock, serve_names


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A registry that has been there for a while."""
    async with naming.serve("tcp://127.0.0.1:0", lease_s=0.2) as server:
        async with rpcfw.connect(server.endpoint) as client:
            while (await client.stub(naming.NameService).find("x")).settling_s:
                await asyncio.sleep(0.02)
        yield f"rpcfw://127.0.0.1:{server.endpoint.port}"


@contextlib.asynccontextmanager
async def refused(code: Code, why: str) -> AsyncIterator[None]:
    with pytest.raises(RpcError, match=why) as caught:
        yield
    assert caught.value.code is code


async def refuses(manager: AbstractAsyncContextManager[object], code: Code, why: str) -> None:
    async with refused(code, why), manager:
        pass


# ------------------------------------------------------------------------------------------------ lookup


async def test_a_bound_name_is_a_stub_of_its_server(url: str) -> None:
    async with rpcfw.serve(Shop("one")) as server, naming.bind(f"{url}/orders", server) as binding:
        async with naming.lookup(f"{url}/orders", Shop) as orders:
            assert await orders.who() == "one"
        known = await naming.names(url)
        assert [*known] == ["orders"]
        assert known["orders"] == binding.registration
        assert (known["orders"].service, known["orders"].instance) == ("shop.Orders", server.instance)
        assert not binding.lost
    assert await naming.names(url) == {}


async def test_the_client_of_a_stub_that_was_looked_up_is_closed_at_the_end(url: str) -> None:
    async with rpcfw.serve(Shop()) as server, naming.bind(f"{url}/orders", server):
        async with naming.lookup(f"{url}/orders", Shop) as orders:
            await orders.who()
            assert server.connections == 1
        async with refused(Code.FAILED_PRECONDITION, "this client is closed"):
            await orders.who()


async def test_an_unknown_name_is_not_found_and_those_like_it_are_told(url: str) -> None:
    await refuses(naming.lookup(f"{url}/orders", Shop), Code.NOT_FOUND, "'orders' is not bound; no name is$")
    async with (
        rpcfw.serve(Shop()) as server,
        naming.bind(f"{url}/Shop orders", server),
        naming.bind(f"{url}/stock", server),
    ):
        with pytest.raises(RpcError) as caught:
            async with naming.lookup(f"{url}/shop%20order", Shop):
                pass
        assert caught.value.message == "'shop order' is not bound; is it 'Shop orders'?"
        assert caught.value.details == {"near": ["Shop orders"]}


async def test_a_name_of_another_service_is_refused_with_both(url: str) -> None:
    async with rpcfw.serve(Stock()) as server, naming.bind(f"{url}/stock", server):
        why = "'stock' stands for shop.Stock at tcp://127.0.0.1:.*, not for shop.Orders"
        await refuses(naming.lookup(f"{url}/stock", Shop), Code.FAILED_PRECONDITION, why)


async def test_a_registry_that_is_away_is_told_as_such() -> None:
    url = "rpcfw://127.0.0.1:1/orders?timeout_s=0.2"
    actions: list[Callable[[], Awaitable[object]]] = [
        lambda: naming.lookup(url, Shop).__aenter__(),
        lambda: naming.bind(url, "tcp://127.0.0.1:7000", Shop).__aenter__(),
        lambda: naming.unbind(url),
        lambda: naming.names("rpcfw://127.0.0.1:1?timeout_s=0.2"),
    ]
    for act in actions:
        async with refused(
            Code.UNAVAILABLE, "the registry rpcfw://127.0.0.1:1 cannot be reached: connection refused"
        ):
            await act()


# ------------------------------------------------------------------------------------------------ bind


async def test_a_name_that_is_bound_is_not_bound_again_until_it_is_free(url: str) -> None:
    async with rpcfw.serve(Shop("one")) as one, rpcfw.serve(Shop("two")) as two:
        async with naming.bind(f"{url}/orders", one):
            await refuses(
                naming.bind(f"{url}/orders", two),
                Code.ALREADY_EXISTS,
                f"to shop.Orders at {one.endpoint.address}",
            )
            async with naming.lookup(f"{url}/orders", Shop) as orders:
                assert await orders.who() == "one"
        async with naming.bind(f"{url}/orders", two), naming.lookup(f"{url}/orders", Shop) as orders:
            assert await orders.who() == "two"


async def test_rebinding_takes_a_name_and_who_had_it_hears_of_it(url: str) -> None:
    async with (
        rpcfw.serve(Shop("one")) as one,
        rpcfw.serve(Shop("two")) as two,
        naming.bind(f"{url}/orders", one) as first,
    ):
        async with naming.lookup(f"{url}/orders", Shop) as before, naming.rebind(f"{url}/orders", two):
            assert await before.who() == "one"  # a stub stays with its server
            async with naming.lookup(f"{url}/orders", Shop) as after:
                assert await after.who() == "two"
            while not first.lost:
                await asyncio.sleep(0.01)
            assert f"bound anew, to shop.Orders at {two.endpoint.address}" in first.lost
        assert await naming.names(url) == {}  # and does not come back


async def test_leaving_does_not_touch_who_has_taken_the_name(url: str) -> None:
    async with (
        rpcfw.serve(Shop("one")) as one,
        rpcfw.serve(Shop("two")) as two,
        contextlib.AsyncExitStack() as first,
    ):
        await first.enter_async_context(naming.bind(f"{url}/orders", one))
        async with naming.rebind(f"{url}/orders", two):
            await first.aclose()
            assert [known.endpoint.port for known in (await naming.names(url)).values()] == [
                two.endpoint.port
            ]


async def test_anybody_may_unbind(url: str) -> None:
    async with rpcfw.serve(Shop()) as server, naming.bind(f"{url}/orders", server) as binding:
        await naming.unbind(f"{url}/orders")
        while not binding.lost:
            await asyncio.sleep(0.01)
        assert binding.lost == "'orders' was unbound"
        assert await naming.names(url) == {}
        async with refused(Code.NOT_FOUND, "'orders' is not bound"):
            await naming.unbind(f"{url}/orders")


async def test_one_process_does_not_bind_a_name_twice_but_may_rebind_it(url: str) -> None:
    registry = NamingRegistry.from_url(url)
    one, two = (
        rpcfw.Registration("shop.Orders", rpcfw.Endpoint.parse(f"tcp://127.0.0.1:700{n}")) for n in (1, 2)
    )
    async with registry.bind("orders", one) as held:
        await refuses(registry.bind("orders", two), Code.ALREADY_EXISTS, "by this very process")
        async with registry.bind("orders", two, replace=True):
            assert held.lost
            assert (await naming.names(url))["orders"] == two
    assert await naming.names(url) == {}
    await registry.close()


async def test_draining_a_server_gives_its_name_back_first(url: str) -> None:
    async with rpcfw.serve(Shop()) as server, naming.bind(f"{url}/orders", server):
        await server.drain()
        assert await naming.names(url) == {}


async def test_an_endpoint_is_bound_with_its_interface(url: str) -> None:
    async with (
        rpcfw.serve(Shop("one")) as server,
        naming.bind(f"{url}/orders", server.endpoint.address, Shop),
        naming.lookup(f"{url}/orders", Shop) as orders,
    ):
        assert await orders.who() == "one"


async def test_of_several_services_one_is_chosen(url: str) -> None:
    async with rpcfw.serve(Shop(), Stock()) as server:
        with pytest.raises(ValueError, match=r"which service of shop\.Orders, shop\.Stock\?"):
            async with naming.bind(f"{url}/it", server):
                pass
        async with naming.bind(f"{url}/it", server, Stock), naming.lookup(f"{url}/it", Stock) as stock:
            assert await stock.left() == 3
    async with rpcfw.serve(Stock()) as server:
        with pytest.raises(ValueError, match=r"the server has no shop\.Orders; it has shop\.Stock"):
            async with naming.bind(f"{url}/it", server, Shop):
                pass
    with pytest.raises(ValueError, match=r"which service of tcp://127\.0\.0\.1:7000"):
        async with naming.bind(f"{url}/it", "tcp://127.0.0.1:7000"):
            pass
    with pytest.raises(ValueError, match="is not serving yet"):
        async with naming.bind(f"{url}/it", rpcfw.serve(Stock())):
            pass


async def test_a_server_that_listens_everywhere_is_bound_where_it_is_said_to_be(url: str) -> None:
    async with rpcfw.serve(Shop("one"), listen="tcp://0.0.0.0:0") as server:
        await refuses(
            naming.bind(f"{url}/orders", server),
            Code.INVALID_ARGUMENT,
            "is where a server listens, not where it is reached",
        )
        place = f"tcp://127.0.0.1:{server.endpoint.port}"
        bound, found = (
            naming.bind(f"{url}/orders", server, advertise=place),
            naming.lookup(f"{url}/orders", Shop),
        )
        async with bound, found as orders:
            assert await orders.who() == "one"


async def test_cancelling_a_bind_leaves_nothing(url: str) -> None:
    for turns in range(12):
        task = asyncio.create_task(naming.bind(f"{url}/orders", "tcp://127.0.0.1:7000", Shop).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with naming.bind(f"{url}/stock", "tcp://127.0.0.1:7000", Stock):
        assert [*await naming.names(url)] == ["stock"]


# ------------------------------------------------------------------------------------------------ over time


async def bound_at(host: Host) -> None:
    server = rpcfw.serve(Shop(host.name), listen=f"tcp://{host.name}:7000", limits=QUIET)
    async with server, naming.bind("rpcfw://names/orders", server):
        await server.wait_closed()


async def names_now() -> list[str]:
    return [*await naming.names("rpcfw://names")]


def test_a_name_ends_with_the_lease_of_a_dead_binder() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.host("names", serve_names)
        shop = simulation.host("one", bound_at)
        await asyncio.sleep(60.0)
        assert await names_now() == ["orders"]
        died_at = simulation.elapsed_s
        shop.crash()
        await refuses(
            naming.bind("rpcfw://names/orders", "tcp://two:7000", Shop),
            Code.ALREADY_EXISTS,
            "'orders' is bound already",
        )
        while await names_now():
            await asyncio.sleep(0.1)
        assert 6.5 < simulation.elapsed_s - died_at < 10.5
        async with naming.bind("rpcfw://names/orders", "tcp://two:7000", Shop):
            assert await names_now() == ["orders"]

    simulate(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_a_registry_that_was_restarted_knows_a_name_by_the_time_it_is_looked_up(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = simulation.host("names", serve_names)
        simulation.host("one", bound_at)
        await asyncio.sleep(20.0)
        names.crash()
        await asyncio.sleep(simulation.rng.uniform(0.0, 30.0))
        names.restart()
        async with naming.lookup("rpcfw://names/orders", Shop) as orders:
            assert await orders.who() == "one"

    simulate(scenario, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_who_lost_a_name_does_not_take_it_back_after_a_restart_of_the_registry(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = simulation.host("names", serve_names)
        lost: list[str] = []

        async def rebinding(host: Host) -> None:
            server = rpcfw.serve(Shop(host.name), listen=f"tcp://{host.name}:7000", limits=QUIET)
            async with server, naming.rebind("rpcfw://names/orders", server) as binding:
                await asyncio.sleep(300.0)
                lost.append(binding.lost)

        simulation.host("one", rebinding)
        await asyncio.sleep(5.0)
        simulation.host("two", rebinding)
        await asyncio.sleep(5.0)
        for _ in range(3):
            names.crash()
            await asyncio.sleep(simulation.rng.uniform(0.0, 20.0))
            names.restart()
            async with naming.lookup("rpcfw://names/orders", Shop) as orders:
                assert await orders.who() == "two"
            await asyncio.sleep(12.0)
        await asyncio.sleep(300.0)
        assert [bool(text) for text in lost] == [True, False]

    simulate(scenario, seed=seed)


# ------------------------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rpcfw://h:x/orders", "'h:x' is not host:port; write rpcfw://"),
        ("rpcfw://h:70000/orders", "is not host:port"),
        ("rpcfw://::1/orders", "is not host:port"),
        ("rpcfw://a:1,/orders", "'' is not host:port"),
        ("rpcfw://h:1/orders?ttl=3", "unknown option ttl"),
        ("rpcfw://h:1/orders?timeout_s=0", "must be a number of seconds"),
        ("rpcfw://h:1/orders?tls=maybe", "tls='maybe' must be 1 or 0"),
        ("rpcfw://h:1/orders?tls=0&ca=ca.pem", "tls=0 contradicts ca"),
        ("rpcfw://ada:secret@h:1/orders", "takes no user"),
        ("rpcfw://h:1", "lacks a name"),
        ("rpcfw://h:1/a%0Ab", "must be printable text"),
        ("tcp://h:1/orders", "does not begin with rpcfw://"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        naming.bind(url, "tcp://127.0.0.1:7000", Shop)
    assert "secret" not in str(caught.value)


def test_a_url_may_name_several_registries_and_no_port() -> None:
    endpoints, name, timeout_s = endpoints_of("rpcfw://10.0.0.5,[::1]:7500,[::1],h:1/shop/orders?timeout_s=2")
    assert [endpoint.address for endpoint in endpoints] == [
        "tcp://10.0.0.5:7400",
        "tcp://[::1]:7500",
        "tcp://[::1]:7400",
        "tcp://h:1",
    ]
    assert (name, timeout_s) == ("shop/orders", 2.0)
    (endpoint,), *_ = endpoints_of("rpcfw://h?ca=ca.pem&hostname=names")
    assert (endpoint.scheme, dict(endpoint.labels)) == ("tls", {"ca": "ca.pem", "hostname": "names"})
    (endpoint,), *_ = endpoints_of("rpcfw://h?tls=1")
    assert endpoint.scheme == "tls"


async def test_the_scheme_is_known_to_all_who_open_registries() -> None:
    assert is_registry_url("rpcfw://127.0.0.1:7400")
    registry = open_registry("rpcfw://127.0.0.1:7400")
    assert isinstance(registry, NamingRegistry)
    await registry.close()
    with pytest.raises(ValueError, match="is a name in a registry"):
        open_registry("rpcfw://127.0.0.1:7400/orders")
    with pytest.raises(ValueError, match="needs an endpoint"):
        NamingRegistry([])


async def test_a_registry_behind_tls_is_reached_with_its_authority(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "names.pem")
    listen = f"tls://127.0.0.1:0?cert={tmp_path}/names.pem"
    async with naming.serve(listen) as server, rpcfw.serve(Shop("one")) as shop:
        url = f"rpcfw://127.0.0.1:{server.endpoint.port}"
        async with rpcfw.register(shop, f"{url}?ca={tmp_path}/ca.pem") as membership:
            await membership.registered.wait()
            async with rpcfw.connect(f"{url}?ca={tmp_path}/ca.pem") as client:
                assert await client.stub(Shop).who() == "one"
        async with refused(Code.UNAVAILABLE, rf"{url}\?tls=1 cannot be reached: .* with ca= in its URL"):
            await naming.names(f"{url}?tls=1&timeout_s=1")
