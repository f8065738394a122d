"""Fallback and Failsafe: what answers in the place of a service that does badly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

import rpcfw
from rpcfw import Call, Code, RpcError
from rpcfw.call import Route
from rpcfw.middleware import Failsafe, Fallback
from rpcfw.testing.memory import in_memory
from tests.calls.virtual import virtual_time
from tests.middleware.fleet import Fleet, Gone, Service, answers, call_of, fails, outcome, told


class Local:
    """What answers instead."""

    async def get(self, number: int) -> str:
        return f"local {number}"

    def place(self, number: int, *, name: str = "") -> str:
        return f"local {number} {name}"

    async def watch(self) -> AsyncIterator[int]:
        yield 1
        yield 2


def local_get(number: int) -> str:
    return f"function {number}"


@virtual_time
async def test_a_failed_call_is_answered_by_a_function_or_by_an_object_that_has_the_method() -> None:
    down = Fleet(a=fails())
    assert await Fallback({"tests.Fleet.get": local_get})(down)(call_of("get", 7)) == "function 7"
    assert await Fallback({"tests.Fleet/get": local_get})(down)(call_of("get", 7)) == "function 7"
    both = Fallback({"tests.Fleet": Local(), "tests.Fleet.get": local_get})(down)
    assert await both(call_of("get", 7)) == "function 7"
    assert await both(call_of("place", 7, "ada")) == "local 7 ada"
    assert await Fallback({"tests.Fleet": Local()})(down)(call_of("get", 7)) == "local 7"


@virtual_time
async def test_a_call_that_succeeds_or_has_no_fallback_passes_untouched() -> None:
    call = call_of("get", 1)
    fleet = Fleet(a=answers("A"))
    assert await Fallback({"tests.Fleet.get": local_get})(fleet)(call) == "A"
    assert fleet.calls[0][2] is call
    error = await outcome(Fallback({"tests.Other.get": local_get})(Fleet(a=fails())), call)
    assert isinstance(error, RpcError)


@pytest.mark.parametrize("code", list(Code))
def test_only_a_service_that_does_badly_is_replaced(code: Code) -> None:
    @virtual_time
    async def scenario() -> None:
        result = await outcome(
            Fallback({"tests.Fleet.get": local_get})(Fleet(a=fails(code))), call_of("get", 1)
        )
        degraded = code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)
        assert (result == "function 1") is degraded

    scenario()


@virtual_time
async def test_a_function_may_say_which_failures_are_answered() -> None:
    def when(call: Call, error: RpcError) -> bool:
        return error.code is Code.INTERNAL and call.argument("number") == 1

    handler = Fallback({"tests.Fleet.get": local_get}, when=when)(Fleet(a=fails(Code.INTERNAL)))
    assert await outcome(handler, call_of("get", 1)) == "function 1"
    assert isinstance(await outcome(handler, call_of("get", 2)), RpcError)


@virtual_time
async def test_a_declared_error_is_an_answer() -> None:
    async def gone(call: Call) -> Any:
        raise Gone(1)

    handler = Fallback({"tests.Fleet.get": local_get})(Fleet(a=gone))
    assert isinstance(await outcome(handler, call_of("get", 1)), Gone)


@virtual_time
async def test_an_error_of_the_fallback_has_the_failure_as_its_context() -> None:
    def broken(number: int) -> str:
        raise LookupError(number)

    with pytest.raises(LookupError) as caught:
        await Fallback({"tests.Fleet.get": broken})(Fleet(a=fails()))(call_of("get", 1))
    assert isinstance(caught.value.__context__, RpcError)


@virtual_time
async def test_forced_it_answers_all_kinds_of_call_and_the_service_is_never_called() -> None:
    fleet = Fleet()
    handler = Fallback({"tests.Fleet": Local()}, force=True)(fleet)
    assert await handler(call_of("get", 7)) == "local 7"
    assert [item async for item in await handler(call_of("watch"))] == [1, 2]


@virtual_time
async def test_a_stub_of_another_service_may_answer() -> None:
    @rpcfw.service("tests.Fleet")
    class Other:
        async def get(self, number: int) -> str:
            return f"other {number}"

    async with in_memory(Other()) as client:
        handler = Fallback({"tests.Fleet.get": client.stub(Other).get})(Fleet(a=fails()))
        assert await handler(call_of("get", 7)) == "other 7"


@virtual_time
async def test_through_a_client_a_mock_is_what_the_stub_returns() -> None:
    client = rpcfw.connect("mem://nowhere", middleware=[Fallback({"tests.Fleet": Local()}, force=True)])
    async with client:
        stub = client.stub(Service)
        assert await stub.place(7, name="ada") == "local 7 ada"
        assert [item async for item in stub.watch()] == [1, 2]


@virtual_time
async def test_a_route_of_the_caller_is_told() -> None:
    route = Route()
    await Fallback({"tests.Fleet.get": local_get})(Fleet(a=fails()))(call_of("get", 1, route=route))
    assert told(route) == ["fallback: answered by local_get, since UNAVAILABLE: unavailable"]


@virtual_time
async def test_a_value_is_no_fallback() -> None:
    with pytest.raises(TypeError, match="'none'; give a function, or use Failsafe"):
        await Fallback({"tests.Fleet.get": "none"})(Fleet(a=fails()))(call_of("get", 1))


# failsafe


@virtual_time
async def test_failsafe_gives_a_value_or_what_a_function_says_and_never_raises_rpc_errors() -> None:
    for code in Code:
        assert await Failsafe("none")(Fleet(a=fails(code)))(call_of("get", 1)) == "none"
    assert await Failsafe()(Fleet(a=fails()))(call_of("get", 1)) is None
    handler = Failsafe(lambda call, error: f"{call.method.name} {error.code.name}")(Fleet(a=fails()))
    assert await handler(call_of("get", 1)) == "get UNAVAILABLE"
    assert await Failsafe()(Fleet(a=answers("A")))(call_of("get", 1)) == "A"


@virtual_time
async def test_failsafe_lets_declared_errors_and_cancellation_pass() -> None:
    async def gone(call: Call) -> Any:
        raise Gone(1)

    assert isinstance(await outcome(Failsafe()(Fleet(a=gone)), call_of("get", 1)), Gone)
    calling = asyncio.ensure_future(Failsafe()(Fleet(a=answers("A", 5.0)))(call_of("get", 1)))
    await asyncio.sleep(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@virtual_time
async def test_failsafe_ends_a_stream_that_breaks_and_closes_it() -> None:
    closed: list[str] = []

    async def act(call: Call) -> Any:
        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                raise RpcError(Code.UNAVAILABLE, "lost")
            finally:
                closed.append("yes")

        return items()

    for fleet, items in ((Fleet(a=act), [1]), (Fleet(a=fails()), [])):
        stream = await Failsafe()(fleet)(call_of("watch"))
        assert [item async for item in stream] == items
        await stream.aclose()
    assert closed == ["yes"]


@virtual_time
async def test_failsafe_tells_an_outage_once_a_second_with_the_number_of_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Failsafe()(Fleet(a=fails()))
    with caplog.at_level(logging.WARNING, "rpcfw"):
        for _ in range(25):
            await handler(call_of("get", 1))
            await asyncio.sleep(0.1)
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == "tests.Fleet/get failed, and is done without: UNAVAILABLE: unavailable"
    assert caplog.messages[1].endswith(" (and 9 more since the last such line)")
