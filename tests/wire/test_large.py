"""Large bodies: where they are read to, what is handed out uncopied, and what memory is counted for them and when."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
import types
from typing import Any

import msgpack
import pytest

from rpcfw.wire import large
from rpcfw.wire.frames import (
    CHUNK,
    CREDIT,
    END,
    ERROR,
    ITEMS,
    METADATA,
    PARTED,
    PING,
    REPLY,
    REQUEST,
    RESET,
    UNKEPT,
    Frame,
    frame,
)
from rpcfw.wire.handshake import Hello, Settings
from rpcfw.wire.large import LargeBody, binary_start
from rpcfw.wire.reader import SCRATCH_BYTES, Budget, FrameReader

MB = 1_000_000
LIMIT = 262_144


def made(budget: Budget | None = None, *, parts: bool = True) -> FrameReader:
    reader = FrameReader(
        memoryview(bytearray(SCRATCH_BYTES)),
        max_frame_bytes=LIMIT,
        max_message_bytes=16 * MB,
        max_assemblies=8,
        budget=budget or Budget(1 << 30),
    )
    reader.parts = parts
    assert len(reader.feed(Hello(Settings()).pack())) == 1
    return reader


def message(kind: int, flags: int, stream: int, body: bytes, size: int = LIMIT) -> list[bytes]:
    """The frames of a message, each of at most `size` bytes."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    chunks = [frame(CHUNK, 0, 0, stream, len(body), piece) for piece in pieces[:-1]]
    return [*chunks, frame(kind, flags, 1, stream, 0, pieces[-1])]


class Listener:
    """Takes frames as a connection does, with the heads of those in parts."""

    def __init__(self, reader: FrameReader) -> None:
        self.reader = reader
        self.frames: list[Frame] = []
        self.parted = 0

    def __getitem__(self, kind: int, /) -> Any:
        def take(flags: int, method: int, stream: int, extra: int, body: bytes | memoryview) -> None:
            if flags & PARTED:
                self.parted += 1
                flags, body = flags & ~PARTED, self.reader.head + body
            self.frames.append((kind, flags, method, stream, extra, bytes(body)))

        return take

    def hear(self, data: bytes, sizes: list[int]) -> None:
        """Read the data as sockets give it, in pieces of at most these sizes, over and over."""
        view, turn = memoryview(data), 0
        while view:
            size = min(len(self.reader.target()), len(view), sizes[turn % len(sizes)])
            self.reader.target()[:size] = view[:size]
            self.reader.received(size, self)
            view, turn = view[size:], turn + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (bytes(MB), 5),
        ({"data": bytes(MB)}, 11),
        ({"name": "a", "data": bytes(MB)}, 18),
        ({"data": bytes(MB), "name": "a"}, 0),  # something comes after it
        ({"of": {"data": bytes(MB)}}, 0),  # it lies deeper
        ([bytes(MB)], 0),
        ("x" * MB, 0),
        ({"data": "\u00c6" * MB}, 0),
    ],
)
def test_a_binary_value_is_found_only_where_it_ends_the_message(value: object, expected: int) -> None:
    packed: bytes = msgpack.packb(value)
    assert binary_start(packed[:4096], len(packed)) == expected


def test_a_value_that_looks_like_the_head_of_a_binary_one_is_none() -> None:
    size = MB
    lookalike = b"\xc6" + (size - 16).to_bytes(4, "big")
    body = b"\x81\xa1k\xda\x10\x00" + b"....." + lookalike  # within a text
    assert binary_start(body, size) == 0
    assert binary_start(b"\xc6\x00", 7) == 0  # cut short
    assert binary_start(b"", 100_000) == 0


@pytest.mark.parametrize(
    "size", [100_000, MB, 4 * LIMIT]
)  # in one frame, in chunks, with a last one of five bytes
def test_the_bytes_of_a_reply_are_those_it_was_read_into(size: int) -> None:
    payload = random.Random(1).randbytes(size)
    reader = made()
    reader.feed(
        b"".join(message(REPLY, END, 1, bytes(size + 5)))
    )  # not the first: that one earns memory at once, and prepares the allocator
    kept: list[Any] = []
    data = b"".join(message(REPLY, END, 1, msgpack.packb(payload)))

    class Keep:
        def __getitem__(self, kind: int, /) -> Any:
            return lambda flags, method, stream, extra, body: kept.append((flags, reader.head, body.obj))

    def read(at: int) -> int:
        target = reader.target()
        size = min(len(target), len(data) - at)
        target[:size] = data[at : at + size]
        reader.received(size, Keep())  # `target` is still there, as it is while a loop reads
        return at + size

    at = 0
    tracemalloc.start()
    try:
        while at < len(data):
            at = read(at)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    ((flags, head, value),) = kept
    assert (flags, head) == (END | PARTED, b"\xc6" + size.to_bytes(4, "big"))
    assert type(value) is bytes
    assert value == payload
    assert peak < 1.3 * size + 3 * SCRATCH_BYTES, "it was copied"


def test_only_replies_and_requests_that_are_nothing_but_a_value_come_in_parts() -> None:
    body = msgpack.packb(bytes(MB))
    for kind, flags, parted in [
        (REPLY, END, 1),
        (REQUEST, END, 1),
        (ITEMS, 0, 0),
        (REPLY, END | METADATA, 0),
        (REPLY, END | ERROR, 0),
    ]:
        for size in (LIMIT, 200_000):
            listener = Listener(made())
            listener.hear(b"".join(message(ITEMS, 0, 2, body)), [SCRATCH_BYTES])  # earns memory at once
            listener.hear(
                b"".join(message(kind, flags, 1, body[:size] if size < LIMIT else body)), [SCRATCH_BYTES]
            )
            assert [(k, f) for k, f, *_ in listener.frames] == [(ITEMS, 0), (kind, flags)]
            assert listener.parted == (parted if size == LIMIT else 0)
    listener = Listener(made())
    whole: bytes = msgpack.packb(bytes(150_000))  # in one frame
    listener.hear(b"".join(message(REPLY, END, 1, whole)), [SCRATCH_BYTES])
    assert (listener.parted, listener.frames[0][5]) == (1, whole)


@pytest.mark.parametrize("seed", range(40))
def test_however_it_is_cut_what_is_read_is_what_was_sent(seed: int) -> None:
    rng = random.Random(seed)
    queues: list[list[bytes]] = []
    sent: dict[int, tuple[int, bytes]] = {}
    for stream in range(1, 6):
        size = rng.choice([70_000, 150_000, 300_000, 600_000, LIMIT, 2 * LIMIT, 2 * LIMIT + 3])
        payload = rng.randbytes(size)
        body: bytes = msgpack.packb(
            rng.choice([payload, {"data": payload}, {"data": payload, "n": 1}, [payload]])
        )
        kind = rng.choice([REPLY, REQUEST, ITEMS])
        sent[stream] = (kind, body)
        queues.append(message(kind, 0, stream, body, rng.choice([LIMIT, 100_000, 20_000])))
    stray = [frame(PING, 0, 0, 0, 7), frame(CREDIT, 0, 0, 1, 9), frame(RESET, 0, 0, 99, 1, b"r" * 5000)]
    data = bytearray()
    while queues:
        queue = rng.choice(queues)
        data += queue.pop(0)
        if not queue:
            queues.remove(queue)
        if rng.random() < 0.3:
            data += rng.choice(stray)
    listener = Listener(made())
    listener.hear(bytes(data), [rng.choice([1 << 20, SCRATCH_BYTES, 5000, 999]) for _ in range(5)])
    assert listener.reader.error is None
    assert {s: (k, body) for k, _, _, s, _, body in listener.frames if k in (REPLY, REQUEST, ITEMS)} == sent
    assert listener.reader.budget.used == 0


def test_memory_that_is_taken_at_once_counts_at_once() -> None:
    budget = Budget(10 * MB)
    reader = made(budget)
    reader.feed(frame(CHUNK, 0, 0, 1, 500_000, bytes(100_000)))  # 64 KiB of it in the first read
    assert budget.used == 500_000
    reader.feed(frame(RESET, 0, 0, 1, 1))
    assert budget.used == 0


def test_a_peer_that_has_sent_as_much_before_is_given_memory_at_once() -> None:
    budget = Budget(64 * MB)
    reader = made(budget)
    reader.feed(frame(CHUNK, 0, 0, 1, MB, bytes(1000)))
    assert budget.used == 1000
    reader.feed(frame(REQUEST, END, 1, 1, 0, bytes(100)))
    assert reader.error is not None  # it was not of the size announced, so it earned nothing
    reader = made(budget)
    reader.feed(b"".join(message(REQUEST, END, 1, bytes(MB))))
    reader.feed(frame(CHUNK, 0, 0, 2, MB, bytes(1000)))
    assert budget.used == MB
    reader.feed(frame(CHUNK, 0, 0, 3, MB + 1, bytes(1000)))
    assert budget.used == MB + 1000
    reader = made(budget := Budget(64 * MB))
    reader.feed(b"".join(message(REQUEST, END, 1, bytes(3 * MB))))
    reader.feed(frame(CHUNK, 0, 0, 2, 3 * MB, bytes(1000)))
    assert budget.used == 1000, "more than two megabytes at once"


def earned(budget: Budget, size: int, times: int = 1) -> FrameReader:
    """A reader that this many messages of this size have come to whole."""
    reader = made(budget)
    for _ in range(times):
        reader.feed(b"".join(message(REQUEST, END, 1, bytes(size))))
    assert (reader.error, budget.used) == (None, reader.budget.used)
    return reader


def test_all_messages_half_way_together_take_no_more_at_once_than_the_peer_has_sent() -> None:
    size = 2 << 20
    for times, at_once in [(1, size), (2, 2 * size), (5, 2 * size)]:  # four megabytes are the most
        budget = Budget(1 << 30)
        reader = earned(budget, size, times)
        for stream in range(2, 10):
            reader.feed(frame(CHUNK, 0, 0, stream, size, b"x"))
        assert budget.used == at_once + 8 - at_once // size
        reader.feed(frame(RESET, 0, 0, 2, 1))  # that one's memory may be taken again
        reader.feed(frame(CHUNK, 0, 0, 10, size, b"x"))
        assert budget.used == at_once + 8 - at_once // size
        reader.close()
        assert budget.used == 0


def test_messages_one_after_the_other_each_get_their_memory_at_once() -> None:
    budget = Budget(64 * MB)
    reader = earned(budget, MB)
    for stream in range(2, 30):
        first, *rest = message(REQUEST, END, stream, bytes(MB))
        reader.feed(first)
        assert budget.used == MB
        assert len(reader.feed(b"".join(rest))) == 1
        assert budget.used == 0


def test_however_many_peers_stop_half_way_most_of_the_budget_is_left() -> None:
    size, budget = 2 << 20, Budget(32 << 20)
    readers = [earned(budget, size, 2) for _ in range(20)]
    for reader in readers:
        for stream in range(2, 10):
            reader.feed(frame(CHUNK, 0, 0, stream, size, b"x"))
    assert budget.used <= budget.limit // 4 + 20 * 8
    honest = made(budget)
    (read,) = honest.feed(b"".join(message(REQUEST, END, 1, bytes(16 * MB))))
    assert not read[1] & UNKEPT, "nothing was left for it"
    for reader in readers:
        reader.close()
    assert budget.used == 0


def test_a_stranger_is_given_a_small_multiple_of_what_it_has_sent() -> None:
    budget = Budget(1 << 30)
    reader = made(budget)
    data = frame(CHUNK, 0, 0, 1, 2_090_000, bytes(65_504))
    for stream in range(1, 9):
        reader.feed(frame(CHUNK, 0, 0, stream, 2_090_000, bytes(65_504)))
        assert budget.used <= 8 * stream * len(data)
    reader = made(budget := Budget(1 << 30))
    for stream in range(1, 9):
        reader.feed(frame(CHUNK, 0, 0, stream, 500_000, bytes(65_504)))
    assert budget.used == 500_000 + 7 * 65_504, "one at a time"


def test_a_frame_on_its_way_counts_while_its_memory_is_taken() -> None:
    body = bytes(200_000)
    data = frame(REQUEST, END, 1, 1, 0, body)
    for end in ("it came whole", "the connection closed"):
        budget = Budget(64 * MB)
        reader = made(budget)
        reader.feed(data[:100_000])
        assert budget.used == len(body)
        if end == "it came whole":
            seen: list[int] = []

            class Count:
                def __getitem__(self, kind: int, /) -> Any:
                    return lambda *fields: seen.append(budget.used)  # noqa: B023 - of this turn

            rest = data[100_000:]
            while rest:
                target = reader.target()
                size = min(len(target), len(rest))
                target[:size] = rest[:size]
                reader.received(size, Count())
                rest = rest[size:]
            assert seen == [0], "who handles it counts it anew"
        else:
            reader.close()
        assert budget.used == 0


def test_a_frame_that_memory_was_not_earned_for_is_given_it_as_it_comes() -> None:
    body = bytes(range(250)) * 1000
    data = frame(REQUEST, END, 1, 1, 0, body)
    stranger, budget = made(), Budget(4 * len(body) - 1)
    full, other = made(budget), made(budget)
    for reader, first in ((stranger, 8_300), (full, 65_000), (other, 65_000)):
        tracemalloc.start()
        try:
            assert not reader.feed(data[:first])
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken < len(body) // 2, "it was taken at once"
        assert reader.budget.used == 0
        ((*_, got),) = reader.feed(data[first:])
        assert got == body


def test_frames_half_way_on_many_connections_take_a_part_of_the_budget_together() -> None:
    budget = Budget(4 * MB)
    readers = [made(budget) for _ in range(50)]
    data = frame(REQUEST, END, 1, 1, 0, bytes(250_000))
    for reader in readers:
        reader.feed(data[:65_000])
    assert budget.used == MB
    for reader in readers:
        assert len(reader.feed(data[65_000:])) == 1
    assert budget.used == 0


def test_large_frames_that_came_whole_earn_memory_at_once() -> None:
    budget = Budget(64 * MB)
    reader = made(budget)
    data = frame(REQUEST, END, 1, 1, 0, bytes(200_000))
    reader.feed(data[:5000])
    assert budget.used == 0
    reader.feed(data[5000:])
    for _ in range(30):  # what one took is there for the next
        reader.feed(data[:5000])
        assert budget.used == 200_000
        assert len(reader.feed(data[5000:])) == 1
        assert budget.used == 0


def test_a_breach_amid_messages_gives_all_memory_back() -> None:
    budget = Budget(64 * MB)
    reader = earned(budget, MB)
    reader.feed(frame(CHUNK, 0, 0, 2, MB, b"x"))
    reader.feed(frame(CHUNK, 0, 0, 3, MB, b"x"))
    assert budget.used == MB + 1
    reader.feed(frame(CHUNK, 0, 0, 2, MB, bytes(LIMIT + 1)))
    assert reader.error is not None
    assert budget.used == 0


def test_a_peer_that_has_sent_little_is_given_memory_only_for_what_comes() -> None:
    budget = Budget(64 * MB)
    reader = made(budget)
    tracemalloc.start()
    try:
        for stream in range(1, 8):
            reader.feed(frame(CHUNK, 0, 0, stream, 8 * MB, bytes(1000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert budget.used == 7000
    assert peak < MB


def test_a_message_that_the_budget_cannot_hold_takes_none_of_its_memory() -> None:
    budget = Budget(500_000)
    reader = made(budget)
    tracemalloc.start()
    try:
        reader.feed(frame(CHUNK, 0, 0, 1, 510_000, bytes(100_000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert budget.used <= 100_000
    assert peak < 510_000


def test_a_body_in_parts_is_of_the_size_announced() -> None:
    body: bytes = msgpack.packb(bytes(100_000))
    large = LargeBody(len(body), body[:4096], taken=True, may_part=True)
    assert (len(large.view), large.taken) == (100_000, len(body))
    assert LargeBody(len(body), body[:4096], taken=False, may_part=True).head == b""


def test_a_body_that_the_collector_frees_half_filled_complains_of_nothing() -> None:
    complaints: list[object] = []
    usual, sys.unraisablehook = sys.unraisablehook, lambda found: complaints.append(found.exc_value)
    try:
        for _ in range(20):
            size = 100_005
            body = LargeBody(size, b"\xc6\x00\x01\x86\xa0", taken=True, may_part=True)
            assert body.head, "the body is not received in parts, so that this shows nothing"
            circle: list[object] = [body]
            circle.append(circle)
            del body, circle
            gc.collect()
    finally:
        sys.unraisablehook = usual
    assert complaints == []


def test_buffers_are_made_without_the_interpreters_own_functions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def received() -> list[Frame]:
        reader, body = made(), msgpack.packb(random.Random(1).randbytes(MB))
        frames = [part for _ in range(3) for part in message(REPLY, END, 1, body)]
        return [frame for part in frames for frame in reader.feed(part)]

    expected = received()
    for unusable in (None, types.SimpleNamespace()):  # cannot be imported, and has none of it
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "ctypes", unusable)
            assert large._unfilled() is None
    with monkeypatch.context() as patch:
        patch.setattr(large, "_unfilled", lambda: None)
        large._allocators.cache_clear()
        assert large._allocators() == (bytes, bytearray)
        assert received() == expected
    large._allocators.cache_clear()


def test_memory_that_is_not_zeroed_has_the_size_asked_for() -> None:
    assert large._allocators() != (bytes, bytearray)
    new_bytes, new_bytearray = large._allocators()
    assert (type(new_bytes(MB)), len(new_bytes(MB))) == (bytes, MB)
    assert (type(new_bytearray(MB)), len(new_bytearray(MB))) == (bytearray, MB)
    with pytest.raises(MemoryError):
        new_bytes(sys.maxsize // 2)


@pytest.mark.parametrize(("begins", "size"), [(b"\xc6\x01\x00\x00", 65_541), (b"\xc6\xff\xff", 65_540)])
def test_a_length_of_which_part_has_come_is_not_taken_for_one(begins: bytes, size: int) -> None:
    body = begins + b"y" * (size - len(begins))
    assert binary_start(begins, size) == 0
    for cut in range(1, 8):
        whole = message(REPLY, END, 3, body)[0]
        listener = Listener(earned(Budget(1 << 30), MB))
        listener.hear(whole[: 16 + cut], [len(whole)])
        listener.hear(whole[16 + cut :] + frame(PING, 0, 0, 0, 9), [len(whole)])
        assert [heard[0] for heard in listener.frames] == [REPLY, PING]
        assert listener.frames[0][5] == body
