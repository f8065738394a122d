"""Valid conversations, and what may happen to them: flipped bits, lies about lengths, frames lost, doubled, swapped.

All randomness comes from one `random.Random`, so a seed replays a run. Nothing here knows a connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from rpcfw.wire.frames import CHUNK, HEADER, HEADER_BYTES, METADATA, ONEWAY, REQUEST, with_metadata

LARGE_BYTES = 32 * 1024
"""Frames from this size on are chosen rarely, so that the run is not spent on copying."""
_NUMBERS = (
    0, 1, 2, 15, 16, 17, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 16, 1 << 18, (1 << 18) + 1, 1 << 24,
    (1 << 24) + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF,
)  # fmt: skip
_BODIES = (
    *(b"", b"\xc0", b"\x80", b"\x90", b"\xc1", b"\xa5ab"),
    *(b"\x91" * 600, b"\x81" * 600, b"\xdc\x10\x00" + b"\x80" * 4096),
    *(head + b"\xff\xff\xff\xff" for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9", b"\xd6\xff")),
    *(b"\xc7\x0c\xff" + b"\xff" * 12, b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6)),
    *(b"\xcf" + b"\xff" * 8, b"\xa4\xed\xa0\x80\xff", b"\x81\xa5value\xdc\xff\xff" + b"\x90" * 65_535),
)
_METHODS = (b"rpcfw.Nothing/x", b"fuzz.Unary/fail!", b"fuzz.Unary/node", b"fuzz.Unary/note")
_METADATA = (
    *(b"\x81\xa7:method" + bytes((0xA0 | len(method),)) + method for method in _METHODS),
    *(b"", b"\x80", b"\x81\x01\x02", b"\x81\xa1a\x90", b"\x81" * 100, b"\xde\xff\xff"),
)

Way = Callable[[bytes], bytes]
Conversation = Sequence[bytes]
"""The frames that one side sends on one connection, its HELLO first."""


class Mutator:
    """Makes conversations that are almost right.

    Half of them keep their framing, so that the connection lives on and the bodies are looked into.

    Args:
        recorded: what a well-behaved peer has sent, by name.
        rng: decides everything.
    """

    def __init__(self, recorded: Mapping[str, Conversation], rng: random.Random) -> None:
        self.rng = rng
        self.recorded = list(recorded.values())
        self.small = [frame for talk in self.recorded for frame in talk[1:] if len(frame) < LARGE_BYTES]
        self.large = [frame for talk in self.recorded for frame in talk[1:] if len(frame) >= LARGE_BYTES]
        gentle: list[Way] = [
            self._flip_body,
            self._insert,
            self._body,
            self._metadata,
            self._stream,
            self._chunk,
        ]
        gentle += gentle[:2]
        rough: list[Way] = [self._flip, self._field, self._truncate, self._lie, self._splice, self._byte]
        self._tempers: list[list[Way]] = [gentle, gentle, gentle + rough, rough]
        self._ways = gentle

    def conversation(self) -> list[bytes]:
        """The frames of one connection, most of them mutated, and the greeting almost never."""
        rng = self.rng
        talk = list(rng.choice(self.recorded))
        frames = [talk[0], *(frame for frame in talk[1:] if len(frame) < LARGE_BYTES or rng.random() < 0.05)]
        frames += rng.choices(self.small, k=rng.choice((0, 3, 10, 40)))
        for _ in range(rng.choice((0, 0, 1, 3))):
            self._reorder(frames)
        self._ways = rng.choice(self._tempers)
        share = rng.choice((0.02, 0.1, 0.5, 1.0))
        mutated = [self.mutate(frame) if rng.random() < share else frame for frame in frames[1:]]
        return [self.mutate(frames[0]) if rng.random() < 0.02 else frames[0], *mutated]

    def mutate(self, frame: bytes) -> bytes:
        """One frame, changed in one to three ways."""
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            frame = self.rng.choice(self._ways)(frame)
        return frame

    def datagram(self, frame: bytes) -> bytes:
        """A request made fit for a datagram: one-way, and more often than not naming its method."""
        if self.rng.random() < 0.2 or len(frame) < HEADER_BYTES:
            return frame
        length, kind, flags, _, _, extra = HEADER.unpack_from(frame)
        named = with_metadata(self.rng.choice(_METADATA), frame[HEADER_BYTES:])
        whole = HEADER.pack(len(named), kind, flags | METADATA | ONEWAY, 0, 0, extra) + named
        return self.mutate(whole) if self.rng.random() < 0.3 else whole

    def pieces(self, data: bytes) -> list[bytes]:
        """Bytes as they may arrive: whole, in two, or in crumbs."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.7 or len(data) < 2:
            return [data]
        if kind < 0.98 or len(data) > 500:
            cut = rng.randrange(1, len(data))
            return [data[:cut], data[cut:]]
        return [data[i : i + 1] for i in range(len(data))]

    def _reorder(self, frames: list[bytes]) -> None:
        rng = self.rng
        if len(frames) < 3:
            return
        one, other = rng.randrange(1, len(frames)), rng.randrange(1, len(frames))
        way = rng.randrange(4)
        if way == 0:
            frames[one], frames[other] = frames[other], frames[one]
        elif way == 1:
            frames.insert(one, frames[other])
        elif way == 2:
            del frames[one]
        else:
            frames[one:one] = [frame for frame in rng.choice(self.recorded)[1:] if len(frame) < LARGE_BYTES]

    def _flip(self, frame: bytes) -> bytes:
        return self._flip_within(frame, 0, len(frame))

    def _flip_body(self, frame: bytes) -> bytes:
        return self._flip_within(frame, HEADER_BYTES, len(frame))

    def _flip_within(self, frame: bytes, start: int, end: int) -> bytes:
        if end <= start:
            return frame
        changed = bytearray(frame)
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            changed[self.rng.randrange(start, end)] ^= 1 << self.rng.randrange(8)
        return bytes(changed)

    def _byte(self, frame: bytes) -> bytes:
        if not frame:
            return frame
        at = self.rng.randrange(len(frame))
        return frame[:at] + bytes((self.rng.randrange(256),)) + frame[at + 1 :]

    def _insert(self, frame: bytes) -> bytes:
        """Some bytes more, or fewer, with the length put right: the body itself is wrong."""
        rng = self.rng
        if len(frame) <= HEADER_BYTES:
            return frame
        at, size = rng.randrange(HEADER_BYTES, len(frame)), rng.randrange(9)
        if rng.random() < 0.5:
            return self._with_body(frame, frame[HEADER_BYTES:at] + rng.randbytes(size) + frame[at:])
        return self._with_body(frame, frame[HEADER_BYTES:at] + frame[at + size :])

    def _field(self, frame: bytes) -> bytes:
        """A header field of another value, the length aside."""
        if len(frame) < HEADER_BYTES:
            return frame
        fields = list(HEADER.unpack_from(frame))
        at = self.rng.randrange(1, 6)
        widths = (0xFFFF_FFFF, 0xFF, 0xFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)
        value = self.rng.choice(_NUMBERS) if self.rng.random() < 0.5 else self.rng.randrange(32)
        fields[at] = value & widths[at]
        return HEADER.pack(*fields) + frame[HEADER_BYTES:]

    def _lie(self, frame: bytes) -> bytes:
        """A length that is not the body's."""
        if len(frame) < HEADER_BYTES:
            return frame
        length, *fields = HEADER.unpack_from(frame)
        lie = (
            self.rng.choice(_NUMBERS)
            if self.rng.random() < 0.5
            else max(0, length + self.rng.randrange(-9, 10))
        )
        return HEADER.pack(min(lie, 0xFFFF_FFFF), *fields) + frame[HEADER_BYTES:]

    def _truncate(self, frame: bytes) -> bytes:
        return frame[: self.rng.randrange(len(frame) + 1)]

    def _splice(self, frame: bytes) -> bytes:
        """The head of one frame with the tail of another; half of the time with the right length."""
        other = self.rng.choice(self.small)
        if self.rng.random() < 0.5 and len(frame) >= HEADER_BYTES:
            return self._with_body(frame, other[HEADER_BYTES:])
        return frame[: self.rng.randrange(len(frame) + 1)] + other[self.rng.randrange(len(other)) :]

    def _body(self, frame: bytes) -> bytes:
        """A body that is nonsense or a bomb."""
        rng = self.rng
        return self._with_body(
            frame, rng.choice(_BODIES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(64))
        )

    def _metadata(self, frame: bytes) -> bytes:
        """The METADATA flag, with metadata that may be wrong or of the wrong length."""
        if len(frame) < HEADER_BYTES:
            return frame
        rng = self.rng
        length, kind, flags, method, stream, extra = HEADER.unpack_from(frame)
        body = with_metadata(rng.choice(_METADATA), frame[HEADER_BYTES:])
        if rng.random() < 0.3:
            body = rng.choice(_NUMBERS).to_bytes(4, "little") + body[4:]
        named = 0 if kind == REQUEST and rng.random() < 0.5 else method
        return HEADER.pack(len(body), kind, flags | METADATA, named, stream, extra) + body

    def _stream(self, frame: bytes) -> bytes:
        """The frame of another stream."""
        if len(frame) < HEADER_BYTES:
            return frame
        fields = list(HEADER.unpack_from(frame))
        fields[4] = self.rng.randrange(1, 12)
        return HEADER.pack(*fields) + frame[HEADER_BYTES:]

    def _chunk(self, frame: bytes) -> bytes:
        """The frame in two, the first a CHUNK; the sum may be a lie."""
        body = frame[HEADER_BYTES:]
        if len(body) < 2:
            return frame
        _, kind, flags, method, stream, extra = HEADER.unpack_from(frame)
        cut = self.rng.randrange(1, len(body))
        total = len(body) if self.rng.random() < 0.6 else self.rng.choice(_NUMBERS)
        first = HEADER.pack(cut, CHUNK, 0, 0, stream, total) + body[:cut]
        if self.rng.random() < 0.2:
            return first
        return first + HEADER.pack(len(body) - cut, kind, flags, method, stream, extra) + body[cut:]

    @staticmethod
    def _with_body(frame: bytes, body: bytes) -> bytes:
        if len(frame) < HEADER_BYTES:
            return frame
        _, *fields = HEADER.unpack_from(frame)
        return HEADER.pack(len(body), *fields) + body
