"""The wire does not change by accident: every frame and every conversation is compared with its recorded bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.errors import Code, ProtocolError, RpcError
from rpcfw.wire.frames import (
    CHUNK,
    CREDIT,
    END,
    ERROR,
    FRAME_NAMES,
    GOAWAY,
    HEADER_BYTES,
    HELLO,
    ITEMS,
    MAGIC,
    METADATA,
    ONEWAY,
    PING,
    PONG,
    REFUSED,
    REPLY,
    REQUEST,
    RESET,
    Frame,
    frame,
    pack_error,
    unpack_error,
    with_metadata,
)
from rpcfw.wire.handshake import Hello, Settings
from rpcfw.wire.reader import SCRATCH_BYTES, Budget, FrameReader
from tests.wire.ends import CLIENT, SERVER
from tests.wire.links import parse, split
from tests.wire.recordings import bytes_of, load, names, read, render
from tests.wire.scenes import SCENES, play

SIDES = [(name, side) for name in SCENES for side in (CLIENT, SERVER)]
GREETING = load("unary")[0][1]

# What is encoded, and its bytes: one of every type and flag.
FRAMES: list[tuple[Frame, str]] = [
    ((REQUEST, END, 0x0102, 0x03040506, 0, b"\x80"), "01000000 01 01 0201 06050403 00000000 80"),
    ((REQUEST, 0, 7, 1, 50_000, b""), "00000000 01 00 0700 01000000 50c30000"),
    ((REQUEST, END | ONEWAY, 7, 2, 0, b"\x80"), "01000000 01 09 0700 02000000 00000000 80"),
    (
        (REQUEST, END | METADATA, 0, 3, 0, with_metadata(b"\x81\xa1k\xa1v", b"\x80")),
        "0a000000 01 03 0000 03000000 00000000 05000000 81a16ba176 80",
    ),
    ((REPLY, END, 0, 1, 0, b"\x2a"), "01000000 02 01 0000 01000000 00000000 2a"),
    (
        (REPLY, END | ERROR | REFUSED, 0, 1, 0, pack_error(RpcError(Code.NOT_FOUND, "no"))),
        "12000000 02 15 0000 01000000 00000000 82 a4636f6465 05 a76d657373616765 a26e6f",
    ),
    ((ITEMS, 0, 0, 1, 2, b"\x92\x01\x02"), "03000000 03 00 0000 01000000 02000000 920102"),
    ((ITEMS, END, 0, 1, 0, b""), "00000000 03 01 0000 01000000 00000000"),
    ((CREDIT, 0, 0, 1, 131_072, b""), "00000000 04 00 0000 01000000 00000200"),
    ((RESET, 0, 0, 1, 4, b"late"), "04000000 05 00 0000 01000000 04000000 6c617465"),
    ((PING, 0, 0, 0, 0xFFFF_FFFF, b""), "00000000 06 00 0000 00000000 ffffffff"),
    (
        (PONG, 0, 0, 0, 1, b"\x81\xa7running\x05"),
        "0a000000 07 00 0000 00000000 01000000 81a772756e6e696e6705",
    ),
    ((GOAWAY, 0, 0, 0, 14, b"bye"), "03000000 08 00 0000 00000000 0e000000 627965"),
]


def reader(settings: Settings | None = None, budget: Budget | None = None) -> FrameReader:
    settings = settings or Settings()
    return FrameReader(
        memoryview(bytearray(SCRATCH_BYTES)),
        max_frame_bytes=settings.max_frame_bytes,
        max_message_bytes=settings.max_message_bytes,
        max_assemblies=settings.max_assemblies,
        budget=budget or Budget(1 << 30),
    )


def plain(frames: list[Frame]) -> list[Frame]:
    return [(*fields, bytes(body)) for *fields, body in frames]  # type: ignore[misc]  # mypy cannot count here


def joined(frames: list[bytes]) -> Iterator[Frame]:
    """What a reader must make of frames, said in the simplest way."""
    parts: dict[int, bytes] = {}
    for data in frames:
        kind, flags, method, stream, extra, body = parse(data)
        if kind == CHUNK:
            parts[stream] = parts.get(stream, b"") + bytes(body)
            continue
        if kind == RESET:
            parts.pop(stream, None)
        if kind in (REQUEST, REPLY, ITEMS):
            body = parts.pop(stream, b"") + bytes(body)
        yield kind, flags, method, stream, extra, body


@pytest.mark.parametrize(("fields", "recorded"), FRAMES, ids=lambda value: str(value)[:30])
def test_a_frame_is_encoded_and_decoded_as_recorded(fields: Frame, recorded: str) -> None:
    kind, flags, method, stream, extra, body = fields
    data = bytes.fromhex(recorded)
    assert frame(kind, flags, method, stream, extra, bytes(body)) == data
    read_by = reader()
    read_by.feed(GREETING)
    assert plain(read_by.feed(data)) == [fields]


def test_a_chunked_message_is_decoded_as_recorded() -> None:
    read_by = reader()
    read_by.feed(GREETING)
    chunks = "02000000 09 00 0000 05000000 06000000 a5 68  03000000 09 00 0000 05000000 06000000 65 6c 6c"
    assert read_by.feed(bytes.fromhex(chunks)) == []
    last = bytes.fromhex("01000000 02 01 0000 05000000 00000000 6f")
    assert plain(read_by.feed(last)) == [(REPLY, END, 0, 5, 0, b"\xa5hello")]


@pytest.mark.parametrize("scene", SCENES)
def test_a_conversation_is_as_recorded(scene: str) -> None:
    played, recorded = play(scene), load(scene)
    mend = "the wire has changed: if it was meant, python -m tests.wire.recordings"
    for side in (CLIENT, SERVER):
        own = [(who, data) for who, data in recorded if who == side]
        assert render([(who, data) for who, data in played if who == side]) == render(own), mend


def test_every_type_of_frame_and_every_flag_is_recorded() -> None:
    frames = [parse(data) for name in names() for _, data in load(name)]
    assert {kind for kind, *_ in frames} == set(range(len(FRAME_NAMES)))
    assert {flag for _, flags, *_ in frames for flag in (END, METADATA, ERROR, ONEWAY, REFUSED) if flags & flag} == {
        1, 2, 4, 8, 16,
    }  # fmt: skip


def test_recordings_are_read_as_they_were_written() -> None:
    assert names() == sorted(SCENES)
    for name in names():
        assert read(render(load(name))) == load(name)


def test_the_greetings_are_encoded_and_decoded_as_recorded() -> None:
    (_, asked), (_, answered) = load("unary")[:2]
    assert Hello(Settings()).pack() == asked
    assert Hello.unpack(asked[HEADER_BYTES:]) == Hello(Settings(), {})
    kind, *_, magic, body = parse(answered)
    hello = Hello.unpack(body)
    assert (kind, magic) == (HELLO, MAGIC)
    assert magic.to_bytes(4, "little") == b"RPCF"
    assert hello.pack() == answered
    version, methods = hello.services["shop.Orders"]
    assert (version, methods["get"].id, len(methods["get"].fingerprint)) == ("1.0", 1, 16)


def test_errors_are_decoded_as_recorded() -> None:
    replies = [parse(data) for who, data in load("errors") if who == SERVER][1:]
    errors = [unpack_error(body) for *_, body in replies]
    assert [(error.code, error.details) for error in errors] == [
        (Code.UNKNOWN, {}),
        (Code.INVALID_ARGUMENT, {"field": "item"}),
        (Code.INVALID_ARGUMENT, {}),
        (Code.UNIMPLEMENTED, {}),
    ]
    assert (
        pack_error(RpcError(errors[1].code, errors[1].message, errors[1].details, executed=True))
        == replies[1][5]
    )
    declared = msgpack.unpackb(replies[0][5])
    assert declared["declared"] == "OutOfStock"
    assert msgpack.unpackb(declared["fields"]) == {"item": "moon", "left": 0}


@pytest.mark.parametrize(("scene", "side"), SIDES)
def test_a_stream_cut_at_any_byte_gives_the_same_frames(scene: str, side: str) -> None:
    data = bytes_of(load(scene), side)
    expected = list(joined(split(data)))
    assert plain(reader().feed(data)) == expected
    for cut in range(len(data) + 1):
        read_by = reader()
        frames = read_by.feed(data[:cut]) + read_by.feed(data[cut:])
        assert plain(frames) == expected, f"cut at byte {cut}"
        assert read_by.error is None


@pytest.mark.parametrize(("scene", "side"), SIDES)
def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames(scene: str, side: str) -> None:
    data = bytes_of(load(scene), side)
    read_by = reader()
    frames = [found for at in range(len(data)) for found in read_by.feed(data[at : at + 1])]
    assert plain(frames) == list(joined(split(data)))


@given(st.data())
def test_a_stream_cut_into_any_pieces_gives_the_same_frames(data: st.DataObject) -> None:
    scene, side = data.draw(st.sampled_from(SIDES))
    stream = bytes_of(load(scene), side)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    read_by = reader()
    frames = [
        found
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for found in read_by.feed(stream[start:end])
    ]
    assert plain(frames) == list(joined(split(stream)))


@given(st.data())
def test_a_mutated_stream_gives_frames_or_a_named_violation_and_keeps_no_memory(data: st.DataObject) -> None:
    scene, side = data.draw(st.sampled_from(SIDES))
    stream = bytearray(bytes_of(load(scene), side))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(stream) - 1))
        match data.draw(st.sampled_from(("byte", "cut", "double", "number"))):
            case "byte":
                stream[at] = data.draw(st.integers(0, 255))
            case "cut":
                del stream[at : at + data.draw(st.integers(1, 40))]
            case "double":
                stream[at:at] = stream[at : at + data.draw(st.integers(1, 200))]
            case "number":
                stream[at : at + 4] = data.draw(
                    st.sampled_from((b"\xff" * 4, bytes(4), b"\xff\xff\0\0", b"\0\0\0\x80"))
                )
        if not stream:
            break
    settings, budget = Settings(max_message_bytes=60_000), Budget(200_000)
    read_by = reader(settings, budget)
    frames = read_by.feed(bytes(stream))
    assert read_by.error is None or (isinstance(read_by.error, ProtocolError) and str(read_by.error))
    assert all(len(body) <= settings.max_frame_bytes or len(body) <= 60_000 for *_, body in frames)
    assert budget.used <= budget.limit
    read_by.close()
    assert budget.used == 0


def test_random_bytes_are_no_greeting() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(2000):
        data = rng.randbytes(rng.randrange(16, 200))
        read_by = reader()
        assert read_by.feed(data) == []
        assert "does not speak rpcfw" in str(read_by.error)
