"""Recorded conversations as text that a person can read: who says what, with every byte of it.

The files lie in tests/wire/recorded/. `python -m tests.wire.recordings` writes them anew; read the difference before
it is committed, since each is a change of the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from rpcfw.wire.frames import (
    END,
    ERROR,
    FRAME_NAMES,
    GOAWAY,
    METADATA,
    ONEWAY,
    REFUSED,
    RESET,
    split_metadata,
)
from tests.wire.links import parse

FOLDER = Path(__file__).parent / "recorded"
FLAGS = {END: "END", METADATA: "METADATA", ERROR: "ERROR", ONEWAY: "ONEWAY", REFUSED: "REFUSED"}
_WIDTH = 16
_HEX = re.compile(r"^ {4}([0-9a-f]{4,8})  ([0-9a-f ]{47})  \|")
_HEAD = re.compile(r"^(client|server): ([A-Z]+)")

Said = tuple[str, bytes]
"""A sender, "client" or "server", and one frame of its."""


def load(name: str) -> list[Said]:
    """A recorded conversation, frame by frame."""
    return read((FOLDER / f"{name}.txt").read_text())


def names() -> list[str]:
    """All recordings."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def bytes_of(said: Sequence[Said], sender: str) -> bytes:
    """Everything that one side says."""
    return b"".join(frame for who, frame in said if who == sender)


def read(text: str) -> list[Said]:
    """What `render` has written."""
    said: list[tuple[str, bytearray]] = []
    repeat = b""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            said.append((head[1], bytearray()))
        elif line == "    *":
            repeat = bytes(said[-1][1][-_WIDTH:])
        elif found := _HEX.match(line):
            data = said[-1][1]
            while repeat and len(data) < int(found[1], 16):
                data += repeat
            repeat = b""
            assert len(data) == int(found[1], 16), line
            data += bytes.fromhex(found[2])
    return [(who, bytes(data)) for who, data in said]


def render(said: Sequence[Said]) -> str:
    """A conversation as text: a line about each frame, its bytes, and its body for the eye."""
    return "\n".join(line for who, frame in said for line in (*_frame(who, frame), "")).rstrip() + "\n"


def _frame(who: str, data: bytes) -> Iterator[str]:
    kind, flags, method, stream, extra, body = parse(data)
    named = "|".join(name for flag, name in FLAGS.items() if flags & flag) or "0"
    last = f"0x{extra:08x}" if kind == 0 else str(extra)
    yield (
        f"{who}: {FRAME_NAMES[kind]}  length={len(body)} flags={named} method={method} stream={stream} last={last}"
    )
    yield from _hexdump(data)
    for line in _body(kind, flags, bytes(body)):
        yield f"    = {line}"


def _hexdump(data: bytes) -> Iterator[str]:
    """As `hexdump -C`, with equal lines in a row written as one star."""
    before, starred = b"", False
    for start in range(0, len(data), _WIDTH):
        row = data[start : start + _WIDTH]
        if row == before and start + _WIDTH < len(data):
            if not starred:
                yield "    *"
            starred = True
            continue
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"    {start:04x}  {row.hex(' '):47}  |{text}|"
        before, starred = row, False


def _body(kind: int, flags: int, body: bytes) -> Iterator[str]:
    if not body:
        return
    if kind in (RESET, GOAWAY):
        yield repr(body.decode())
        return
    if FRAME_NAMES[kind] == "CHUNK" or len(body) > 4096:
        yield f"{len(body):,} bytes of a message"
        return
    if flags & METADATA:
        metadata, rest = split_metadata(body, len(body))
        yield f"metadata {msgpack.unpackb(metadata)!r}"
        body = bytes(rest)
    yield _shortened(msgpack.unpackb(body, strict_map_key=False))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def main() -> None:
    """Write all recordings anew."""
    from tests.wire.scenes import SCENES, play

    FOLDER.mkdir(exist_ok=True)
    for name in SCENES:
        (FOLDER / f"{name}.txt").write_text(render(play(name)))
        print(f"recorded {name}")


if __name__ == "__main__":
    main()
