"""Broadcast: every node gets the call, and it fails where any of them fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpcfw
from rpcfw import Code, Origin, RpcError
from rpcfw.call import Route
from rpcfw.middleware import Broadcast
from tests.calls.place import Place
from tests.calls.virtual import virtual_time
from tests.middleware.fleet import Fleet, Gone, answers, call_of, fails, hangs, outcome, told


@virtual_time
async def test_every_node_gets_the_call_and_the_first_result_is_the_callers() -> None:
    fleet = Fleet(a=answers("A", 0.1), b=answers("B"))
    assert await Broadcast()(fleet)(call_of("place", 1)) == "A"
    assert fleet.asked == ["a", "b"]


@virtual_time
async def test_all_results_are_to_be_had_by_address() -> None:
    fleet = Fleet(a=answers("A"), b=answers("B"))
    assert await Broadcast(result="all")(fleet)(call_of("place", 1)) == {"a": "A", "b": "B"}


@virtual_time
async def test_it_fails_where_any_node_fails_and_tells_of_all() -> None:
    async def gone(call: Any) -> Any:
        raise Gone(7)

    fleet = Fleet(a=answers("A"), b=fails(message="down", origin=Origin.CONNECTION), c=gone)
    error = await outcome(Broadcast()(fleet), call_of("place", 1))
    assert isinstance(error, RpcError)
    assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, True)
    assert error.message == (
        "tests.Fleet/place failed at 2 of 3 nodes: b: UNAVAILABLE: down; c: Gone: number=7"
    )
    assert error.details["outcomes"] == {"a": "ok", "b": "UNAVAILABLE: down", "c": "Gone: number=7"}


@virtual_time
async def test_the_error_is_safe_to_repeat_only_where_no_node_ran_it() -> None:
    unsent, unknown = fails(executed=False), fails()
    for acts, executed in (
        ({"a": unsent, "b": unsent}, False),
        ({"a": unsent, "b": unknown}, None),
        ({"a": unsent, "b": answers("B")}, True),
    ):
        assert (await outcome(Broadcast()(Fleet(**acts)), call_of("place", 1))).executed is executed


@virtual_time
async def test_many_failures_are_told_in_few_words_and_in_full() -> None:
    fleet = Fleet(**{f"n{number}": fails() for number in range(20)})
    error = await outcome(Broadcast()(fleet), call_of("place", 1))
    assert error.message.endswith("; and 15 more")
    assert len(error.details["outcomes"]) == 20


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        ((), True),
        (("tests.Fleet.place",), True),
        (("tests.Fleet/place",), True),
        (("tests.Fleet",), True),
        (("tests.Fleet.get", "tests.Other"), False),
    ],
)
def test_only_the_methods_that_are_named_are_broadcast(names: tuple[str, ...], meant: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet = Fleet(a=answers("A"), b=answers("B"))
        await Broadcast(*names)(fleet)(call_of("place", 1))
        assert len(fleet.calls) == (2 if meant else 1)

    scenario()


@virtual_time
async def test_a_stream_passes_untouched() -> None:
    fleet, call = Fleet(a=answers("A")), call_of("watch")
    await Broadcast()(fleet)(call)
    assert fleet.calls[0][2] is call


@virtual_time
async def test_a_route_of_the_caller_is_told_and_stays_as_it_is() -> None:
    route = Route()
    await Broadcast()(Fleet(a=answers("A"), b=answers("B")))(call_of("place", 1, route=route))
    assert told(route) == ["broadcast: 2 nodes, 0 of them failed"]
    assert not route.every


@virtual_time
async def test_cancelling_the_caller_ends_it_at_all_nodes() -> None:
    fleet = Fleet(a=hangs, b=hangs)
    calling = asyncio.ensure_future(Broadcast()(fleet)(call_of("place", 1)))
    await asyncio.sleep(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert fleet.running == 0


def test_a_wrong_result_is_named() -> None:
    wrong: Any = "both"
    with pytest.raises(ValueError, match="result='both'"):
        Broadcast(result=wrong)


@virtual_time
async def test_a_client_of_one_endpoint_has_one_node() -> None:
    @rpcfw.service("tests.Cache")
    class Cache:
        async def sizes(self) -> list[int]:
            return [1, 2]

    place = Place("mem")
    server = await place.serve(Cache())
    assert await place.connect(server, middleware=[Broadcast()]).stub(Cache).sizes() == [1, 2]
    to_all: Any = place.connect(server, middleware=[Broadcast(result="all")]).stub(Cache)
    assert await to_all.sizes() == {"": [1, 2]}
    await place.close()
