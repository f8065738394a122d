"""Dedupe on the server: one run for each key, whatever comes, and no run where that cannot be known."""

from __future__ import annotations

import asyncio
import math
import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from rpcfw import Call, Code, MethodSpec, RpcError
from rpcfw.call import pack_metadata
from rpcfw.middleware import Dedupe, DedupeKeys, DedupeMemory
from rpcfw.middleware.dedupe import KEY, MARGIN_S, MEMORY, SPAN, Outcome
from tests.calls.virtual import now, virtual_time
from tests.middleware.fleet import Act, Fleet, Gone, answers, call_of, fails, hangs, outcome


class Link:
    """The server's side of a call whose connection may break."""

    def __init__(self) -> None:
        self.orphaned = False
        self.peer = "test"
        self.ended = False

    def set_reply_metadata(self, metadata: Any) -> None:
        """Not looked at."""


def keyed(key: str | bytes, *, name: str = "place", again: str = "", span: str = "", **options: Any) -> Call:
    marks: dict[str, str | bytes] = {KEY: key}
    if again:
        marks |= {MEMORY: again, SPAN: span} if span else {MEMORY: again}
    return call_of(name, 1, metadata_bytes=pack_metadata(marks), **options)


def counted() -> Act:
    count = 0

    async def act(call: Call) -> str:
        nonlocal count
        count += 1
        result = f"run {count}"
        await asyncio.sleep(0.1)
        return result

    return act


@virtual_time
async def test_a_key_that_comes_again_gets_the_first_result_and_nothing_runs() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    assert await handler(keyed(b"k")) == "run 1"
    assert await handler(keyed(b"k")) == "run 1"
    assert await handler(keyed(b"other")) == "run 2"
    assert len(fleet.calls) == 2


@virtual_time
async def test_a_call_without_a_key_and_a_stream_pass_untouched() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    plain = [call_of("place", 1), call_of("place", 1, metadata_bytes=pack_metadata({"a": "b"}))]
    empty = [keyed(""), keyed("x", name="watch")]
    for call in (*plain, *empty):
        await handler(call)
        await handler(call)
    assert [call for _, _, call in fleet.calls] == [call for call in (*plain, *empty) for _ in range(2)]


@virtual_time
async def test_one_key_names_another_call_for_another_method() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    assert await handler(keyed(b"k")) == "run 1"
    assert await handler(keyed(b"k", name="get")) == "run 2"


@virtual_time
async def test_a_key_that_comes_while_the_first_runs_waits_for_it() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    results = await asyncio.gather(*(handler(keyed("k")) for _ in range(5)))
    assert results == ["run 1"] * 5
    assert now() == pytest.approx(0.1)


@virtual_time
async def test_an_error_is_remembered_as_well_and_each_caller_gets_one_of_its_own() -> None:
    async def gone(call: Call) -> Any:
        await asyncio.sleep(0.1)
        raise Gone(number=7)

    for act in (gone, fails(Code.NOT_FOUND, "none", after_s=0.1, details={"sku": 1})):
        fleet = Fleet(a=act)
        handler = Dedupe()(fleet)
        joined = await asyncio.gather(*(outcome(handler, keyed("k")) for _ in range(2)))
        errors = [*joined, await outcome(handler, keyed("k")), await outcome(handler, keyed("k"))]
        assert len(fleet.calls) == 1
        assert len({id(error) for error in errors}) == 4
        assert len({type(error) for error in errors}) == 1
        assert len({str(error) for error in errors}) == 1
        assert [vars(error) for error in errors[1:]] == [vars(errors[0])] * 3


@virtual_time
async def test_an_error_that_no_caller_sees_as_itself_is_remembered_without_its_text() -> None:
    async def broken(call: Call) -> Any:
        raise LookupError("secret")

    handler = Dedupe()(Fleet(a=broken))
    with pytest.raises(LookupError):
        await handler(keyed("k"))
    error = await outcome(handler, keyed("k"))
    assert (error.code, "secret" in str(error)) == (Code.UNKNOWN, False)


@virtual_time
async def test_a_result_is_what_it_was_when_the_handler_returned_it() -> None:
    basket = ["tea"]

    async def act(call: Call) -> Any:
        return basket[0]

    handler = Dedupe()(Fleet(a=act))
    await handler(keyed("k"))
    basket[0] = "milk"
    assert await handler(keyed("k")) == "tea"


@virtual_time
async def test_a_result_that_cannot_travel_is_an_error_when_asked_for_again() -> None:
    fleet = Fleet(a=answers(object()))
    handler = Dedupe()(fleet)
    await handler(keyed("k"))  # the server finds out itself
    assert (await outcome(handler, keyed("k"))).code is Code.INTERNAL
    assert len(fleet.calls) == 1


@virtual_time
async def test_a_key_that_is_too_long_is_refused() -> None:
    error = await outcome(Dedupe()(Fleet(a=counted())), keyed("k" * 257))
    assert (error.code, error.executed) == (Code.INVALID_ARGUMENT, False)


# what is remembered, and what is forgotten


@virtual_time
async def test_an_outcome_is_forgotten_after_its_time_without_any_timer() -> None:
    memory = DedupeMemory(keep_s=60.0)
    handler = Dedupe(store=memory)(Fleet(a=counted()))
    assert await handler(keyed("k")) == "run 1"
    await asyncio.sleep(59)
    assert await handler(keyed("k")) == "run 1"
    timers: Any = asyncio.get_running_loop()
    assert not [timer for timer in timers._scheduled if not timer.cancelled()]
    await asyncio.sleep(1)
    assert await handler(keyed("k")) == "run 2"
    assert len(memory) == 1


@virtual_time
async def test_no_more_than_so_many_outcomes_and_bytes_are_kept_and_the_oldest_go_first() -> None:
    memory = DedupeMemory(max_entries=6)  # half of it for calls that come again
    handler = Dedupe(store=memory)(Fleet(a=counted()))
    for key in "abcd":
        await handler(keyed(key))
    assert len(memory) == 3
    assert await handler(keyed("b")) == "run 2"
    assert await handler(keyed("a")) == "run 5"
    memory = DedupeMemory(max_bytes=20_000)
    handler = Dedupe(store=memory)(Fleet(a=answers("x" * 4000)))
    for key in "abcd":
        await handler(keyed(key))
    assert len(memory) == 2


@virtual_time
async def test_a_result_too_large_to_keep_is_told_as_such_and_nothing_runs_again() -> None:
    fleet = Fleet(a=answers("x" * 4000))
    handler = Dedupe(max_bytes=4000)(fleet)
    await handler(keyed("k"))
    error = await outcome(handler, keyed("k"))
    assert error.code is Code.ABORTED
    assert "its result of 4,003 bytes was not kept" in error.message
    assert len(fleet.calls) == 1


# a key that comes with other arguments


@virtual_time
async def test_a_key_that_comes_with_other_arguments_is_refused_and_nothing_runs() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    assert await handler(keyed("order 4711")) == "run 1"
    other = msgspec.structs.replace(keyed("order 4711"), arguments=(2,))
    error = await outcome(handler, other)
    assert (error.code, error.executed) == (Code.INVALID_ARGUMENT, False)
    assert "the key 'order 4711' belongs to a call with other arguments" in error.message
    assert "a key of its own" in error.message
    assert await handler(keyed("order 4711")) == "run 1"
    assert len(fleet.calls) == 1


@virtual_time
async def test_also_while_the_first_still_runs_and_after_it_failed_or_was_too_large_to_keep() -> None:
    for act in (counted(), fails(Code.NOT_FOUND, "none", after_s=0.1), answers("x" * 4000, 0.1)):
        fleet = Fleet(a=act)
        handler = Dedupe(max_bytes=4000)(fleet)
        other = msgspec.structs.replace(keyed(b"\xff"), arguments=(2,))
        first, joined = await asyncio.gather(outcome(handler, keyed(b"\xff")), outcome(handler, other))
        later = await outcome(handler, other)
        assert {joined.code, later.code} == {Code.INVALID_ARGUMENT}
        assert "the key b'\\xff' belongs" in later.message
        assert "other arguments" not in str(first)
        assert len(fleet.calls) == 1


@virtual_time
@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 70_000, -1}, {-1, 3, 70_000}),
        ({1: "x"}, {1: "x"}),  # names alone are put in order
        (Decimal("1.0"), Decimal("1.0")),
        (object(), object()),  # what cannot travel has not travelled
    ],
)
async def test_equal_arguments_are_the_same_in_whatever_order_they_came(one: Any, same: Any) -> None:
    handler = Dedupe()(Fleet(a=counted()))
    for arguments in ((one,), (same,)):
        call = msgspec.structs.replace(keyed("k"), arguments=arguments)
        assert await handler(call) == "run 1"


@virtual_time
async def test_arguments_that_the_handler_changes_are_those_that_came() -> None:
    async def act(call: Call) -> str:
        call.arguments[0].append("milk")
        return "done"

    handler = Dedupe()(Fleet(a=act))
    for _ in range(2):
        assert await handler(msgspec.structs.replace(keyed("k"), arguments=(["tea"],))) == "done"


@virtual_time
async def test_a_store_that_keeps_no_digest_answers_as_it_can() -> None:
    class Forgetful(DedupeMemory):
        async def finish(self, key: bytes, method: MethodSpec, outcome: Outcome) -> None:
            await super().finish(key, method, Outcome(outcome.result, outcome.error))

    handler = Dedupe(store=Forgetful())(Fleet(a=counted()))
    for number in (1, 2):
        assert await handler(msgspec.structs.replace(keyed("k"), arguments=(number,))) == "run 1"


# calls that come again


@virtual_time
async def test_a_repeated_call_that_never_came_runs() -> None:
    dedupe = Dedupe()
    handler = dedupe(Fleet(a=counted()))
    assert await handler(keyed("k", again=dedupe.memory, span="10.000")) == "run 1"
    assert await handler(keyed("k", again=dedupe.memory, span="10.000")) == "run 1"
    assert await handler(keyed("l", again=dedupe.memory, timeout_s=math.inf)) == "run 2"


@virtual_time
async def test_a_repeated_call_of_another_memory_never_runs() -> None:
    fleet = Fleet(a=counted())
    dedupe = Dedupe()
    assert dedupe.memory != Dedupe().memory
    await dedupe(fleet)(keyed("k"))
    restarted = Dedupe()(fleet)
    for key in "kl":
        error = await outcome(restarted, keyed(key, again=dedupe.memory, span="1"))
        assert (error.code, error.executed, error.details) == (Code.ABORTED, None, {"outcome": "unknown"})
        assert "the server has been restarted since" in error.message
    assert len(fleet.calls) == 1


@virtual_time
async def test_a_repeated_call_that_may_have_been_forgotten_never_runs() -> None:
    dedupe = Dedupe(max_entries=2)
    fleet = Fleet(a=counted())
    handler = dedupe(fleet)
    await handler(keyed("a"))
    await handler(keyed("b"))  # and a, which came at 0, is forgotten
    error = await outcome(handler, keyed("a", again=dedupe.memory, span="10.2"))
    assert (error.code, error.details) == (Code.ABORTED, {"outcome": "unknown"})
    assert "raise max_entries" in error.message
    # one whose first attempt came later than all that is forgotten, by more than a message may take, cannot be it
    for span, code in (("10.0", Code.ABORTED), ("1.0", None)):
        await asyncio.sleep(MARGIN_S + 0.2 if code is None else 0.0)
        result = await outcome(handler, keyed("c", again=dedupe.memory, span=span))
        assert getattr(result, "code", None) is code
    assert len(fleet.calls) == 3


@pytest.mark.parametrize("span", ["", "soon", "nan", "inf", "-1", "1e999"])
def test_a_repeated_call_that_does_not_say_since_when_runs_only_if_nothing_was_ever_forgotten(
    span: str,
) -> None:
    @virtual_time
    async def scenario() -> None:
        dedupe = Dedupe(max_entries=2)
        handler = dedupe(Fleet(a=counted()))
        assert await handler(keyed("a", again=dedupe.memory, span=span)) == "run 1"
        assert await handler(keyed("b")) == "run 2"
        assert await handler(keyed("d")) == "run 3"  # b is forgotten
        await asyncio.sleep(10 * MARGIN_S)
        assert (await outcome(handler, keyed("c", again=dedupe.memory, span=span))).code is Code.ABORTED
        later = keyed("c", again=dedupe.memory, span="1", timeout_s=math.inf)
        assert (await outcome(handler, later)).code is Code.ABORTED

    scenario()


@virtual_time
async def test_a_first_attempt_that_comes_after_its_repetition_gets_the_outcome_of_that() -> None:
    dedupe = Dedupe(max_entries=4)
    fleet = Fleet(a=counted())
    handler = dedupe(fleet)
    assert await handler(keyed("slow", again=dedupe.memory, span="10.2")) == "run 1"
    for key in range(100):  # what comes meanwhile does not drive it out
        await handler(keyed(str(key)))
    assert await handler(keyed("slow")) == "run 1"
    assert len(fleet.calls) == 101


@virtual_time
async def test_where_too_many_calls_came_again_another_one_does_not_run() -> None:
    dedupe = Dedupe(max_entries=4)
    fleet = Fleet(a=counted())
    handler = dedupe(fleet)
    calls = [keyed(key, again=dedupe.memory, span="10.2") for key in "abc"]
    first, second, third = await asyncio.gather(*(outcome(handler, call) for call in calls))
    assert ({first, second}, third.code) == ({"run 1", "run 2"}, Code.ABORTED)
    assert "raise max_entries" in third.message
    await asyncio.sleep(601)
    assert await handler(keyed("d", again=dedupe.memory, span="0.1")) == "run 3"


@virtual_time
async def test_the_result_of_a_call_that_came_again_is_dropped_before_its_memory_is() -> None:
    dedupe = Dedupe(max_bytes=20_000)
    fleet = Fleet(a=answers("x" * 4000))
    handler = dedupe(fleet)
    for _ in range(2):
        for key in "abc":
            await outcome(handler, keyed(key, again=dedupe.memory, span="10"))
    assert len(fleet.calls) == 3
    assert (await outcome(handler, keyed("c"))).code is Code.ABORTED


# cancellation


@virtual_time
async def test_a_caller_that_gives_up_cancels_the_run_and_its_outcome_is_unknown() -> None:
    fleet = Fleet(a=hangs)
    handler = Dedupe()(fleet)
    calling = asyncio.ensure_future(handler(keyed("k")))
    await asyncio.sleep(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert fleet.running == 0
    error = await outcome(handler, keyed("k"))
    assert (error.code, error.details) == (Code.ABORTED, {"outcome": "unknown"})
    assert error.message.endswith("it was cancelled amid")
    assert len(fleet.calls) == 1


@virtual_time
async def test_a_run_goes_on_as_long_as_anybody_waits_for_it() -> None:
    fleet = Fleet(a=counted())
    handler = Dedupe()(fleet)
    first, second = (asyncio.ensure_future(handler(keyed("k"))) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    assert await second == "run 1"
    assert first.cancelled()


@virtual_time
async def test_when_only_the_connection_broke_the_run_goes_on_for_the_caller_that_comes_again() -> None:
    fleet, link = Fleet(a=answers("A", 3.0)), Link()
    handler = Dedupe()(fleet)
    first = asyncio.ensure_future(handler(keyed("k", exchange=link)))
    await asyncio.sleep(1)
    link.orphaned = True
    first.cancel()
    await asyncio.sleep(1)
    assert not first.done()  # it counts as running until it has really ended
    assert await handler(keyed("k")) == "A"
    assert now() == 3
    await asyncio.wait([first])
    assert first.cancelled()
    assert len(fleet.calls) == 1


@virtual_time
async def test_a_run_without_a_connection_ends_at_its_deadline() -> None:
    fleet, link = Fleet(a=hangs), Link()
    first = asyncio.ensure_future(Dedupe()(fleet)(keyed("k", exchange=link, timeout_s=5.0)))
    await asyncio.sleep(1)
    link.orphaned = True
    first.cancel()
    await asyncio.wait([first])
    assert (now(), fleet.running, first.cancelled()) == (5, 0, True)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_server_that_insists_ends_a_run_without_a_connection(at_once: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        fleet, link = Fleet(a=hangs), Link()
        first = asyncio.ensure_future(Dedupe()(fleet)(keyed("k", exchange=link)))
        await asyncio.sleep(1)
        link.orphaned = True
        first.cancel()
        if not at_once:
            await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait([first])
        assert (now(), fleet.running, first.cancelled()) == (1 if at_once else 2, 0, True)

    scenario()


@virtual_time
async def test_a_handler_counts_as_running_until_its_cancellation_has_ended_it() -> None:
    async def slow_to_end(call: Call) -> Any:
        try:
            await hangs(call)
        finally:
            await asyncio.sleep(2)

    fleet = Fleet(a=slow_to_end)
    calling = asyncio.ensure_future(Dedupe()(fleet)(keyed("k")))
    await asyncio.sleep(1)
    calling.cancel()
    await asyncio.wait([calling])
    assert (now(), fleet.running) == (3, 0)


@virtual_time
async def test_who_waits_for_a_run_that_cancels_itself_is_told() -> None:
    async def cancels_itself(call: Call) -> Any:
        await asyncio.sleep(0.1)
        raise asyncio.CancelledError

    handler = Dedupe()(Fleet(a=cancels_itself))
    errors = await asyncio.gather(*(outcome(handler, keyed("k")) for _ in range(2)))
    assert [error.code for error in errors] == [Code.ABORTED] * 2


# stores


class Shelf:
    """A store that several servers share; at times it cannot be reached."""

    memory = "shelf"

    def __init__(self) -> None:
        self.outcomes: dict[bytes, Outcome | None] = {}
        self.down = False

    async def begin(self, key: bytes, method: MethodSpec, since: float | None) -> Outcome | None:
        await asyncio.sleep(0.01)
        if self.down:
            raise RpcError(Code.UNAVAILABLE, "the shelf is away", executed=False)
        known = self.outcomes.get(key)
        self.outcomes.setdefault(key, None)
        return known

    async def finish(self, key: bytes, method: MethodSpec, outcome: Outcome) -> None:
        await asyncio.sleep(0.01)
        if self.down:
            raise ConnectionError("the shelf is away")
        self.outcomes[key] = outcome


@virtual_time
async def test_servers_that_share_a_store_answer_each_others_calls() -> None:
    shelf, fleet = Shelf(), Fleet(a=counted())
    one, two = Dedupe(store=shelf), Dedupe(store=shelf)
    assert one.memory == two.memory == "shelf"
    assert await one(fleet)(keyed("k")) == "run 1"
    assert await two(fleet)(keyed("k", again="shelf", span="1")) == "run 1"
    assert len(fleet.calls) == 1


@virtual_time
async def test_a_store_that_is_away_refuses_before_a_run_and_costs_only_the_memory_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf()

    async def act(call: Call) -> str:
        shelf.down = True
        return "done"

    fleet = Fleet(a=act)
    handler = Dedupe(store=shelf)(fleet)
    assert await handler(keyed("k")) == "done"
    assert "not remembered: the shelf is away" in caplog.text
    error = await outcome(handler, keyed("l"))
    assert (error.code, error.executed, len(fleet.calls)) == (Code.UNAVAILABLE, False, 1)


@pytest.mark.parametrize("wrong", [{"keep_s": 29.0}, {"max_entries": 1}, {"max_bytes": 799}])
def test_a_wrong_figure_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DedupeMemory(**wrong)


# the client's keys


@virtual_time
async def test_a_call_that_must_not_run_twice_gets_a_key_of_its_own_and_others_none() -> None:
    fleet = Fleet(a=answers(None))
    handler = DedupeKeys(rng=random.Random(1))(fleet)
    for name in ("place", "place", "get", "shout", "watch"):
        await handler(call_of(name, 1))
    keys = [call.metadata.get(KEY) for _, _, call in fleet.calls]
    assert all(isinstance(key, bytes) and len(key) == 16 for key in keys[:2])
    assert keys[0] != keys[1]
    assert keys[2:] == [None] * 3


@virtual_time
async def test_metadata_of_the_caller_stays_and_so_does_a_key_of_its_own() -> None:
    fleet = Fleet(a=answers(None))
    handler = DedupeKeys()(fleet)
    for metadata in ({"user": "ada"}, {"user": "ada", KEY: "order-7"}):
        await handler(call_of("place", 1, metadata_bytes=pack_metadata(metadata)))
    first, second = (call.metadata for _, _, call in fleet.calls)
    assert (first["user"], len(first[KEY])) == ("ada", 16)
    assert second == {"user": "ada", KEY: "order-7"}


@virtual_time
async def test_after_a_fork_the_child_draws_keys_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = (DedupeKeys(rng=random.Random(1)) for _ in range(2))
    fleet = Fleet(a=answers(None))
    await parent(fleet)(call_of("place", 1))
    monkeypatch.setattr("os.getpid", lambda: -1)
    await child(fleet)(call_of("place", 1))
    first, second = (call.metadata[KEY] for _, _, call in fleet.calls)
    assert first != second
