"""Generated classes at work: what a stub is given, a skeleton receives, over a real connection."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

import rpcfw
import rpcfw.blocking
from tests.codegen.conftest import Project

CONTRACT = """
@rpcfw.service("test.Kinds")
class Kinds(Protocol):
    async def unary(self, order: Order, *, note: str = "none", factor: int = 1) -> Order: ...
    @rpcfw.method(name="otherName")
    def plain(self, self_: int) -> tuple[int, ...]: ...
    async def nothing(self) -> None: ...
    def out(self, count: int) -> AsyncIterator[Order]: ...
    async def into(self, orders: AsyncIterator[Order], start: int) -> int: ...
    def both(self, words: AsyncIterator[str]) -> AsyncIterator[str]: ...

@rpcfw.service("test.Concrete")
class Concrete:
    def hello(self, name: str) -> str:
        return f"hello {name}"
"""
SERVER = """
from collections.abc import AsyncIterator
from contract import Order
from stubs import KindsSkeleton

class Server(KindsSkeleton):
    async def unary(self, order, *, note="none", factor=1):
        return Order(order.id * factor + len(note))
    def plain(self, self_):
        return (self_, self_)
    async def nothing(self):
        return None
    async def out(self, count):
        for number in range(count):
            yield Order(number)
    async def into(self, orders, start):
        return start + sum([order.id async for order in orders])
    async def both(self, words):
        async for word in words:
            yield word.upper()
"""


@pytest.fixture
def made(project: Project) -> Project:
    project.module("contract.py", CONTRACT)
    project.write("contract", "stubs")
    project.module("server.py", SERVER, head="")
    return project


async def given(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def test_a_generated_stub_makes_all_four_kinds_of_call(made: Project) -> None:
    server, stubs, contract = made.load("server"), made.loaded("stubs"), made.loaded("contract")
    async with (
        rpcfw.serve(server.Server(), contract.Concrete()) as running,
        rpcfw.connect(running.endpoint) as client,
    ):
        kinds, concrete = stubs.KindsStub(client), stubs.ConcreteStub(client)
        order = contract.Order
        assert await kinds.unary(order(20), factor=2) == order(44)
        assert await kinds.unary(order=order(20), note="") == order(20)
        assert await kinds.plain(3) == (3, 3)
        assert await kinds.nothing() is None
        assert [item async for item in kinds.out(3)] == [order(0), order(1), order(2)]
        assert await kinds.into(given(order(1), order(2)), 10) == 13
        assert [word async for word in kinds.both(given("a", "b"))] == ["A", "B"]
        assert await concrete.hello("Ada") == "hello Ada"


async def test_a_generated_blocking_stub_makes_all_four_kinds_of_call(made: Project) -> None:
    server, stubs, contract = made.load("server"), made.loaded("stubs"), made.loaded("contract")

    def call(endpoint: rpcfw.Endpoint) -> list[Any]:
        with rpcfw.blocking.connect(endpoint) as client:
            kinds, order = stubs.KindsBlockingStub(client), contract.Order
            return [
                kinds.unary(order(20), factor=2),
                kinds.plain(3),
                kinds.nothing(),
                list(kinds.out(2)),
                kinds.into([order(1), order(2)], 10),
                list(kinds.both(["a", "b"])),
            ]

    async with rpcfw.serve(server.Server()) as running:
        results = await asyncio.to_thread(call, running.endpoint)
    order = contract.Order
    assert results == [order(44), (3, 3), None, [order(0), order(1)], 13, ["A", "B"]]


def test_a_generated_class_has_the_signatures_of_the_interface(made: Project) -> None:
    stubs, contract = made.load("stubs"), made.loaded("contract")
    for name in ("unary", "plain", "out", "into", "both"):
        interface = inspect.signature(getattr(contract.Kinds, name))
        for cls in (stubs.KindsStub, stubs.KindsSkeleton):
            assert inspect.signature(getattr(cls, name)) == interface
    assert inspect.iscoroutinefunction(stubs.ConcreteStub.hello)
    assert not inspect.iscoroutinefunction(stubs.KindsSkeleton.plain)


def test_a_skeleton_cannot_be_made_without_its_methods(made: Project) -> None:
    stubs: ModuleType = made.load("stubs")
    with pytest.raises(TypeError, match="both"):
        stubs.KindsSkeleton()


async def test_defaults_without_a_source_form_are_those_of_the_interface(project: Project) -> None:
    project.module(
        "contract.py",
        """
        import datetime
        SECOND = datetime.timedelta(seconds=1)

        @rpcfw.service("test.Defaults")
        class Defaults:
            async def wait(self, pause: datetime.timedelta = SECOND, marks: tuple[int, ...] = (1, 2)) -> str:
                return f"{pause} {marks}"
        """,
    )
    project.write("contract", "stubs")
    stubs, contract = project.load("stubs"), project.loaded("contract")
    assert inspect.signature(stubs.DefaultsStub.wait).parameters["pause"].default is contract.SECOND
    async with (
        rpcfw.serve(contract.Defaults()) as running,
        rpcfw.connect(running.endpoint) as client,
    ):
        assert await stubs.DefaultsStub(client).wait() == "0:00:01 (1, 2)"
