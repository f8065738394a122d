"""The reader: sizes are checked before memory is taken, bodies land where they belong, nothing is kept afterwards."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from rpcfw.wire.frames import CHUNK, CREDIT, END, HEADER, ITEMS, PING, REPLY, REQUEST, RESET, UNKEPT, frame
from rpcfw.wire.handshake import Hello, Settings
from rpcfw.wire.reader import SCRATCH_BYTES, Budget, FrameReader

GREETING = Hello(Settings()).pack()
LIMIT = 50_000


def made(budget: Budget | None = None, scratch: memoryview | None = None) -> FrameReader:
    reader = FrameReader(
        scratch or memoryview(bytearray(SCRATCH_BYTES)),
        max_frame_bytes=LIMIT,
        max_message_bytes=4 * LIMIT,
        max_assemblies=2,
        budget=budget or Budget(1 << 30),
    )
    assert len(reader.feed(GREETING)) == 1
    return reader


def chunk(stream: int, total: int, body: bytes) -> bytes:
    return frame(CHUNK, 0, 0, stream, total, body)


def last(stream: int, body: bytes) -> bytes:
    return frame(REQUEST, END, 1, stream, 0, body)


def test_a_length_of_four_gibibytes_is_refused_before_any_memory_is_taken() -> None:
    reader = made()
    tracemalloc.start()
    try:
        assert reader.feed(HEADER.pack(0xFFFF_FFFF, REQUEST, END, 1, 1, 0)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "a frame of 4,294,967,295 bytes is over the limit of 50,000" in str(reader.error)
    assert peak < 20_000


def test_the_largest_frame_is_read_and_one_byte_more_is_not() -> None:
    reader = made()
    assert len(reader.feed(frame(REQUEST, END, 1, 1, 0, bytes(LIMIT)))) == 1
    assert reader.feed(frame(REQUEST, END, 1, 1, 0, bytes(LIMIT + 1))) == []
    assert reader.error is not None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (chunk(1, 4 * LIMIT + 1, b"x"), "a message of 200,001 bytes is over the limit of 200,000"),
        (chunk(1, 0xFFFF_FFFF, b"x"), "over the limit"),
        (b"".join(chunk(stream, 10, b"x") for stream in (1, 2, 3)), "more than 2 chunked messages at a time"),
        (chunk(1, 3, b"abc"), "a CHUNK of 3 bytes where 3 bytes of the message were left"),
        (chunk(1, 0, b""), "a CHUNK of 0 bytes where 0 bytes"),
        (chunk(1, 3, b"a") + chunk(1, 3, b"bcd"), "a CHUNK of 3 bytes where 2 bytes"),
        (chunk(1, 3, b"a") + last(1, b"b"), "a REQUEST of 1 bytes where 2 bytes"),
        (chunk(1, 3, b"a") + last(1, b"bcd"), "a REQUEST of 3 bytes where 2 bytes"),
        (chunk(0, 3, b"a"), "stream 0, which carries no messages"),
    ],
)
def test_a_broken_rule_of_chunks_ends_the_connection_with_its_name(data: bytes, reason: str) -> None:
    budget = Budget(1 << 30)
    reader = made(budget)
    assert reader.feed(data) == []
    assert reason in str(reader.error)
    assert budget.used == 0


def test_what_comes_before_the_violation_counts_and_nothing_after_it() -> None:
    reader = made()
    good, bad = last(1, b"\x80"), chunk(0, 3, b"a")
    assert [stream for _, _, _, stream, _, _ in reader.feed(good + bad + good)] == [1]
    assert reader.feed(good) == []


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", bytes(16), HEADER.pack(0, REQUEST, END, 1, 1, 0)]
)
def test_a_stranger_is_told_at_its_first_sixteen_bytes(data: bytes) -> None:
    reader = FrameReader(
        memoryview(bytearray(64)), max_frame_bytes=1, max_message_bytes=1, max_assemblies=1, budget=Budget(0)
    )
    assert reader.feed(data[:15]) == []
    assert reader.error is None
    assert reader.feed(data[15:]) == []
    assert repr(data[:16]) in str(reader.error)


def test_the_large_body_of_a_frame_is_read_into_a_buffer_of_its_own() -> None:
    reader = made()
    data = last(1, bytes(range(256)) * 100)
    scratch = reader.target()
    assert reader.feed(data[:20]) == []
    target = reader.target()
    assert target.obj is not scratch.obj
    assert len(target) == len(data) - 20
    ((*_, body),) = reader.feed(data[20:])
    assert isinstance(body, memoryview)
    assert body.obj is target.obj, "copied"
    assert body == data[16:]


def test_chunks_are_read_into_the_buffer_of_their_message() -> None:
    reader = made()
    first, second = bytes(range(250)) * 100, b"x" * 20_000
    reader.feed(chunk(1, 45_000, first))
    header = HEADER.pack(20_000, REQUEST, END, 1, 1, 0)
    reader.feed(header)
    target = reader.target()
    assert len(target) == 20_000
    ((*_, body),) = reader.feed(second)
    assert isinstance(body, memoryview)
    assert body.obj is target.obj, "copied"
    assert body == first + second


def test_bodies_stay_as_they_are_when_more_arrives() -> None:
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    one, other = made(scratch=scratch), made(scratch=scratch)
    kept = [body for *_, body in one.feed(last(1, b"small") + last(2, b"y" * 9000))]
    other.feed(last(1, b"z" * 9000) + chunk(2, 9000, b"z" * 5000))
    one.feed(last(3, b"other" * 2000))
    assert [bytes(body) for body in kept] == [b"small", b"y" * 9000]


def test_two_messages_and_a_small_frame_may_be_on_their_way_at_a_time() -> None:
    reader = made()
    data = (
        chunk(1, 4, b"a")
        + chunk(2, 4, b"x")
        + last(3, b"!")
        + chunk(1, 4, b"b")
        + last(2, b"yzz")
        + last(1, b"cc")
    )
    frames = reader.feed(data)
    assert [(stream, bytes(body)) for _, _, _, stream, _, body in frames] == [
        (3, b"!"),
        (2, b"xyzz"),
        (1, b"abcc"),
    ]


@pytest.mark.parametrize("other", [CREDIT, PING])
@pytest.mark.parametrize("cut", [10, 4500])
def test_frames_that_are_no_message_may_come_between_the_chunks_of_one(other: int, cut: int) -> None:
    reader = made()
    stream = 1 if other == CREDIT else 0
    between = frame(other, 0, 0, stream, 5, b"?" * cut)
    frames = reader.feed(chunk(1, 3, b"a"))
    for part in (between[: cut // 2 + 16], between[cut // 2 + 16 :], last(1, b"bc")):
        frames += reader.feed(part)
    assert [(kind, bytes(body)) for kind, *_, body in frames] == [(other, b"?" * cut), (REQUEST, b"abc")]


@pytest.mark.parametrize("reason", [b"", b"r" * 5000])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_reset_gives_up_a_message_half_way_and_its_memory(reason: bytes, pieces: int) -> None:
    budget = Budget(1 << 30)
    reader = made(budget)
    reset = frame(RESET, 0, 0, 1, 1, reason)
    reader.feed(chunk(1, 1000, b"a" * 900))
    assert budget.used == 900
    cut = len(reset) // pieces
    frames = reader.feed(reset[:cut]) + reader.feed(reset[cut:])
    assert [kind for kind, *_ in frames] == [RESET]
    assert budget.used == 0
    assert len(reader.feed(chunk(2, 2, b"a") + chunk(3, 2, b"a") + last(2, b"b") + last(3, b"b"))) == 2


def test_a_message_for_which_there_is_no_memory_is_read_past() -> None:
    budget = Budget(1500)
    reader = made(budget)
    frames = reader.feed(
        chunk(1, 1000, b"a" * 999)
        + chunk(2, 1000, b"b" * 999)
        + last(2, b"b")
        + last(1, b"a")
        + last(3, b"c")
    )
    found = [(stream, len(body), flags & UNKEPT) for _, flags, _, stream, _, body in frames]
    assert found == [(2, 0, UNKEPT), (1, 1000, 0), (3, 1, 0)]
    assert budget.used == 0
    assert reader.error is None


def test_closing_gives_back_all_memory() -> None:
    budget = Budget(1 << 30)
    reader = made(budget)
    reader.feed(chunk(1, 1000, b"a") + chunk(2, 2000, b"aaa"))
    assert budget.used == 4
    reader.close()
    assert budget.used == 0


def test_a_budget_is_never_overdrawn() -> None:
    budget = Budget(10)
    assert budget.take(10)
    assert not budget.take(1)
    budget.give(4)
    assert budget.take(4)
    assert budget.used == 10


def _many(kind: int) -> Callable[[int], bytes]:
    return lambda count: b"".join(frame(kind, 0, 0, stream, 0, b"") for stream in range(1, count))


@pytest.mark.parametrize("make", [_many(REPLY), _many(ITEMS), lambda count: chunk(1, 9, b"") * count])
def test_many_tiny_frames_take_no_memory_beyond_their_own(make: Callable[[int], bytes]) -> None:
    reader = made()
    data = make(20_000)
    reader.feed(data[:1000])
    tracemalloc.start()
    try:
        for at in range(1000, len(data), 4096):
            reader.feed(data[at : at + 4096])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.error is None
    assert kept < 50_000
