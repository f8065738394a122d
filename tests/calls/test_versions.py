"""Old and new sides of an interface in one call: what is added with a default works both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

import rpcfw
from rpcfw import Code, RpcError, ServiceError
from tests.calls.place import Place


def old_side() -> Any:
    @dataclasses.dataclass
    class Item:
        name: str

    class Missing(ServiceError):
        name: str

    @rpcfw.service("tests.Shop", version="1.0")
    class Shop(Protocol):
        @rpcfw.method(raises=[Missing])
        async def find(self, name: str) -> Item: ...

        def all(self, start: int = 0) -> AsyncIterator[Item]: ...

        async def keep(self, items: AsyncIterator[Item]) -> list[str]: ...

    class Server(Shop):
        async def find(self, name: str) -> Item:
            if name == "none":
                raise Missing(name)
            return Item(name)

        async def all(self, start: int = 0) -> AsyncIterator[Item]:
            for name in "abc"[start:]:
                yield Item(name)

        async def keep(self, items: AsyncIterator[Item]) -> list[str]:
            return [item.name async for item in items]

    return SimpleNamespace(Item=Item, Missing=Missing, Shop=Shop, server=Server())


def new_side() -> Any:
    @dataclasses.dataclass
    class Item:
        name: str
        colour: str = "grey"
        tags: list[str] = dataclasses.field(default_factory=list)

    class Missing(ServiceError):
        name: str
        similar: list[str] = dataclasses.field(default_factory=list)

    @rpcfw.service("tests.Shop", version="1.1")
    class Shop(Protocol):
        @rpcfw.method(raises=[Missing])
        async def find(self, name: str, colour: str = "red", *, limit: int | None = None) -> Item: ...

        def all(self, start: int = 0, stop: int | None = 2) -> AsyncIterator[Item]: ...

        async def keep(self, items: AsyncIterator[Item], where: str = "here") -> list[str]: ...

        async def added(self) -> int: ...

    class Server(Shop):
        async def find(self, name: str, colour: str = "red", *, limit: int | None = None) -> Item:
            if name == "none":
                raise Missing(name, ["nine"])
            return Item(name, colour, [str(limit)])

        async def all(self, start: int = 0, stop: int | None = 2) -> AsyncIterator[Item]:
            for name in "abc"[start:stop]:
                yield Item(name, "blue")

        async def keep(self, items: AsyncIterator[Item], where: str = "here") -> list[str]:
            return [f"{item.name} {item.colour} {where}" async for item in items]

        async def added(self) -> int:
            return 1

    return SimpleNamespace(Item=Item, Missing=Missing, Shop=Shop, server=Server())


OLD, NEW = old_side(), new_side()


async def items(cls: Any) -> Any:
    yield cls("x")
    yield cls("y")


async def test_an_old_client_calls_a_new_server(place: Place) -> None:
    stub = place.connect(await place.serve(NEW.server)).stub(OLD.Shop)
    assert await stub.find("pen") == OLD.Item("pen")
    assert [item async for item in stub.all()] == [OLD.Item("a"), OLD.Item("b")]
    assert await stub.keep(items(OLD.Item)) == ["x grey here", "y grey here"]
    with pytest.raises(OLD.Missing) as caught:
        await stub.find("none")
    assert vars(caught.value) == {"name": "none"}


async def test_a_new_client_calls_an_old_server(place: Place) -> None:
    stub = place.connect(await place.serve(OLD.server)).stub(NEW.Shop)
    assert await stub.find("pen", "green", limit=3) == NEW.Item("pen", "grey", [])
    assert [item.name async for item in stub.all(1)] == ["b", "c"]
    assert await stub.keep(items(NEW.Item)) == ["x", "y"]
    with pytest.raises(NEW.Missing) as caught:
        await stub.find("none")
    assert vars(caught.value) == {"name": "none", "similar": []}


async def test_a_method_that_an_old_server_lacks_is_told_with_what_it_has(place: Place) -> None:
    stub = place.connect(await place.serve(OLD.server)).stub(NEW.Shop)
    with pytest.raises(
        RpcError, match=r"tests.Shop 1.0 at .* has no method 'added'; it has all, find, keep"
    ) as caught:
        await stub.added()
    assert (caught.value.code, caught.value.executed) == (Code.UNIMPLEMENTED, False)


async def test_a_parameter_added_without_a_default_is_told_by_name_before_anything_is_sent(
    place: Place,
) -> None:
    @rpcfw.service("tests.Shop", version="2.0")
    class Shop:
        async def find(self, name: str, colour: str) -> str:
            return colour

    stub = place.connect(await place.serve(Shop())).stub(OLD.Shop)
    with pytest.raises(RpcError, match=r"tests.Shop/find differs .*colour") as caught:
        await stub.find("pen")
    assert (caught.value.code, caught.value.executed) == (Code.FAILED_PRECONDITION, False)
