"""Each request has a task and a context of its own: nothing that a handler does to its task reaches the next one.

The requests come in one read, where it would be cheapest to serve them in one task (docs/decisions/0003-dispatch.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest_asyncio

import rpcfw
from rpcfw import current_call
from tests.calls.place import Place, until
from tests.calls.rawpeer import RawPeer

NOBODY: dict[str, str] = {}
SESSION: ContextVar[dict[str, str]] = ContextVar("session", default=NOBODY)
MANY = 40


@rpcfw.service("tests.Contract")
class Office:
    """Handlers that leave something in their task."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go = asyncio.Event()
        self.kept: dict[asyncio.Task[Any], int] = {}
        self.released: list[int] = []
        self.left: list[asyncio.Task[int]] = []

    async def quick(self, number: int) -> str:
        self.begun.append(number)
        return _task().get_name()

    async def slow(self, number: int) -> str:
        self.begun.append(number)
        await self.go.wait()
        return _task().get_name()

    async def equal(self, number: int) -> bool:
        found, mine = SESSION.get(), dict[str, str]()  # equals the one that was there, and is another
        SESSION.set(mine)
        return found is NOBODY

    async def kept_by_task(self, number: int) -> int:
        return self.kept.setdefault(_task(), number)

    async def with_callback(self, number: int) -> None:
        _task().add_done_callback(lambda _: self.released.append(number))

    async def cancelled_and_not(self, number: int) -> None:
        _task().cancel()
        _task().uncancel()

    async def renamed(self, number: int) -> str:
        _task().set_name(f"job {number}")
        await asyncio.sleep(0)
        return _task().get_name()

    async def leaving(self, number: int) -> None:
        async def later() -> int:
            await self.go.wait()
            return int(current_call().arguments[0])

        self.left.append(asyncio.create_task(later()))


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Asked:
    """An office, and a peer that sends all its requests in one write."""

    def __init__(self, office: Office, server: rpcfw.Server, peer: RawPeer) -> None:
        self.office, self.server, self.peer = office, server, peer

    def send(self, *names: str) -> range:
        """Numbers of the calls, as streams and as arguments."""
        first = self.peer.last_stream + 1
        numbers = range(first, first + len(names))
        requests = [
            self.peer.request(name, {"number": number}) for name, number in zip(names, numbers, strict=True)
        ]
        self.peer.write(b"".join(requests))
        return numbers

    async def replies(self, numbers: range) -> list[Any]:
        return [await self.peer.reply(number) for number in numbers]


@pytest_asyncio.fixture
async def asked(here: Place) -> AsyncIterator[Asked]:
    SESSION.set(NOBODY)  # in the context that the server starts in
    office = Office()
    server = await here.serve(office)
    peer = await RawPeer.connect(server)
    yield Asked(office, server, peer)
    office.go.set()
    await peer.close()


async def test_a_context_variable_set_to_an_equal_value_is_the_next_ones_as_it_was(asked: Asked) -> None:
    assert await asked.replies(asked.send(*["equal"] * 4)) == [True] * 4


async def test_what_is_kept_by_a_task_is_the_calls_own(asked: Asked) -> None:
    numbers = asked.send(*["kept_by_task"] * 4)
    assert await asked.replies(numbers) == list(numbers)


async def test_a_callback_on_the_task_is_called_when_the_handler_has_ended(asked: Asked) -> None:
    numbers = asked.send("with_callback", "slow", "with_callback")
    await until(lambda: len(asked.office.released) == 2)
    assert asked.office.released == [numbers[0], numbers[2]]


async def test_a_cancellation_that_was_taken_back_hits_nobody_else(asked: Asked) -> None:
    numbers = asked.send("quick", "cancelled_and_not", "slow", "quick")
    await until(lambda: len(asked.office.begun) == 3)
    asked.office.go.set()
    assert await asked.peer.reply(numbers[2]) == "tests.Contract/slow"


async def test_a_task_has_the_name_of_its_method_or_what_its_handler_calls_it(asked: Asked) -> None:
    asked.office.go.set()
    numbers = asked.send("quick", "renamed", "slow", "quick")
    quick, slow = "tests.Contract/quick", "tests.Contract/slow"
    assert await asked.replies(numbers) == [quick, f"job {numbers[1]}", slow, quick]


async def test_handlers_begin_in_the_order_of_their_requests_in_one_turn_whichever_wait(asked: Asked) -> None:
    numbers = asked.send(*["slow", "quick"] * MANY)
    await until(lambda: bool(asked.office.begun))
    assert asked.office.begun == list(numbers)


async def test_what_a_handler_leaves_behind_knows_whose_it_is(asked: Asked) -> None:
    numbers = asked.send(*["leaving"] * MANY)
    await asked.replies(numbers)
    asked.office.go.set()
    assert await asyncio.gather(*asked.office.left) == list(numbers)
