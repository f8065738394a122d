"""Retry among nodes: where the next attempt goes, what it may cost, and what it says about its decisions."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from rpcfw import Call, Code, Origin, RpcError
from rpcfw.call import Route
from rpcfw.limiter.budget import RetryBudget
from rpcfw.middleware import Retry
from tests.calls.virtual import now, virtual_time
from tests.middleware.fleet import Act, Fleet, answers, call_of, each, fails, outcome, refuses, told

lost = fails(message="lost", origin=Origin.CONNECTION)
TOO_LARGE = fails(Code.RESOURCE_EXHAUSTED, "too large", origin=Origin.LOCAL, executed=False)
HINT = (
    "tests.Fleet/place is not idempotent and may have run; declare it @rpcfw.idempotent if it may run twice"
)


def retry(*arguments: Any, **options: Any) -> Retry:
    return Retry(*arguments, rng=random.Random(7), **options)


@virtual_time
async def test_a_call_that_succeeds_at_once_is_passed_on_as_it_is() -> None:
    fleet, call = Fleet(a=answers("A")), call_of("get", 1)
    assert await retry()(fleet)(call) == "A"
    assert fleet.calls[0][2] is call


@virtual_time
async def test_the_next_attempt_goes_to_a_node_that_was_not_tried() -> None:
    fleet = Fleet(a=refuses(), b=refuses(), c=answers("C"))
    call = call_of("place", 1)
    assert await retry()(fleet)(call) == "C"
    assert fleet.asked == ["a", "b", "c"]
    assert call.route is None


@virtual_time
async def test_a_route_of_the_caller_is_used_and_told_what_was_decided() -> None:
    fleet, route = Fleet(a=lost, b=refuses(), c=answers("C")), Route()
    assert await retry()(fleet)(call_of("get", 1, route=route)) == "C"
    assert (route.tried, fleet.asked) == (["a", "b", "c"], ["a", "b", "c"])
    first, second = told(route)
    assert first == "retry: attempt 2 of 3 at once, since UNAVAILABLE: lost"
    assert second.startswith("retry: attempt 3 of 3 in 0.0")
    assert second.endswith(" s, since UNAVAILABLE: refused")
    assert route.notes[1].at - 1000.0 == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("name", "act", "options", "why"),
    [
        ("get", fails(Code.NOT_FOUND), {}, "NOT_FOUND is an answer"),
        ("get", lost, {"attempts": 1}, "it has one attempt"),
        ("get", refuses(details={"retry_after_s": 3.0}), {}, "the same would fail for 3.0 s"),
        (
            "get",
            refuses(details={"retry_after_s": 30.0}),
            {"max_wait_s": 60.0},
            "the deadline leaves no time for it",
        ),
        ("get", lost, {"budget": RetryBudget(reserve=0)}, "the retry budget is used up"),
        ("get", TOO_LARGE, {}, "this process would refuse it again"),
        ("get", fails(Code.RESOURCE_EXHAUSTED, executed=True), {}, "it has run, and failed there"),
        ("place", lost, {}, HINT),
    ],
)
def test_a_route_learns_why_a_call_is_not_repeated(
    name: str, act: Act, options: dict[str, Any], why: str
) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet, route = Fleet(a=act), Route()
        assert isinstance(await outcome(retry(**options)(fleet), call_of(name, 1, route=route)), RpcError)
        assert len(fleet.calls) == 1
        assert told(route)[0].startswith(f"retry: not repeated: {why}")

    scenario()


@virtual_time
async def test_the_last_attempt_is_told_as_such() -> None:
    route = Route()
    await outcome(retry(2)(Fleet(a=lost)), call_of("get", 1, route=route))
    assert told(route)[-1] == "retry: not repeated: this was the last of 2 attempts"


@virtual_time
async def test_a_call_that_idempotence_would_have_repeated_says_so_once() -> None:
    error = await outcome(retry()(retry()(Fleet(a=lost))), call_of("place", 1))
    assert error.message == f"lost (not repeated: {HINT})"
    assert (await outcome(retry()(Fleet(a=lost)), call_of("get", 1))).message == "lost"
    assert (await outcome(retry()(Fleet(a=refuses())), call_of("place", 1))).message == "refused"
    assert (await outcome(retry(1)(Fleet(a=lost)), call_of("place", 1))).message == "lost"
    assert (await outcome(retry()(Fleet(a=fails(Code.INTERNAL))), call_of("place", 1))).message == "internal"


@virtual_time
async def test_what_this_process_refuses_is_repeated_only_where_it_says_when() -> None:
    fleet = Fleet(a=each(TOO_LARGE, answers("A")))
    assert (await outcome(retry()(fleet), call_of("get", 1))).message == "too large"
    later = fails(Code.RESOURCE_EXHAUSTED, executed=False, details={"retry_after_s": 0.2})
    fleet = Fleet(a=each(later, answers("A")))
    assert await retry()(fleet)(call_of("get", 1)) == "A"
    full = fails(Code.RESOURCE_EXHAUSTED, executed=False, origin=Origin.REMOTE)
    fleet = Fleet(a=each(full, answers("A")))
    assert await retry()(fleet)(call_of("get", 1)) == "A"


@virtual_time
async def test_a_method_may_have_attempts_of_its_own() -> None:
    middleware = retry(2, per_method={"tests.Fleet.get": 4, "tests.Fleet/place": 1})
    for name, count in (("get", 4), ("place", 1), ("note", 2)):
        fleet = Fleet(a=refuses())
        await outcome(middleware(fleet), call_of(name, 1))
        assert len(fleet.calls) == count


@virtual_time
async def test_an_error_does_not_say_that_a_call_never_ran_when_an_earlier_attempt_may_have() -> None:
    error = await outcome(retry(2)(Fleet(a=lost, b=refuses())), call_of("get", 1))
    assert (error.message, error.executed) == ("refused", None)
    error = await outcome(retry()(Fleet(a=refuses())), call_of("get", 1))
    assert error.executed is False


@virtual_time
async def test_repetitions_that_reached_a_server_are_paid_for_and_others_are_not() -> None:
    budget = RetryBudget(ratio=0, reserve=10)
    await outcome(retry(budget=budget)(Fleet(a=refuses())), call_of("get", 1))
    assert budget.tokens(now()) == 8
    unreachable = fails(origin=Origin.CONNECTION, executed=False)
    await outcome(retry(budget=budget)(Fleet(a=unreachable)), call_of("get", 1))
    assert budget.tokens(now()) == 8
    await outcome(retry(budget=budget)(Fleet(a=each(unreachable, answers("A")))), call_of("get", 1))
    assert budget.tokens(now()) == 7
    await outcome(retry(budget=budget)(Fleet(a=lost)), call_of("get", 1))
    assert budget.tokens(now()) == 5


@virtual_time
async def test_each_retry_has_a_budget_of_its_own_unless_one_is_given() -> None:
    shared = RetryBudget()
    assert Retry().budget is not Retry().budget
    assert Retry(budget=shared).budget is Retry(budget=shared).budget is shared


@virtual_time
async def test_in_a_total_outage_the_servers_see_less_than_a_fifth_more_than_is_offered() -> None:
    fleet, middleware = Fleet(a=lost, b=lost, c=lost), retry()
    handler = middleware(fleet)

    async def load() -> None:
        for _ in range(100):
            await outcome(handler, call_of("get", 1))
            await asyncio.sleep(0.05)

    await asyncio.gather(*(load() for _ in range(20)))
    assert 2000 < len(fleet.calls) < 2000 * 1.2


@virtual_time
async def test_when_the_outage_is_over_calls_are_repeated_again() -> None:
    fleet = Fleet(a=lost)
    handler = retry(budget=RetryBudget(reserve=2))(fleet)
    for _ in range(20):
        await outcome(handler, call_of("get", 1))
    fleet.acts["a"] = answers("A")
    for _ in range(20):
        await handler(call_of("get", 1))
    fleet.acts["a"] = each(lost, answers("A"))
    assert await handler(call_of("get", 1)) == "A"


@virtual_time
async def test_cancelling_a_call_that_waits_for_its_next_attempt_ends_it() -> None:
    fleet = Fleet(a=each(refuses(), refuses(details={"retry_after_s": 0.5}), answers("A")))
    calling = asyncio.ensure_future(retry()(fleet)(call_of("get", 1)))
    await asyncio.sleep(0.1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await asyncio.sleep(1)
    assert len(fleet.calls) == 2


@virtual_time
async def test_a_stream_is_made_again_at_another_node() -> None:
    async def items(call: Call) -> Any:
        async def numbers() -> Any:
            yield 1

        return numbers()

    fleet = Fleet(a=refuses(), b=items)
    stream = await retry()(fleet)(call_of("watch"))
    assert [item async for item in stream] == [1]
    assert fleet.asked == ["a", "b"]


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"per_method": {"tests.Fleet.get": 0}}])
def test_less_than_one_attempt_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Retry(**wrong)
