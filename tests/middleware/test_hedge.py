"""Hedge: a slow call gets a second attempt elsewhere, the first answer counts, and nothing is left running."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from rpcfw import Code, Origin, RpcError
from rpcfw.call import Route
from rpcfw.limiter.budget import RetryBudget
from rpcfw.middleware import Hedge, Retry
from tests.calls.virtual import now, virtual_time
from tests.middleware.fleet import Act, Fleet, Gone, answers, call_of, each, fails, hangs, outcome, told


def with_metadata(act: Act, **metadata: str) -> Act:
    """The metadata comes, and then the rest of the reply."""

    async def acts(call: Any) -> Any:
        call.reply_metadata.update(metadata)
        return await act(call)

    return acts


async def settled(fleet: Fleet) -> None:
    """Losers are told, and end by themselves a turn later."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert fleet.running == 0


@virtual_time
async def test_a_slow_call_is_made_at_another_node_and_the_first_is_cancelled() -> None:
    fleet = Fleet(a=hangs, b=answers("B", 0.02))
    assert await Hedge(0.05)(fleet)(call_of("get", 1)) == "B"
    assert (fleet.asked, fleet.times) == (["a", "b"], [0, 0.05])
    assert now() == pytest.approx(0.07)
    assert fleet.cancelled == ["a"]
    await settled(fleet)


@virtual_time
async def test_the_hedge_is_cancelled_when_the_first_answers_after_all() -> None:
    fleet = Fleet(a=answers("A", 0.06), b=hangs)
    assert await Hedge(0.05)(fleet)(call_of("get", 1)) == "A"
    await settled(fleet)
    assert fleet.cancelled == ["b"]


@virtual_time
async def test_a_call_that_ends_in_time_starts_no_task_and_leaves_no_timer() -> None:
    seen: list[int] = []

    async def act(call: Any) -> str:
        seen.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0.01)
        return "A"

    assert await Hedge(0.05)(Fleet(a=act))(call_of("get", 1)) == "A"
    assert seen == [1]


@virtual_time
async def test_one_timer_serves_all_calls() -> None:
    loop: Any = asyncio.get_running_loop()
    handler = Hedge(0.05)(Fleet(a=answers("A")))
    for _ in range(1000):
        await handler(call_of("get", 1))
    assert len(loop._scheduled) == 1
    await asyncio.sleep(1)
    assert not loop._scheduled


@virtual_time
async def test_calls_that_began_one_after_the_other_are_hedged_one_after_the_other() -> None:
    fleet = Fleet(a=hangs, b=answers("B"))
    handler = Hedge(0.05)(fleet)

    async def late(wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        return str(await handler(call_of("get", 1)))

    assert await asyncio.gather(*(late(number * 0.01) for number in range(4))) == ["B"] * 4
    assert [at for at, address, _ in fleet.calls if address == "b"] == pytest.approx([0.05, 0.06, 0.07, 0.08])


def test_a_hedge_may_be_used_on_one_loop_after_the_other() -> None:
    hedge = Hedge(0.05)

    @virtual_time
    async def scenario() -> None:
        assert await hedge(Fleet(a=hangs, b=answers("B")))(call_of("get", 1)) == "B"

    scenario()
    scenario()


@pytest.mark.parametrize(
    ("name", "arguments", "route"),
    [
        ("place", (1,), None),
        ("shout", ("hi",), None),
        ("watch", (), None),
        ("get", (1,), Route(pinned="a")),
        ("get", (1,), Route(every=True)),
    ],
    ids=["not idempotent", "one-way", "stream", "pinned", "broadcast"],
)
def test_what_must_go_to_one_node_once_passes_untouched(
    name: str, arguments: tuple[Any, ...], route: Route | None
) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet, call = Fleet(a=answers("A", 1.0)), call_of(name, *arguments, route=route)
        await Hedge(0.05)(fleet)(call)
        assert [given for _, _, given in fleet.calls] == [call]

    scenario()


@virtual_time
async def test_the_failure_of_the_first_does_not_lose_the_hedge() -> None:
    fleet = Fleet(a=fails(after_s=0.06), b=answers("B", 0.1))
    assert await Hedge(0.05)(fleet)(call_of("get", 1)) == "B"
    assert now() == pytest.approx(0.15)


@virtual_time
async def test_the_failure_of_the_hedge_does_not_lose_the_first() -> None:
    fleet = Fleet(a=answers("A", 0.2), b=fails(after_s=0.01))
    assert await Hedge(0.05)(fleet)(call_of("get", 1)) == "A"


@pytest.mark.parametrize("second_s", [0.01, 0.5], ids=["before", "after"])
def test_when_all_attempts_fail_the_error_is_that_of_the_first(second_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet = Fleet(a=fails(message="one", after_s=0.1), b=fails(message="two", after_s=second_s))
        assert (await outcome(Hedge(0.05)(fleet), call_of("get", 1))).message == "one"
        await settled(fleet)

    scenario()


@virtual_time
async def test_a_failure_before_the_hedge_is_left_to_retry() -> None:
    fleet = Fleet(a=fails(after_s=0.01), b=answers("B"))
    assert isinstance(await outcome(Hedge(0.05)(fleet), call_of("get", 1)), RpcError)
    assert fleet.asked == ["a"]
    assert await Retry()(Hedge(0.05)(fleet))(call_of("get", 1)) == "B"


@pytest.mark.parametrize("answer", [Gone(7), RpcError(Code.NOT_FOUND, "none")], ids=["declared", "code"])
@pytest.mark.parametrize("first_s", [0.1, 9.0], ids=["first", "hedge"])
def test_an_answer_that_is_an_error_ends_the_race(answer: Exception, first_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        async def act(call: Any) -> Any:
            raise answer

        async def slow(call: Any) -> Any:
            await asyncio.sleep(first_s)
            raise answer

        fleet = Fleet(a=slow, b=act if first_s > 1 else hangs)
        assert await outcome(Hedge(0.05)(fleet), call_of("get", 1)) is answer
        assert now() < 1
        await settled(fleet)

    scenario()


@virtual_time
async def test_a_server_that_pushes_back_ends_the_hedging_of_the_call() -> None:
    for act in (
        fails(Code.RESOURCE_EXHAUSTED, after_s=0.01),
        fails(after_s=0.01, details={"retry_after_s": 5.0}),
    ):
        fleet = Fleet(a=answers("A", 1.0), b=act, c=answers("C"))
        assert await Hedge(0.05, max_hedges=5)(fleet)(call_of("get", 1)) == "A"
        assert fleet.asked == ["a", "b"]


@virtual_time
async def test_a_hedge_that_fails_makes_the_next_one_at_once() -> None:
    fleet = Fleet(a=hangs, b=fails(after_s=0.01), c=answers("C", 0.01))
    assert await Hedge(0.05, max_hedges=2)(fleet)(call_of("get", 1)) == "C"
    assert fleet.times == [0, 0.05, 0.06]


@virtual_time
async def test_no_more_hedges_than_there_may_be_each_after_the_same_time() -> None:
    fleet = Fleet(a=hangs, b=hangs, c=hangs, d=answers("D"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await Hedge(0.05, max_hedges=2)(fleet)(call_of("get", 1))
    assert (fleet.asked, fleet.times) == (["a", "b", "c"], [0, 0.05, 0.1])
    await settled(fleet)


@virtual_time
async def test_no_hedge_that_the_deadline_leaves_no_time_for() -> None:
    fleet = Fleet(a=answers("A", 0.3), b=answers("B"))
    assert await Hedge(0.2)(fleet)(call_of("get", 1, timeout_s=0.15)) == "A"


@virtual_time
async def test_hedges_are_paid_from_a_budget_that_calls_fill() -> None:
    budget = RetryBudget(0.1, reserve=1)
    fleet, route = Fleet(a=answers("A", 0.1), b=hangs), Route()
    handler = Hedge(0.05, budget=budget)(fleet)
    await handler(call_of("get", 1))
    await handler(call_of("get", 1, route=route))
    assert fleet.asked == ["a", "b", "a"]
    assert told(route) == ["hedge: no second attempt: the budget is used up"]
    assert budget.tokens(now()) == 0  # another one makes the first attempts and deposits for them
    own = Hedge(0.05)
    await own(Fleet(a=answers("A")))(call_of("get", 1))
    for _ in range(100):
        own.budget.deposit(now())
    assert own.budget.tokens(now()) == 50


@virtual_time
async def test_a_hedge_that_no_server_got_to_see_costs_nothing() -> None:
    hedge = Hedge(0.05, budget=RetryBudget(reserve=3))
    unsent = fails(origin=Origin.CONNECTION, executed=False)
    await hedge(Fleet(a=answers("A", 0.1), b=unsent))(call_of("get", 1))
    assert hedge.budget.tokens(now()) == 3


@virtual_time
async def test_a_route_of_the_caller_is_told() -> None:
    route = Route()
    await Hedge(0.05)(Fleet(a=hangs, b=answers("B")))(call_of("get", 1, route=route))
    assert told(route) == ["hedge: no answer for 0.050 s: another attempt"]
    assert route.tried == ["a", "b"]


@virtual_time
async def test_reply_metadata_is_that_of_the_attempt_that_answered() -> None:
    metadata: dict[str, str | bytes] = {}
    fleet = Fleet(a=hangs, b=with_metadata(answers("B"), by="b"))
    await Hedge(0.05)(fleet)(call_of("get", 1, reply_metadata=metadata))
    assert metadata == {"by": "b"}
    metadata = {}
    fleet = Fleet(a=answers("A", 0.06), b=with_metadata(hangs, by="b"))
    await Hedge(0.05)(fleet)(call_of("get", 1, reply_metadata=metadata))
    assert metadata == {}


# cancellation


@pytest.mark.parametrize("when_s", [0.01, 0.06, 0.15], ids=["first", "both", "hedge alone"])
def test_cancelling_the_caller_ends_all_attempts(when_s: float) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet = Fleet(a=each(fails(after_s=0.1)), b=hangs)
        calling = asyncio.ensure_future(Hedge(0.05)(fleet)(call_of("get", 1)))
        await asyncio.sleep(when_s)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await settled(fleet)

    scenario()


@virtual_time
async def test_a_caller_that_is_cancelled_as_the_hedge_answers_is_cancelled() -> None:
    calling: list[asyncio.Task[Any]] = []

    async def answer_and_cancel(call: Any) -> str:
        asyncio.get_running_loop().call_soon(calling[0].cancel)
        return "B"

    calling.append(asyncio.ensure_future(Hedge(0.05)(Fleet(a=hangs, b=answer_and_cancel))(call_of("get", 1))))
    await asyncio.wait(calling)
    assert calling[0].cancelled()


@virtual_time
async def test_the_caller_may_wait_and_be_cancelled_again_after_a_hedge_has_won() -> None:
    async def call_and_wait() -> str:
        result = await Hedge(0.05)(Fleet(a=hangs, b=answers("B")))(call_of("get", 1))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            await asyncio.sleep(0.01)
        return str(result)

    assert await asyncio.create_task(call_and_wait()) == "B"


@virtual_time
async def test_a_timeout_around_the_call_works_whatever_the_hedge_does() -> None:
    for first_s in (0.1, 0.05 + 0.02):  # later, and at the very moment that the hedge answers
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(first_s):
                await Hedge(0.05)(Fleet(a=hangs, b=answers("B", 0.5)))(call_of("get", 1))


@virtual_time
async def test_both_answering_in_the_same_turn_gives_one_of_the_answers() -> None:
    for first_s, second_s in ((0.07, 0.02), (0.07, 0.0200001), (0.0700001, 0.02)):
        fleet = Fleet(a=answers("A", first_s), b=answers("B", second_s))
        assert await Hedge(0.05)(fleet)(call_of("get", 1)) in ("A", "B")
        await settled(fleet)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@virtual_time
async def test_two_hedges_that_answer_in_the_same_turn_interrupt_the_caller_once() -> None:
    answered = asyncio.get_running_loop().create_future()

    async def both(call: Any) -> Any:
        return await asyncio.shield(answered)

    asyncio.get_running_loop().call_later(0.2, answered.set_result, "B")
    fleet = Fleet(a=hangs, b=both, c=both)
    assert await Hedge(0.05, max_hedges=2)(fleet)(call_of("get", 1)) == "B"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_a_first_attempt_that_does_not_let_itself_be_interrupted_answers() -> None:
    async def stubborn(call: Any) -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "A"
        return "late"

    assert await Hedge(0.05)(Fleet(a=stubborn, b=answers("B")))(call_of("get", 1)) == "A"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# the percentile


@virtual_time
async def test_nothing_is_hedged_before_enough_is_known_and_then_the_slowest_twentieth() -> None:
    rng = random.Random(3)
    print("seed=3")

    async def act(call: Any) -> str:
        await asyncio.sleep(rng.uniform(0.01, 0.11))
        return "A"

    fleet, hedge = Fleet(a=act, b=act), Hedge()
    handler = hedge(fleet)
    for _ in range(20):
        await handler(call_of("get", 1))
    assert len(fleet.calls) == 20
    for _ in range(1000):
        await handler(call_of("get", 1))
    assert 1020 + 20 < len(fleet.calls) < 1020 + 120
    delay_s = hedge.delay_s(call_of("get", 1).method)
    assert 0.09 < delay_s < 0.11


@virtual_time
async def test_the_delay_follows_when_a_method_becomes_slower_or_faster() -> None:
    hedge, pace_s = Hedge(percentile=0.5), 0.01

    async def act(call: Any) -> str:
        await asyncio.sleep(pace_s)
        return "A"

    handler, method = hedge(Fleet(a=act)), call_of("get", 1).method
    for pace_s in (0.01, 0.5, 0.02):
        for _ in range(150):
            await handler(call_of("get", 1))
        assert hedge.delay_s(method) == pytest.approx(pace_s, abs=0.001)


@virtual_time
async def test_a_given_time_holds_until_the_percentile_is_known() -> None:
    hedge = Hedge(0.3, percentile=0.9)
    handler, method = hedge(Fleet(a=answers("A", 0.01), b=answers("B", 0.01))), call_of("get", 1).method
    assert hedge.delay_s(method) == 0.3
    for _ in range(20):
        await handler(call_of("get", 1))
    assert hedge.delay_s(method) == pytest.approx(0.01)


@pytest.mark.parametrize("wrong", [{"after_s": -1}, {"percentile": 0}, {"percentile": 1}, {"max_hedges": 0}])
def test_a_wrong_figure_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Hedge(**wrong)


@virtual_time
async def test_a_route_says_why_a_call_is_not_hedged() -> None:
    for name, why in (("place", "it is not declared idempotent"), ("watch", "only unary calls are")):
        route = Route()
        await Hedge(0.05)(Fleet(a=answers("A", 0.1)))(call_of(name, 1, route=route))
        assert told(route) == [f"hedge: not hedged: {why}"]
