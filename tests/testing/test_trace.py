"""The trace: a digest that is equal for equal runs and for no others, and a memory with a bound."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from rpcfw.testing.trace import Trace

RUN = """
from rpcfw.testing.trace import Trace
trace = Trace(iter(range(100)).__next__)
names = {"orders", "stock", "client", "payments"}
for name in sorted(names):
    trace.record("start", name, f"the task is {object()!r}", up=True, share=0.1, of=len(names), what=None)
message = trace.send("client", "orders", "caf\\u00e9 \\udc80", bytes=12)
trace.receive(message, "client", "orders")
trace.lose(message, "client", "orders", "partition")
print(trace.digest())
"""


def ticking() -> Callable[[], float]:
    return itertools.count(1000.0, 0.5).__next__


def digest(*events: tuple[str, str, str], **details: str | int | float | bool | None) -> str:
    trace = Trace(ticking())
    for kind, host, text in events:
        trace.record(kind, host, text, **details)
    return trace.digest()


def test_equal_runs_have_equal_digests_in_every_process_and_with_every_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", RUN],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "2", "random")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_the_digest_tells_apart_time_order_and_every_part_of_an_event() -> None:
    a, b = ("kind", "host", "text"), ("kind", "host", "other")
    runs = [
        digest(),
        digest(a),
        digest(a, a),
        digest(a, b),
        digest(b, a),
        digest(("kin", "dhost", "text")),
        digest(("kind", "", "hosttext")),
        digest(("kind", "host", 'text"')),
        digest(("kind", "host", "text\n")),
        digest(a, n=1),
        digest(a, n=2),
        digest(a, n="1"),
        digest(a, n=1.0),
        digest(a, n=True),
        digest(a, n=None),
        digest(a, m=1),
    ]
    assert len(set(runs)) == len(runs)
    later = Trace(lambda: 7.0)
    later.record(*a)
    assert later.digest() not in runs


def test_the_order_in_which_details_are_named_does_not_count() -> None:
    assert digest(("kind", "host", "text"), a=1, b=2) == digest(("kind", "host", "text"), b=2, a=1)


def test_asking_for_the_digest_changes_nothing() -> None:
    asked, unasked = Trace(ticking()), Trace(ticking())
    for trace in (asked, unasked):
        trace.record("a", "h")
        if trace is asked:
            assert trace.digest() == trace.digest()
        trace.record("b", "h")
    assert asked.digest() == unasked.digest()


def test_memory_is_bounded_and_the_digest_covers_what_was_dropped() -> None:
    small, large = Trace(ticking(), keep=10), Trace(ticking())
    for trace in (small, large):
        for number in range(1_000):
            trace.record("tick", "host", f"number {number}")
    assert [event.number for event in small] == list(range(990, 1_000))
    assert (small.recorded, small.dropped, large.dropped) == (1_000, 990, 0)
    assert small.digest() == large.digest()
    assert [event.text for event in small] == [event.text for event in large][-10:]
    other = Trace(ticking(), keep=10)
    other.record("tick", "host", "something else")
    for number in range(1, 1_000):
        other.record("tick", "host", f"number {number}")
    assert other.digest() != small.digest()


def test_a_message_is_paired_by_its_id_and_names_both_ends() -> None:
    trace = Trace(ticking())
    first, second = trace.send("a", "b", "one"), trace.send("a", "c", "two")
    trace.receive(second, "a", "c", "two")
    trace.lose(first, "a", "b", "cut", bytes=9)
    assert [(event.kind, event.host, event.details["message"], event.details["peer"]) for event in trace] == [
        ("send", "a", first, "b"),
        ("send", "a", second, "c"),
        ("receive", "c", second, "a"),
        ("lost", "a", first, "b"),
    ]
    assert first != second


def test_a_line_reads_well() -> None:
    trace = Trace(ticking())
    trace.record("crash", "orders", "power", torn=True)
    trace.record("heal", "", "all links")
    assert trace.lines == ["1000.000000 orders crash power torn=True", "1000.500000 * heal all links"]


def test_addresses_are_taken_out_of_texts_and_details() -> None:
    trace = Trace(ticking())
    trace.record("note", "a", f"{object()!r} and {object()!r}", error=repr(asyncio.Lock))
    trace.record("note", "a", "", error=repr(object()))
    events = list(trace)
    assert events[0].text == "<object object at 0x> and <object object at 0x>"
    assert events[1].details["error"] == "<object object at 0x>"


def test_a_detail_that_could_differ_between_equal_runs_is_refused_by_name() -> None:
    trace = Trace(ticking())
    with pytest.raises(TypeError, match=r"detail hosts=\{'a'\} of 'partition' is a set; record a str"):
        trace.record("partition", "", "", hosts={"a"})  # type: ignore[arg-type]
    assert (trace.recorded, trace.lines) == (0, [])
    with pytest.raises(ValueError, match="keep=-1 is negative"):
        Trace(ticking(), keep=-1)
