"""How many items of a stream leave together: as docs/wire.md says, and whatever there is when the producer waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgpack
import pytest

from rpcfw.codec import plan_of_items
from rpcfw.connection.outbox import Outbox
from rpcfw.connection.streams import ItemSender
from rpcfw.wire.frames import ITEMS
from rpcfw.wire.handshake import Settings
from tests.wire.links import FakeLink, parse, split, turn


class Silent(asyncio.BufferedProtocol):
    """Whose link is never full."""


def sender(link: FakeLink, window_bytes: int = 1 << 30) -> ItemSender:
    loop = asyncio.get_running_loop()
    return ItemSender(loop, Outbox(loop, link, Settings(window_bytes=window_bytes)), plan_of_items(bytes), 1)


async def items(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)


def batches(link: FakeLink) -> list[int]:
    """The items of each batch that was written."""
    counts = []
    for kind, _, _, _, count, body in map(parse, split(link.take())):
        assert kind == ITEMS
        assert len(msgpack.unpackb(body)) == count
        counts.append(count)
    return counts


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [256, 256, 88]),
        (60, [133, 133, 133, 133, 68]),  # 8 KiB
        (126, [64] * 9 + [24]),
        (1000, [33] * 18 + [6]),  # 32 KiB
        (40_000, [1] * 600),
    ],
)
async def test_a_batch_is_full_as_the_document_says(size: int, expected: list[int]) -> None:
    link = FakeLink(Silent())
    await sender(link).send_all(items(600, size))
    await turn()
    assert batches(link) == expected


async def test_what_is_there_leaves_when_the_producer_waits() -> None:
    link, gate = FakeLink(Silent()), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"
        await gate.wait()
        for _ in range(300):
            yield b"c"

    sending = asyncio.ensure_future(sender(link).send_all(slow()))
    await turn(4)
    assert batches(link) == [2]
    gate.set()
    await sending
    await turn()
    assert batches(link) == [256, 44]


async def test_without_credit_nothing_leaves_and_a_grant_lets_it_go_on() -> None:
    link = FakeLink(Silent())
    paced = sender(link, window_bytes=1)
    sending = asyncio.ensure_future(paced.send_all(items(600, 1)))
    await turn(4)
    assert batches(link) == [256]
    paced.grant(256 * 80)
    await turn(4)
    assert batches(link) == [256]
    paced.grant(256 * 80)
    await sending
    await turn()
    assert batches(link) == [88]
