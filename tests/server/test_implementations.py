"""What is served must be written: an interface's own empty method is no implementation."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import pytest

import rpcfw
from rpcfw import InterfaceError

T_contra = TypeVar("T_contra", contravariant=True)


class Store(Protocol[T_contra]):
    async def put(self, item: T_contra) -> None: ...


@rpcfw.service("tests.Orders")
class Orders(Store[int], Protocol):
    async def get(self, order_id: int) -> int | None:
        """The order, None where there is none."""

    def watch(self, user: str) -> AsyncIterator[int]: ...

    def count(self) -> int | None:
        pass

    async def limit(self) -> int:
        return 5

    async def all(self) -> AsyncIterator[int]:
        """None, unless written otherwise."""
        if False:
            yield 0


class Whole(Orders):
    async def put(self, item: int) -> None:
        """Nothing is kept here, and that is on purpose."""

    async def get(self, order_id: int) -> int | None:
        return order_id

    async def watch(self, user: str) -> AsyncIterator[int]:
        yield 1

    def count(self) -> int:
        return 1


METHODS = {"put": "Store", "get": "Orders", "watch": "Orders", "count": "Orders"}
"""Those without a body, and where they are declared."""


async def refusal(implementation: Any) -> str:
    with pytest.raises(InterfaceError) as caught:
        rpcfw.serve(implementation)
    return str(caught.value)


@pytest.mark.parametrize(("attribute", "owner"), METHODS.items())
async def test_a_method_left_to_its_interface_is_refused_by_name(attribute: str, owner: str) -> None:
    half = type("Half", (Orders,), {name: vars(Whole)[name] for name in METHODS if name != attribute})
    assert await refusal(half()) == (
        f"Half lacks the method {attribute!r} of tests.Orders: it inherits that of {owner}, which has no body; "
        "write it in Half"
    )


async def test_a_default_with_a_body_may_be_kept() -> None:
    async with rpcfw.serve(Whole()) as server, rpcfw.connect(server.endpoint) as client:
        stub = client.stub(Orders)  # type: ignore[type-abstract,unused-ignore]
        assert await stub.limit() == 5
        await stub.put(3)
        everything: Any = stub.all()
        assert [item async for item in everything] == []


@rpcfw.service("tests.Empty")
class Empty:
    async def ping(self) -> None:
        """Answering is all it does."""


async def test_a_concrete_class_is_its_own_implementation() -> None:
    async with rpcfw.serve(Empty()) as server, rpcfw.connect(server.endpoint) as client:
        await client.stub(Empty).ping()


@rpcfw.service("tests.Abstract")
class Abstract:
    @abc.abstractmethod
    async def get(self) -> int:
        return 1


async def test_an_abstract_method_is_refused_where_python_does_not_refuse_it() -> None:
    lax: Any = type("Lax", (Abstract,), {})  # Abstract is no ABC, so Python makes an instance
    assert "lacks the method 'get' of tests.Abstract" in await refusal(lax())


async def test_a_method_given_to_the_instance_counts() -> None:
    class Borrowing(Whole):
        get = Orders.get

        def __init__(self) -> None:
            async def get(order_id: int) -> int:
                return -order_id

            self.get = get  # type: ignore[method-assign,assignment,unused-ignore]

    async with rpcfw.serve(Borrowing()) as server, rpcfw.connect(server.endpoint) as client:
        assert await client.stub(Orders).get(3) == -3  # type: ignore[type-abstract,unused-ignore]
