"""Handlers that share a task as long as none of them waits, and do not notice that they do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

import rpcfw
from rpcfw import current_call
from rpcfw.connection.runner import Runner
from rpcfw.wire.frames import RESET, frame
from tests.calls.place import Place, until
from tests.calls.rawpeer import RawPeer

NOTE: ContextVar[str] = ContextVar("note", default="")
MANY = 40


def own_task() -> Any:
    """The current task, numbered, since it is not to be known by a reference to it."""
    task: Any = asyncio.current_task()
    if not hasattr(task, "number"):
        task.number = next(_numbers)
    return task


_numbers = itertools.count(1)


@rpcfw.service("tests.Contract")
class Office:
    """Says which task runs a handler, and what it finds there."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.tasks: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.go = asyncio.Event()
        self.kept: MutableMapping[Any, int] = {}
        self.left: list[asyncio.Task[int]] = []

    def _begin(self, number: int) -> None:
        self.begun.append(number)
        self.tasks[number] = own_task().number

    async def quick(self, number: int) -> str:
        self._begin(number)
        return NOTE.get()

    async def slow(self, number: int) -> str:
        self._begin(number)
        await self.go.wait()
        assert own_task().number == self.tasks[number]
        self.names[number] = own_task().get_name()
        return NOTE.get()

    async def noting(self, number: int) -> str:
        self._begin(number)
        NOTE.set(f"of {number}")
        return NOTE.get()

    async def ending_itself(self, number: int) -> str:
        self._begin(number)
        own_task().cancel()
        return "done"

    async def keeping(self, number: int) -> int:
        self._begin(number)
        return self.kept.setdefault(own_task(), number)

    async def failing(self, number: int) -> str:
        self._begin(number)
        raise LookupError(f"of {number}")

    async def leaving(self, number: int) -> str:
        self._begin(number)

        async def later() -> int:
            await self.go.wait()
            return int(current_call().arguments[0])

        self.left.append(asyncio.create_task(later()))
        return ""


class Asked:
    """An office, and a peer that sends all its requests in one write."""

    def __init__(self, office: Office, server: rpcfw.Server, peer: RawPeer) -> None:
        self.office, self.server, self.peer = office, server, peer

    def send(self, *names: str) -> range:
        """Numbers of the calls, as streams and as arguments."""
        first = self.peer.last_stream + 1
        numbers = range(first, first + len(names))
        self.peer.write(
            b"".join(
                self.peer.request(name, {"number": number})
                for name, number in zip(names, numbers, strict=True)
            )
        )
        return numbers

    async def replies(self, numbers: range) -> list[Any]:
        return [await self.peer.reply(number) for number in numbers]

    def tasks(self, numbers: range) -> list[int]:
        return [self.office.tasks[number] for number in numbers]


@pytest_asyncio.fixture
async def asked(here: Place) -> AsyncIterator[Asked]:
    office = Office()
    server = await here.serve(office)
    peer = await RawPeer.connect(server)
    yield Asked(office, server, peer)
    await peer.close()


async def test_handlers_that_do_not_wait_share_a_task(asked: Asked) -> None:
    numbers = asked.send(*["quick"] * MANY)
    assert await asked.replies(numbers) == [""] * MANY
    assert len(set(asked.tasks(numbers))) == 1
    assert asked.office.begun == list(numbers)


async def test_a_handler_that_waits_has_its_task_to_itself(asked: Asked) -> None:
    numbers = asked.send("quick", "slow", *["quick"] * 3)
    await until(lambda: len(asked.office.begun) == 5)
    more = asked.send(*["quick"] * 3)
    await asked.replies(more)
    tasks = asked.tasks(numbers)
    assert tasks[0] is tasks[1]
    assert tasks[1] not in tasks[2:] + asked.tasks(more)
    assert asked.office.begun == [*numbers, *more]
    asked.office.go.set()
    await asked.replies(numbers)
    assert asked.office.names == {numbers[1]: "tests.Contract/slow"}
    last = asked.send("quick")
    await asked.replies(last)
    assert asked.tasks(last) != [tasks[1]]


async def test_all_that_wait_run_at_once_and_begin_in_their_order(asked: Asked) -> None:
    numbers = asked.send(*["slow", "slow", "quick"] * MANY)
    await until(lambda: len(asked.office.begun) == 3 * MANY)
    assert asked.office.begun == list(numbers)
    assert asked.server.running == 2 * MANY
    slow = [asked.office.tasks[number] for number in numbers if number % 3]
    assert len(set(slow)) == 2 * MANY
    asked.office.go.set()
    await asked.replies(numbers)


async def test_methods_that_have_stopped_waiting_share_a_task_again(asked: Asked) -> None:
    numbers = asked.send(*["slow"] * 4)
    await until(lambda: len(asked.office.begun) == 4)
    asked.office.go.set()
    await asked.replies(numbers)
    for _ in range(3):
        numbers = asked.send(*["slow"] * MANY)
        await asked.replies(numbers)
    assert len(set(asked.tasks(numbers))) == 1


async def test_what_a_handler_sets_in_its_context_does_not_reach_the_next(asked: Asked) -> None:
    numbers = asked.send("quick", "noting", "quick", "quick", "noting", "quick")
    assert await asked.replies(numbers) == ["", f"of {numbers[1]}", "", "", f"of {numbers[4]}", ""]
    assert asked.office.begun == list(numbers)


@pytest.mark.parametrize("kept", [dict, WeakKeyDictionary])
async def test_what_is_kept_by_the_task_of_a_handler_does_not_reach_the_next(
    asked: Asked, kept: Callable[[], MutableMapping[Any, int]]
) -> None:
    asked.office.kept = kept()
    numbers = asked.send("quick", "keeping", "keeping", "quick", "keeping")
    assert await asked.replies(numbers) == ["", 2, 3, "", 5]
    assert asked.office.begun == list(numbers)


async def test_a_handler_that_cancels_its_own_task_cancels_no_other(asked: Asked) -> None:
    numbers = asked.send("ending_itself", "slow", "quick")
    await until(lambda: len(asked.office.begun) == 3)
    asked.office.go.set()
    assert await asked.replies(numbers) == ["done", "", ""]


async def test_a_handler_that_fails_fails_alone(asked: Asked) -> None:
    numbers = asked.send("quick", "failing", "quick")
    await asked.peer.reply(numbers[0])
    assert (await asked.peer.refusal(numbers[1])).code is rpcfw.Code.UNKNOWN
    await asked.peer.reply(numbers[2])
    assert len(set(asked.tasks(numbers))) == 1


async def test_a_call_that_is_given_up_before_its_turn_never_runs(asked: Asked) -> None:
    peer = asked.peer
    requests = [
        peer.request(name, {"number": number}) for number, name in ((1, "quick"), (2, "quick"), (3, "slow"))
    ]
    resets = [frame(RESET, 0, 0, stream, 1) for stream in (1, 3)]
    peer.write(b"".join([*requests, *resets]))
    await peer.reply(2)
    assert asked.office.begun == [2]
    assert asked.server.running == 0


async def test_a_cancelled_call_is_cancelled_alone(asked: Asked) -> None:
    numbers = asked.send("quick", "slow", "slow", "quick")
    await until(lambda: len(asked.office.begun) == 4)
    asked.peer.write(frame(RESET, 0, 0, numbers[1], 1))
    await until(lambda: asked.server.running == 1)
    asked.office.go.set()
    assert await asked.peer.reply(numbers[2]) == ""


async def test_what_a_handler_leaves_behind_knows_whose_it_is(asked: Asked) -> None:
    numbers = asked.send(*["leaving"] * MANY)
    await asked.replies(numbers)
    asked.office.go.set()
    assert await asyncio.gather(*asked.office.left) == list(numbers)


async def test_a_task_that_somebody_cancels_before_it_begins_costs_no_later_call(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Runner._make

    def make_cancelled(runner: Runner, *what: Any) -> asyncio.Task[None]:
        task = make(runner, *what)
        task.cancel()
        return task

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_make", make_cancelled)
        asked.send("quick")
        await until(lambda: asked.server.running == 1)
    assert await asked.replies(asked.send("quick", "quick")) == ["", ""]
