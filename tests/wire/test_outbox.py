"""The outbox: few writes, frames in order within each stream, large messages in chunks between small calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rpcfw.connection.outbox import Outbox
from rpcfw.wire.frames import CHUNK, CREDIT, END, FRAME_NAMES, ITEMS, REPLY, REQUEST
from rpcfw.wire.handshake import Hello, Settings
from rpcfw.wire.reader import SCRATCH_BYTES, Budget, FrameReader
from tests.wire.links import FakeLink, parse, split, turn

FRAME = 16_384
LIMITS = Settings(max_frame_bytes=FRAME, max_assemblies=2)


class Sender(asyncio.BufferedProtocol):
    """An outbox, its link, and what a peer would make of the bytes."""

    def __init__(self, limits: Settings = LIMITS, *, full_at: int | None = None) -> None:
        self.link = FakeLink(self, limit=full_at)
        self.outbox = Outbox(asyncio.get_running_loop(), self.link, limits)
        self.outbox.expect(
            64
        )  # as under load: a frame waits for the end of the turn, not only for its own write
        self._sent = Hello(limits).pack()

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    def send(self, stream: int, size: int, kind: int = REQUEST, flags: int = END) -> None:
        self.outbox.send(kind, flags, 1, stream, 0, bytes((stream,)) * size)

    def said(self) -> list[str]:
        """The frames written since the last time, such as `CHUNK 3`, each with its stream."""
        data = self.link.take()
        self._sent += data
        return [f"{FRAME_NAMES[kind]} {stream}" for kind, _, _, stream, _, _ in map(parse, split(data))]

    def received(self) -> list[tuple[int, int, bytes]]:
        """What a peer with these limits has read in all: types, streams and bodies."""
        reader = FrameReader(
            memoryview(bytearray(SCRATCH_BYTES)),
            max_frame_bytes=self.outbox.limits.max_frame_bytes,
            max_message_bytes=1 << 30,
            max_assemblies=self.outbox.limits.max_assemblies,
            budget=Budget(1 << 30),
        )
        self.said()
        frames = reader.feed(self._sent)
        assert reader.error is None
        return [(kind, stream, bytes(body)) for kind, _, _, stream, _, body in frames[1:]]


def of_stream(said: Sequence[str], stream: int) -> list[str]:
    return [name for name, number in (frame.split() for frame in said) if number == str(stream)]


async def test_all_frames_of_a_turn_go_in_one_write() -> None:
    sender = Sender()
    for stream in range(1, 21):
        sender.send(stream, 10)
    assert sender.link.written == []
    await turn()
    assert len(sender.link.written) == 1
    assert sender.said() == [f"REQUEST {stream}" for stream in range(1, 21)]
    assert sender.outbox.is_empty()


async def test_a_lone_frame_is_written_at_once() -> None:
    sender = Sender()
    sender.outbox.expect(1)
    sender.send(1, 10)
    assert sender.said() == ["REQUEST 1"]


async def test_under_load_a_write_leaves_when_two_thirds_of_what_was_read_are_answered() -> None:
    sender = Sender()
    sender.outbox.expect(15)
    for stream in range(1, 26):
        sender.send(stream, 10)
    assert [len(split(data)) for data in sender.link.written] == [10, 10]
    await turn()
    assert len(sender.said()) == 25


async def test_a_connection_among_others_writes_when_half_of_what_was_read_is_answered() -> None:
    sender = Sender()
    for _ in range(2):  # what was sent before makes no difference
        sender.outbox.expect(10, alone=False)
        sender.link.written.clear()
        for stream in range(1, 26):
            sender.send(stream, 10)
        assert [len(split(data)) for data in sender.link.written] == [5] * 5


async def test_a_body_up_to_the_frame_limit_goes_in_one_frame_and_stays_in_order() -> None:
    sender = Sender()
    for stream, size in ((1, 5), (2, FRAME), (3, 5), (4, FRAME - 1)):
        sender.send(stream, size)
    await turn()
    assert sender.said() == ["REQUEST 1", "REQUEST 2", "REQUEST 3", "REQUEST 4"]


async def test_a_large_body_goes_in_chunks_and_the_last_part_in_its_own_frame() -> None:
    sender = Sender()
    sender.send(1, 2 * FRAME + 1, REPLY)
    sender.send(2, 2 * FRAME, REPLY)
    await turn(4)
    frames = [parse(data) for data in split(b"".join(sender.link.written))]
    assert [(kind, flags, stream, extra, len(body)) for kind, flags, _, stream, extra, body in frames] == [
        (CHUNK, 0, 1, 2 * FRAME + 1, FRAME),
        (CHUNK, 0, 2, 2 * FRAME, FRAME),
        (REPLY, END, 2, 0, FRAME),  # two at once, as the link has taken one
        (CHUNK, 0, 1, 2 * FRAME + 1, FRAME),
        (REPLY, END, 1, 0, 1),
    ]
    assert sender.received() == [(REPLY, 2, b"\2" * 2 * FRAME), (REPLY, 1, b"\1" * (2 * FRAME + 1))]


async def test_a_small_call_is_written_between_the_chunks_of_a_large_message() -> None:
    sender = Sender()
    sender.send(1, 20 * FRAME)
    await turn()
    first = sender.said()
    assert 0 < len(first) < 10, "all at once"
    sender.send(2, 5)
    await turn()
    assert "REQUEST 2" in sender.said()[:1]
    await turn(20)
    assert [stream for _, stream, _ in sender.received()] == [2, 1]


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_at_most_so_many_messages_are_interleaved_as_the_peer_allows(most: int) -> None:
    sender = Sender(Settings(max_frame_bytes=FRAME, max_assemblies=most))
    for stream in range(1, 8):
        sender.send(stream, (2 + stream % 4) * FRAME)
    sender.outbox.drop(3)
    await turn(40)
    open_streams: set[str] = set()
    widest = 0
    for name, number in (frame.split() for frame in sender.said()):
        if name == "CHUNK":
            open_streams.add(number)
        else:
            open_streams.discard(number)
        widest = max(widest, len(open_streams))
    assert widest == most
    received = {stream: body for _, stream, body in sender.received()}
    assert received == {stream: bytes((stream,)) * (2 + stream % 4) * FRAME for stream in (1, 2, 4, 5, 6, 7)}


async def test_messages_in_many_parts_arrive_whole() -> None:
    sender = Sender()
    parts = [bytes((number,)) * (number * 997) for number in range(60)]
    sender.outbox.send(REPLY, END, 0, 9, 0, list(parts))
    sender.outbox.send(REPLY, END, 0, 10, 0, [b"head", b"x" * 5000, memoryview(b"tail")])
    await turn(100)
    assert sorted(sender.received(), key=lambda frame: frame[1]) == [
        (REPLY, 9, b"".join(parts)),
        (REPLY, 10, b"head" + b"x" * 5000 + b"tail"),
    ]


async def test_nothing_is_written_while_the_link_is_full_and_all_of_it_in_order_afterwards() -> None:
    sender = Sender(full_at=3 * FRAME)
    sender.send(1, 9 * FRAME)
    await turn(10)
    before = sender.said()
    assert before == ["CHUNK 1"] * 3
    assert sender.outbox.congested
    sender.send(2, 10)
    sender.send(3, 10)
    await turn(10)
    assert sender.said() == []
    sender.link.relieve()
    await turn(10)
    after = sender.said()
    assert after[:2] == ["REQUEST 2", "REQUEST 3"]
    while not sender.outbox.is_empty():
        sender.link.relieve()
        await turn(5)
    assert [stream for _, stream, _ in sender.received()] == [2, 3, 1]


async def test_who_waits_for_a_full_link_is_woken_when_it_takes_bytes_again() -> None:
    sender = Sender(full_at=0)
    sender.send(1, 10)
    await turn()
    waiting = [asyncio.create_task(sender.outbox.ready()) for _ in range(2)]
    await turn(3)
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    sender.link.limit = None
    sender.link.relieve()
    await turn(3)
    assert waiting[0].cancelled()
    assert waiting[1].done()


async def test_who_waits_for_a_message_is_woken_when_it_is_written_dropped_or_lost() -> None:
    sender = Sender(full_at=FRAME)
    for stream in (1, 2, 3):
        sender.send(stream, 5 * FRAME)
    await turn(3)
    waiting = {stream: asyncio.create_task(sender.outbox.sent(stream)) for stream in (1, 2, 3)}
    assert all(sender.outbox.is_sending(stream) for stream in (1, 2, 3))
    await turn(3)
    assert not any(task.done() for task in waiting.values())
    assert not sender.outbox.drop(3), "nothing of it was sent"
    await turn(2)
    assert waiting[3].done()
    while not waiting[1].done():
        sender.link.relieve()
        await turn(2)
    sender.outbox.close()
    await turn(2)
    assert waiting[2].done()
    assert sender.outbox.is_empty()


async def test_a_message_dropped_half_way_says_so_that_its_receiver_can_be_told() -> None:
    sender = Sender(full_at=FRAME)
    sender.send(1, 5 * FRAME)
    await turn(3)
    assert sender.said() == ["CHUNK 1"]
    assert sender.outbox.drop(1)
    assert not sender.outbox.drop(1)
    assert not sender.outbox.is_sending(1)
    sender.link.relieve()
    await turn(3)
    assert sender.said() == []


async def test_nothing_is_written_after_the_end() -> None:
    sender = Sender()
    sender.send(1, 10)
    sender.send(2, 5 * FRAME)
    sender.outbox.close()
    sender.send(3, 10)
    await turn(5)
    assert sender.said() == []


async def test_chunks_go_together_once_the_link_has_taken_some_and_alone_once_it_has_not() -> None:
    sender = Sender()
    sender.send(1, 16 * FRAME)
    await turn(20)
    writes = [len(split(data)) for data in sender.link.written]
    assert writes[:3] == [1, 2, 1]  # four a turn
    assert writes[3:] == [4, 4, 4]
    sender.said()
    sender.link.limit = 2 * FRAME  # now it is full after some of them
    for stream in (2, 3):
        sender.send(stream, 10 * FRAME)
    await turn(3)
    assert [len(split(data)) for data in sender.link.written] == [4]
    sender.link.relieve()
    await turn(3)
    assert [len(split(data)) for data in sender.link.written] == [4, 1, 2]
    sender.send(4, 5)
    sender.link.limit = None
    for _ in range(20):
        sender.link.relieve()
        await turn()
    assert [stream for _, stream, _ in sender.received()] == [1, 4, 2, 3]


async def test_frames_of_a_stream_keep_their_order_when_the_sender_waits_for_its_large_ones() -> None:
    sender = Sender()
    sender.outbox.send(ITEMS, 0, 0, 1, 2, b"a" * 100)
    sender.outbox.send(ITEMS, 0, 0, 1, 1, b"b" * 3 * FRAME)
    sender.outbox.send(CREDIT, 0, 0, 1, 5)
    await sender.outbox.sent(1)
    sender.outbox.send(ITEMS, END, 0, 1, 0)
    await turn()
    said = of_stream(sender.said(), 1)
    assert [name for name in said if name != "CREDIT"] == ["ITEMS", "CHUNK", "CHUNK", "ITEMS", "ITEMS"]
    assert [len(body) for kind, _, body in sender.received() if kind == ITEMS] == [100, 3 * FRAME, 0]
