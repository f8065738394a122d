"""A history is a faithful record: what happened first is seen to have, and a file gives back what was saved."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rpcfw.testing.history import FIELDS, History, HistoryError, Operation, freeze, shorten
from tests.calls.virtual import START_S, virtual_time


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def line(**changes: Any) -> str:
    members: dict[str, Any] = {
        "client": "c1",
        "op": "write",
        "key": "x",
        "args": [1],
        "result": None,
        "status": "ok",
        "call": 1.0,
        "return": 2.0,
    }
    return json.dumps(members | changes)


def test_an_operation_is_recorded_with_its_call_and_its_return() -> None:
    clock = Clock()
    history = History(clock)
    operation = history.begin("c1", "cas", "x", [1, 2])
    clock.now = 1003.5
    operation.ok(True)
    (recorded,) = (json.loads(text) for text in history.lines())
    assert recorded == {
        "client": "c1",
        "op": "cas",
        "key": "x",
        "args": [1, 2],
        "result": True,
        "status": "ok",
        "call": 1000.0,
        "return": 1003.5,
    }
    assert tuple(recorded) == FIELDS


def test_an_operation_that_never_ended_is_unknown() -> None:
    history = History(Clock())
    history.begin("c1", "write", "x", [1])
    (recorded,) = (json.loads(text) for text in history.lines())
    assert (recorded["status"], recorded["return"]) == ("unknown", None)


def test_failed_and_given_up_operations_say_so() -> None:
    history = History(Clock())
    history.begin("c1", "write", "x", [1]).fail(ValueError("not the leader"))
    history.begin("c1", "write", "x", [2]).unknown()
    failed, given_up = history
    assert (failed.status, failed.result) == ("fail", "not the leader")
    assert given_up.status == "unknown"
    assert given_up.returned is not None


def test_events_in_one_instant_keep_their_order() -> None:
    history = History(Clock())
    first = history.begin("c1", "write", "x", [1])
    first.ok()
    second = history.begin("c1", "read", "x")
    second.ok(1)
    assert first.returned is not None
    assert second.returned is not None
    assert 1000.0 == first.called < first.returned < second.called < second.returned < 1000.001


def test_times_do_not_go_back_when_the_clock_does() -> None:
    clock = Clock()
    history = History(clock)
    first = history.begin("c1", "read", "x")
    clock.now = 10.0
    assert history.begin("c2", "read", "x").called > first.called


@virtual_time
async def test_the_running_loop_is_the_clock_unless_another_is_given() -> None:
    await asyncio.sleep(5.0)
    assert History().begin("c1", "read", "x").called == START_S + 5.0


def test_on_a_loop_whose_hosts_drift_the_clock_is_the_true_one() -> None:
    async def begin() -> float:
        setattr(asyncio.get_running_loop(), "global_time", lambda: 77.0)  # noqa: B010  a loop's type has no such name
        return History().begin("c1", "read", "x").called

    assert asyncio.run(begin()) == 77.0


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    clock = Clock()
    history = History(clock)
    for value in ("text", 0.1, None, [1, [2]], {"a": [1]}, True):
        operation = history.begin(3, "write", ["a", 1], [value])
        clock.now += 0.1
        operation.ok(value)
    history.begin("c2", "read", "x")
    history.save(tmp_path / "history.jsonl")
    loaded = History.load(tmp_path / "history.jsonl")
    assert loaded.operations == history.operations
    assert len(loaded) == 7


def test_a_loaded_history_goes_on_after_its_last_time() -> None:
    clock = Clock()
    history = History.from_lines([line(call=5000.0, **{"return": 7000.0}), ""], clock)
    assert history.begin("c2", "read", "x").called > 7000.0


def test_a_record_does_not_change_with_the_value_it_was_made_of() -> None:
    history = History(Clock())
    value = [1, {"a": [2]}]
    operation = history.begin("c1", "write", "x", [value])
    operation.ok(value)
    value.append(3)
    assert operation.args == [[1, {"a": [2]}]]
    assert operation.result == [1, {"a": [2]}]


def test_an_operation_ends_once() -> None:
    operation = History(Clock()).begin("c1", "read", "x")
    operation.ok(1)
    with pytest.raises(RuntimeError, match="end each operation once"):
        operation.fail()


def test_a_loaded_operation_cannot_be_ended() -> None:
    operation = Operation.from_line(line(status="unknown", **{"return": None}))
    with pytest.raises(RuntimeError, match="loaded, not begun"):
        operation.ok()


def test_what_json_cannot_hold_is_named() -> None:
    history = History(Clock())
    history.begin("c1", "write", "x", [b"bytes"])
    with pytest.raises(HistoryError, match="'write' of 'c1' holds what JSON cannot"):
        list(history.lines())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: .*exactly the members client, op, .* has list"),
        ('{"client": 1}', "exactly the members"),
        (line(extra=1), "exactly the members"),
        (line(status="done"), "status is 'done'; it is one of ok, fail, unknown"),
        (line(args=1), "args is 1; it is a list"),
        (line(call="now"), "call is 'now'; it is a time"),
        (line(call=True), "call is True; it is a time"),
        (line(**{"return": None}), "return is null, but the status is ok"),
        (line(**{"return": 0.5}), "not before the call, 1.0"),
    ],
)
def test_a_line_that_is_no_operation_is_refused_with_its_number(text: str, reason: str) -> None:
    with pytest.raises(HistoryError, match=reason):
        History.from_lines([line(), text])


def test_frozen_values_are_equal_when_the_values_are() -> None:
    assert freeze({"a": [1, {"b": 2}]}) == freeze({"a": (1, {"b": 2})})
    assert freeze([1, 2]) != freeze([2, 1])
    assert hash(freeze([{"a": []}])) == hash(freeze(({"a": ()},)))


def test_long_lists_are_shown_by_their_end() -> None:
    assert shorten([1, 2, 3]) == "[1, 2, 3]"
    assert shorten(list(range(100))) == "[.. 96 more, 96, 97, 98, 99]"


def test_an_operation_is_shown_on_one_line() -> None:
    assert str(Operation.from_line(line())) == "c1 write x 1  (ok, 1.000000 .. 2.000000)"
    unknown = Operation.from_line(line(status="unknown", **{"return": None}))
    assert str(unknown) == "c1 write x 1  (unknown, 1.000000 .. ?)"
