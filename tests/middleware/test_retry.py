"""Retry makes a call again where that is safe: not more often than it may, and never with a stream half read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, cast

import pytest

import rpcfw
from rpcfw import Call, Code, RpcError
from rpcfw.limiter.budget import RetryBudget
from rpcfw.middleware import Retry
from rpcfw.transport import MemoryTransport, Transport
from tests.calls.place import QUIET
from tests.calls.virtual import now, virtual_time

DEADLINE_S = 10.0


@rpcfw.service("tests.Shaky")
class Shaky(Protocol):
    @rpcfw.idempotent
    async def one(self) -> int: ...

    @rpcfw.idempotent
    def out(self) -> AsyncIterator[int]: ...

    async def into(self, name: str, numbers: AsyncIterator[int]) -> int: ...

    def both(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...


@rpcfw.service("tests.Steady")
class Steady:
    async def ping(self) -> int:
        return 1


METHODS = rpcfw.spec_of(Shaky).methods
Act = Callable[[Call], Awaitable[Any]]


class Script:
    """A handler that does another thing each time it is called, and the last for ever."""

    def __init__(self, *acts: Act) -> None:
        self.acts = acts
        self.called: list[float] = []

    def __call__(self, call: Call) -> Awaitable[Any]:
        self.called.append(now())
        return self.acts[min(len(self.called), len(self.acts)) - 1](call)


def refused(code: Code = Code.UNAVAILABLE, **details: Any) -> Act:
    async def act(call: Call) -> Any:
        raise RpcError(code, "refused", details, executed=False)

    return act


async def lost(call: Call) -> Any:
    """The request is on its way when the link breaks; a stream's call has returned by then."""
    if call.method.kind.streams_out:
        return broken_items(0)
    raise RpcError(Code.UNAVAILABLE, "lost")


async def lost_amid(call: Call) -> Any:
    return broken_items(1)


async def broken_items(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    raise RpcError(Code.UNAVAILABLE, "lost")


async def answer(call: Call) -> Any:
    if call.method.kind.streams_in:
        taken = [number async for number in call.arguments[-1]]
        return numbers(*taken) if call.method.kind.streams_out else sum(taken)
    return numbers(1, 2) if call.method.kind.streams_out else 1


async def read_and_refuse(call: Call) -> Any:
    await anext(aiter(call.arguments[-1]))
    raise RpcError(Code.UNAVAILABLE, "refused", executed=False)


async def numbers(*values: int) -> AsyncIterator[int]:
    for value in values:
        yield value


async def outcome(script: Script, name: str, *arguments: Any, **options: Any) -> Any:
    """What a call gives: its result, its items, or the message of its error."""
    call = Call(METHODS[name], arguments, asyncio.get_running_loop().time() + DEADLINE_S)
    try:
        result = await Retry(rng=random.Random(7), **options)(script)(call)
        return [item async for item in result] if call.method.kind.streams_out else result
    except RpcError as error:
        return error.message


@pytest.mark.parametrize(("name", "result"), [("one", 1), ("out", [1, 2])])
@pytest.mark.parametrize("first", [lost, refused()], ids=["lost", "refused"])
@pytest.mark.parametrize("second", [lost, refused()], ids=["lost", "refused"])
def test_both_shapes_of_reply_use_all_their_attempts(name: str, result: Any, first: Act, second: Act) -> None:
    @virtual_time
    async def scenario() -> None:
        script = Script(first, second, answer)
        assert await outcome(script, name) == result
        assert len(script.called) == 3
        script = Script(first, second)
        assert await outcome(script, name) in ("lost", "refused")
        assert len(script.called) == 3

    scenario()


@virtual_time
async def test_a_stream_is_not_made_again_once_an_item_was_delivered() -> None:
    script = Script(refused(), lost_amid, answer)
    assert await outcome(script, "out") == "lost"
    assert len(script.called) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "result"), [("into", ("ada",), 6), ("both", (), [1, 2, 3])], ids=["into", "both"]
)
def test_a_call_whose_stream_was_not_touched_is_made_again_and_loses_no_item(
    name: str, arguments: tuple[Any, ...], result: Any
) -> None:
    @virtual_time
    async def scenario() -> None:
        script = Script(refused(), refused(), answer)
        assert await outcome(script, name, *arguments, numbers(1, 2, 3)) == result
        assert len(script.called) == 3
        script = Script(read_and_refuse, answer)
        assert await outcome(script, name, *arguments, numbers(1, 2, 3)) == "refused"
        assert len(script.called) == 1

    scenario()


@virtual_time
async def test_a_middleware_below_may_read_the_stream_as_an_iterator() -> None:
    async def read_by_hand(call: Call) -> Any:
        source = call.argument("numbers")
        return [await anext(source), await anext(source)]

    async def read_and_fail(call: Call) -> Any:
        await anext(call.argument("numbers"))
        raise RpcError(Code.UNAVAILABLE, "refused", executed=False)

    assert await outcome(Script(read_by_hand), "into", "ada", numbers(1, 2, 3)) == [1, 2]
    script = Script(read_and_fail, answer)
    assert await outcome(script, "into", "ada", numbers(1, 2, 3)) == "refused"
    assert len(script.called) == 1


@virtual_time
async def test_what_is_no_stream_is_handed_on_to_be_refused() -> None:
    async def arguments(call: Call) -> Any:
        return call.arguments

    assert await outcome(Script(arguments), "into", "ada", [1, 2]) == ("ada", [1, 2])


@virtual_time
async def test_the_wait_is_no_shorter_than_the_error_asks_for() -> None:
    script = Script(refused(retry_after_s=0.4), refused(), answer)
    assert await outcome(script, "one") == 1
    assert 0.4 <= script.called[1] - script.called[0] <= 0.4 + 0.05
    script = Script(refused(), refused(retry_after_s=0.4), answer)
    assert await outcome(script, "one") == 1
    assert script.called[1] == script.called[0]  # another endpoint may take it at once
    assert 0.4 <= script.called[2] - script.called[1] <= 0.4 + 0.1


@pytest.mark.parametrize(
    ("asked_s", "max_wait_s"),
    [(1.1, 1.0), (11.0, 60.0), (float("inf"), 60.0)],
    ids=["longest", "deadline", "inf"],
)
def test_a_call_that_would_wait_too_long_fails_at_once(asked_s: float, max_wait_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        began = now()
        script = Script(refused(retry_after_s=asked_s), answer)
        assert await outcome(script, "one", max_wait_s=max_wait_s) == "refused"
        assert (len(script.called), now()) == (1, began)

    scenario()


@pytest.mark.parametrize("asked", ["soon", -1, float("nan"), None, [1]])
def test_a_wait_that_is_no_number_is_passed_over(asked: Any) -> None:
    @virtual_time
    async def scenario() -> None:
        script = Script(refused(retry_after_s=asked), answer)
        assert await outcome(script, "one") == 1
        assert script.called[1] == script.called[0]

    scenario()


@virtual_time
async def test_a_client_of_one_endpoint_waits_for_the_next_attempt_to_connect() -> None:
    transports: dict[str, Transport] = {"mem": MemoryTransport()}
    server = rpcfw.serve(Steady(), listen="mem://late", transports=transports, limits=QUIET)
    async with rpcfw.connect("mem://late", transports=transports) as client:
        calling = asyncio.ensure_future(client.stub(Steady).ping())
        while not cast(Any, client.channels[0])._failures:
            await asyncio.sleep(0)
        async with server:
            assert await calling == 1
    assert 0 < now() < 1


@virtual_time
async def test_a_handler_with_an_attribute_of_that_name_is_a_handler_as_any_other() -> None:
    script: Any = Script(lost, answer)
    script.attempt = 0
    assert await outcome(script, "one") == 1
    assert len(script.called) == 2


@virtual_time
async def test_each_call_is_in_the_budget_when_another_asks_for_it() -> None:
    budget = RetryBudget(0.1, reserve=0)
    handler, clock = Retry(budget=budget)(Script(answer)), asyncio.get_running_loop().time
    for number in range(1, 101):
        await handler(Call(METHODS["one"], ()))
        assert budget.tokens(clock()) == pytest.approx(number / 10)


@virtual_time
async def test_calls_of_long_ago_are_not_in_the_budget_any_more() -> None:
    budget = RetryBudget(0.1, reserve=0, window_s=10)
    handler, clock = Retry(budget=budget)(Script(answer)), asyncio.get_running_loop().time
    for _ in range(1000):
        await handler(Call(METHODS["one"], ()))
        await asyncio.sleep(0.1)
    assert 9 <= budget.tokens(clock()) <= 16.4  # of a window, and twice the 32 that are told at a time
    await asyncio.sleep(20)
    assert budget.tokens(clock()) == 0
