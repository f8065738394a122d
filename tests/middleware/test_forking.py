"""Forking: several nodes at once, the first success counts, the others are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rpcfw import Code, RpcError
from rpcfw.call import Route
from rpcfw.middleware import Forking
from tests.calls.virtual import now, virtual_time
from tests.middleware.fleet import Fleet, Gone, answers, call_of, fails, hangs, outcome


async def settled(fleet: Fleet) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert fleet.running == 0


@virtual_time
async def test_the_fastest_node_answers_and_the_others_are_cancelled() -> None:
    fleet = Fleet(a=hangs, b=answers("B", 0.05), c=answers("C", 0.02), d=answers("D"))
    assert await Forking(3)(fleet)(call_of("get", 1)) == "C"
    assert (fleet.asked, fleet.times) == (["a", "b", "c"], [0, 0, 0])
    await settled(fleet)
    assert sorted(fleet.cancelled) == ["a", "b"]


@virtual_time
async def test_a_failure_does_not_lose_the_others() -> None:
    assert await Forking()(Fleet(a=fails(), b=answers("B", 0.1)))(call_of("get", 1)) == "B"


@virtual_time
async def test_when_all_fail_an_answer_is_raised_before_a_failure() -> None:
    async def gone(call: Any) -> Any:
        raise Gone(1)

    assert isinstance(await outcome(Forking()(Fleet(a=fails(), b=gone)), call_of("get", 1)), Gone)
    error = await outcome(Forking()(Fleet(a=fails(message="one", after_s=0.1), b=fails())), call_of("get", 1))
    assert error.message == "one"


@pytest.mark.parametrize(
    ("name", "route"),
    [("place", None), ("watch", None), ("get", Route(pinned="a")), ("get", Route(every=True))],
)
def test_what_must_go_to_one_node_once_passes_untouched(name: str, route: Route | None) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet, call = Fleet(a=answers("A")), call_of(name, route=route)
        await Forking()(fleet)(call)
        assert [given for _, _, given in fleet.calls] == [call]

    scenario()


@virtual_time
async def test_told_so_it_makes_copies_of_any_unary_call() -> None:
    fleet = Fleet(a=answers("A"), b=answers("B"))
    await Forking(only_idempotent=False)(fleet)(call_of("place", 1))
    assert fleet.asked == ["a", "b"]


@virtual_time
async def test_cancelling_the_caller_ends_all_attempts() -> None:
    fleet = Fleet(a=hangs, b=hangs)
    calling = asyncio.ensure_future(Forking()(fleet)(call_of("get", 1)))
    await asyncio.sleep(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await settled(fleet)
    assert (sorted(fleet.cancelled), now()) == (["a", "b"], 1)


@virtual_time
async def test_reply_metadata_is_that_of_the_attempt_that_answered() -> None:
    async def act(call: Any) -> str:
        call.reply_metadata["by"] = "b"
        return "B"

    async def late(call: Any) -> str:
        call.reply_metadata["by"] = "a"
        await asyncio.sleep(1)
        raise RpcError(Code.INTERNAL, "late")

    metadata: dict[str, str | bytes] = {}
    await Forking()(Fleet(a=late, b=act))(call_of("get", 1, reply_metadata=metadata))
    assert metadata == {"by": "b"}


def test_one_fork_is_refused() -> None:
    with pytest.raises(ValueError, match="forks=1"):
        Forking(1)
