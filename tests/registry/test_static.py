"""Endpoints that never change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registry, StaticRegistry, open_registry
from rpcfw.testing import registry_contract
from rpcfw.testing.registry_contract import Check, Offers, registration
from rpcfw.testing.virtual_clock import VirtualClock


class StaticPlace:
    """What is offered is said by the next registry; one that is open does not change."""

    patience_s = 10.0

    def __init__(self) -> None:
        self._offered: dict[str, Sequence[Endpoint]] = {}

    def open(self) -> Registry:
        return StaticRegistry(self._offered)

    async def offer(self, service: str, endpoints: Sequence[Endpoint]) -> None:
        self._offered[service] = endpoints


@pytest.mark.parametrize(
    "check",
    [
        check
        for check in registry_contract.WATCHING
        if check is not registry_contract.a_watch_shows_each_change
    ],
    ids=registry_contract.name_of,
)
async def test_contract(check: Check[Offers], virtual_clock: VirtualClock) -> None:
    await check(StaticPlace())


async def urls(registry: Registry, service: str) -> list[str]:
    snapshot = await anext(registry.watch(service))
    assert all(entry.service == service for entry in snapshot)
    return sorted(str(entry.endpoint) for entry in snapshot)


async def test_a_list_of_urls_offers_every_service_with_weights_and_labels() -> None:
    registry = StaticRegistry(
        ["tcp://10.0.0.1:7000?weight=3&zone=a", Endpoint.parse("unix:///run/shop.sock")]
    )
    for service in ("shop.Orders", "shop.Stock"):
        assert await urls(registry, service) == [
            "tcp://10.0.0.1:7000?weight=3&zone=a",
            "unix:///run/shop.sock",
        ]
    with pytest.raises(RpcError, match="listed for services of any name") as caught:
        await registry.services()
    assert caught.value.code is Code.UNIMPLEMENTED
    await registry.close()


async def test_a_mapping_has_a_list_for_each_service_and_one_for_the_others() -> None:
    listed: dict[str, list[str | Endpoint]] = {"shop.Orders": ["tcp://10.0.0.1:7000"], "shop.Idle": []}
    registry = StaticRegistry(listed)
    assert await urls(registry, "shop.Orders") == ["tcp://10.0.0.1:7000"]
    assert await urls(registry, "shop.Stock") == []
    assert await registry.services() == {"shop.Orders"}
    listed["*"] = ["tcp://10.0.0.9:7000"]
    other = StaticRegistry(listed)
    assert await urls(other, "shop.Orders") == ["tcp://10.0.0.1:7000"]
    assert await urls(other, "shop.Idle") == []
    assert await urls(other, "shop.Stock") == ["tcp://10.0.0.9:7000"]


async def test_labels_that_name_files_of_this_host_are_kept_for_what_is_written_here() -> None:
    assert await urls(StaticRegistry(["tls://10.0.0.1:7000?ca=/etc/ca.pem"]), "shop.Orders") == [
        "tls://10.0.0.1:7000?ca=%2Fetc%2Fca.pem"
    ]


async def test_a_refused_registration_says_where_to_write() -> None:
    with pytest.raises(RpcError) as caught:
        async with StaticRegistry([]).register(registration()):
            pass
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "tcp://127.0.0.1:7001 cannot be registered: this list is fixed" in caught.value.message


async def test_a_url_lists_addresses() -> None:
    registry = open_registry("static://10.0.0.1:7000,[::1]:7001?scheme=tls&zone=a")
    assert await urls(registry, "shop.Orders") == ["tls://10.0.0.1:7000?zone=a", "tls://[::1]:7001?zone=a"]
    assert await urls(open_registry("static://10.0.0.1:7000"), "any") == ["tcp://10.0.0.1:7000"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["tcp://10.0.0.1"], "*: 'tcp://10.0.0.1' lacks a host or a port"),
        (["tcp://10.0.0.1:1", "tcp://10.0.0.1:1?weight=2"], "*: tcp://10.0.0.1:1 is listed twice"),
        ({"shop.Orders": "tcp://10.0.0.1:7000"}, "shop.Orders: 'tcp://10.0.0.1:7000' must be a list of URLs"),
        ({"shop.Orders": [7000]}, "shop.Orders: 7000 is not an endpoint"),
        ([f"mem://{number}" for number in range(4097)], "4,097 endpoints are more than 4,096"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(listed: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=":") as caught:
        StaticRegistry(listed)
    assert message in str(caught.value)


def test_a_url_without_addresses_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'static://' is not a list of addresses: write static://10\.0\.0\.1"
    ):
        open_registry("static://")
