"""The runner by itself: when which call begins, turn by turn of the loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

import rpcfw
from rpcfw.call import Call, current_call
from rpcfw.connection.exchange import Entry, ServerExchange
from rpcfw.connection.method import codec_of
from rpcfw.connection.runner import Runner

NOTE: ContextVar[str] = ContextVar("note", default="")
MANY = 40


@rpcfw.service("tests.Runner")
class Interface:
    """Two methods."""

    async def quick(self) -> None: ...

    async def slow(self) -> None: ...


class Owner:
    """Notes which call begins; those of `slow` wait."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.runner.open()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.notes: list[str] = []
        self.go = asyncio.Event()
        methods = rpcfw.spec_of(Interface).methods
        self.entries = {name: Entry(codec_of(methods[name]), self._never) for name in ("quick", "slow")}
        self.then: dict[int, Any] = {}

    async def _never(self, call: Call) -> None:
        raise AssertionError("the owner runs it")

    def add(self, number: int, name: str = "quick") -> ServerExchange:
        entry = self.entries[name]
        exchange = ServerExchange(None, entry.codec, 0.0)  # type: ignore[arg-type]  # no session is needed
        self.runner.add((self, exchange, entry, Call(entry.spec, (number,), exchange=exchange), number))
        return exchange

    async def run(self, exchange: ServerExchange, entry: Entry, call: Call, stream: int, /) -> None:
        assert current_call() is call
        assert exchange.task is asyncio.current_task()
        self.begun.append(stream)
        self.notes.append(NOTE.get())
        if stream in self.then:
            self.then[stream]()
        if entry is self.entries["slow"]:
            await self.go.wait()
        self.ended.append(stream)
        exchange.ended, exchange.task = True, None


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_one_that_goes_on_leaves_those_alone_that_are_about_to_begin() -> None:
    owner = Owner()
    owner.add(1, "slow")
    await turns(2)
    owner.go.set()
    owner.add(2)
    owner.add(3)
    await turns(3)
    assert (owner.begun, owner.ended) == ([1, 2, 3], [1, 2, 3])
    owner.add(4)
    await turns(2)
    assert owner.ended == [1, 2, 3, 4]


@pytest.mark.parametrize("waited_before", [False, True])
async def test_all_calls_of_a_method_that_waits_have_begun_after_a_few_turns(*, waited_before: bool) -> None:
    owner = Owner()
    if waited_before:
        owner.add(0, "slow")
        await turns(3)
    numbers = range(len(owner.begun), MANY)
    for number in numbers:
        owner.add(number, "slow")
    await turns(5)
    assert owner.begun == list(range(MANY))
    owner.go.set()
    await turns(3)
    assert sorted(owner.ended) == list(range(MANY))


@pytest.mark.parametrize("name", ["quick", "slow"])
async def test_a_call_that_has_ended_before_its_turn_does_not_begin(name: str) -> None:
    owner = Owner()
    owner.entries[name].alone = 2
    exchanges = [owner.add(number, name) for number in range(4)]
    for exchange in exchanges[::2]:
        exchange.ended = True
    await turns(5)
    assert owner.begun == [1, 3]
    owner.go.set()
    await turns(2)


async def test_one_that_comes_amid_a_handler_begins_after_those_before_it() -> None:
    owner = Owner()
    owner.then[1] = lambda: owner.add(4, "slow")
    for number, name in enumerate(("slow", "quick", "quick"), 1):
        owner.add(number, name)
    await turns(5)
    assert owner.begun == [1, 2, 3, 4]
    owner.go.set()
    await turns(2)


async def test_handlers_see_nothing_of_the_context_that_their_requests_came_in() -> None:
    owner = Owner()
    came_in = copy_context()
    came_in.run(NOTE.set, "of the caller")
    for number in range(3):
        came_in.run(owner.add, number)
    came_in.run(owner.add, 3, "slow")
    came_in.run(owner.add, 4, "slow")
    await turns(5)
    assert owner.notes == [""] * 5
    owner.go.set()
    await turns(2)


async def test_an_error_that_ends_the_task_costs_no_other_call(caplog: pytest.LogCaptureFixture) -> None:
    class Ending(BaseException):
        """No Exception, and not asyncio's."""

    def end() -> None:
        raise Ending

    owner = Owner()
    owner.then[1] = end
    for number in range(4):
        owner.add(number)
    await turns(5)
    owner.add(4)
    await turns(2)
    assert owner.begun == [0, 1, 2, 3, 4]
