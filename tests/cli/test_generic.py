"""Calls by name, from a schema alone."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

import rpcfw
from rpcfw.generic import GenericError, generic_stub, service_from_schema, services_of
from rpcfw.interface import service_schema, spec_of


class OutOfStock(rpcfw.ServiceError):
    left: int = 0
    more: str = ""


class Closed(Exception):
    pass


@dataclasses.dataclass
class Item:
    sku: str
    data: bytes = b""


@rpcfw.service("shop.Stock", version="3")
class Stock:
    @rpcfw.method(raises=[OutOfStock, Closed])
    async def take(self, count: int = 1, *, item: Item) -> Item:
        if count > 5:
            raise OutOfStock(5)
        if count == 0:
            raise Closed("until", 7)
        return Item(item.sku * count, item.data)

    async def load(self, items: AsyncIterator[Item], factor: int = 10) -> int:
        return factor * len([item async for item in items])

    def watch(self, count: int) -> AsyncIterator[Item]:
        return self._watch(count)

    async def _watch(self, count: int) -> AsyncIterator[Item]:
        for number in range(count):
            yield Item(str(number))


@pytest.fixture
async def client() -> AsyncIterator[rpcfw.Client]:
    async with rpcfw.serve(Stock()) as server, rpcfw.connect(server.endpoint) as connected:
        yield connected


async def some_items() -> AsyncIterator[dict[str, str]]:
    for sku in "ab":
        yield {"sku": sku}


async def test_arguments_with_a_default_are_left_to_the_server(client: rpcfw.Client) -> None:
    stub = await generic_stub(client, "shop.Stock")
    assert await stub.call("take", item={"sku": "x"}) == {"sku": "x", "data": b""}
    assert await stub.call("take", item={"sku": "x", "data": b"\xff"}, count=2) == {
        "sku": "xx",
        "data": b"\xff",
    }


async def test_streams_go_both_ways(client: rpcfw.Client) -> None:
    stub = await generic_stub(client, "shop.Stock")
    assert await stub.call("load", items=some_items()) == 20
    assert [item["sku"] async for item in stub.stream("watch", count=2)] == ["0", "1"]


async def test_a_declared_error_arrives_with_its_name_and_fields(client: rpcfw.Client) -> None:
    stub = await generic_stub(client, "shop.Stock")
    with pytest.raises(GenericError) as caught:
        await stub.call("take", item={"sku": "x"}, count=6)
    error = caught.value
    assert dataclasses.is_dataclass(error)
    assert (type(error).__name__, str(error)) == ("OutOfStock", "left=5, more=''")
    with pytest.raises(GenericError) as caught:
        await stub.call("take", item={"sku": "x"}, count=0)
    assert (type(caught.value).__name__, caught.value.args) == ("Closed", ("until", 7))


async def test_options_of_a_stub_hold_for_generic_calls(client: rpcfw.Client) -> None:
    replied: dict[str, str | bytes] = {}
    stub = (await generic_stub(client, "shop.Stock")).with_options(timeout_s=5, reply_metadata=replied)
    assert (await stub.call("take", item={"sku": "x"}))["sku"] == "x"


async def test_the_server_validates_what_is_sent(client: rpcfw.Client) -> None:
    stub = await generic_stub(client, "shop.Stock")
    with pytest.raises(rpcfw.RpcError, match=r"item\.sku: expected `str`, got `int`") as caught:
        await stub.call("take", item={"sku": 7})
    assert caught.value.code is rpcfw.Code.INVALID_ARGUMENT


async def test_unknown_services_and_methods_are_told_with_those_that_exist(client: rpcfw.Client) -> None:
    with pytest.raises(rpcfw.RpcError, match=r"there are shop\.Stock"):
        await generic_stub(client, "shop.Stok")
    stub = await generic_stub(client, "shop.Stock")
    with pytest.raises(rpcfw.RpcError, match="it has take, load, watch") as caught:
        stub.call("tke")
    assert caught.value.code is rpcfw.Code.UNIMPLEMENTED
    assert [service.name for service in await services_of(client)] == ["shop.Stock"]


async def test_wrong_arguments_and_the_wrong_kind_of_call_are_mistakes_of_the_program(
    client: rpcfw.Client,
) -> None:
    stub = await generic_stub(client, "shop.Stock")
    with pytest.raises(TypeError, match="no parameter 'itm'"):
        stub.call("take", itm={})
    with pytest.raises(TypeError, match="lacks the argument 'item'"):
        stub.call("take")
    with pytest.raises(TypeError, match=r"use \.stream\('watch'"):
        stub.call("watch", count=1)
    with pytest.raises(TypeError, match=r"use \.call\('take'"):
        stub.stream("take", item={})


def test_a_service_made_from_a_schema_has_the_fingerprints_of_the_declared_one() -> None:
    spec = spec_of(Stock)
    made = service_from_schema(service_schema(spec))
    assert (made.name, made.version) == ("shop.Stock", "3")
    assert {m.name: m.fingerprint for m in made.methods.values()} == {
        m.name: m.fingerprint for m in spec.methods.values()
    }
