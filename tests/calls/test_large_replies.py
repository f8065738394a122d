"""Large replies on their way to a peer that is slow to read them: what they count, and what they do not hold up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgpack
import pytest_asyncio

import rpcfw
from rpcfw import Code, RpcError, Server, Settings
from rpcfw.wire.frames import END, REPLY, REQUEST, RESET, frame, ticks_of
from tests.calls.place import Diary, Place, limits, until
from tests.calls.rawpeer import RawPeer

MB = 1_000_000
BUDGET = 40 * MB
ASKED = 80
MOST = 15 * MB
"""Nearly as large as a message may be."""


@rpcfw.service("tests.Contract")
class Givers:
    """Gives what is large."""

    def __init__(self) -> None:
        self.diary = Diary()

    async def nothing(self) -> None:
        self.diary.note("nothing")

    async def give(self, size: int) -> bytes:
        self.diary.note("given")
        return bytes(size)


class Asker:
    """A peer that asks for much more than the budget of its server, and reads nothing of it until it is told to."""

    def __init__(self, place: Place, server: Server, service: Givers, peer: RawPeer) -> None:
        self.service = service
        self.server = server
        self.peer = peer
        self._stub = place.connect(server).stub(Givers)

    async def ask(self, size: int, calls: int) -> None:
        """Ask, and wait until the server has given."""
        self.peer.write(b"".join(self.peer.request("give", {"size": size}) for _ in range(calls)))
        await self.service.diary.until("given", calls)
        for _ in range(5):
            await self._stub.nothing()

    async def memory_is_free(self) -> bool:
        """Whether there is memory for the largest reply of somebody else."""
        try:
            return len(await self._stub.give(MOST)) == MOST
        except RpcError as error:
            if error.code is not Code.RESOURCE_EXHAUSTED:
                raise
            return False


class Open(Protocol):
    async def __call__(self, settings: Settings | None = None) -> Asker: ...


@pytest_asyncio.fixture
async def opened(here: Place) -> AsyncIterator[Open]:
    """Makes askers, each with a server of its own."""
    peers: list[RawPeer] = []

    async def open_asker(settings: Settings | None = None) -> Asker:
        service = Givers()
        server = await here.serve(service, limits=limits(max_memory_bytes=BUDGET))
        peers.append(await RawPeer.connect(server, settings))
        return Asker(here, server, service, peers[-1])

    yield open_asker
    for peer in peers:
        await peer.close()


async def test_replies_that_fit_one_frame_count_as_well_while_the_peer_reads_nothing(opened: Open) -> None:
    asker = await opened()
    await asker.ask(200_000, 500)
    assert not await asker.memory_is_free()
    given = 0
    for stream in range(1, 501):
        try:
            assert len(await asker.peer.reply(stream)) == 200_000
            given += 1
        except RpcError as error:
            if error.code is not Code.RESOURCE_EXHAUSTED:
                raise
    assert BUDGET // 200_000 - 1 <= given < 400
    await until(lambda: asker.server.running == 0)
    assert await asker.memory_is_free()


async def test_a_peer_that_takes_huge_frames_gets_no_more_memory_for_that(opened: Open) -> None:
    asker = await opened(Settings(max_frame_bytes=1 << 30))
    await asker.ask(MB, ASKED)
    assert not await asker.memory_is_free()


async def test_the_resets_of_replies_that_are_being_sent_are_heard_before_they_are_out(opened: Open) -> None:
    asker = await opened()
    await asker.ask(MB, ASKED)
    assert not await asker.memory_is_free()
    peer, cancel = asker.peer, int(Code.CANCELLED)
    peer.write(b"".join(frame(RESET, 0, 0, stream, cancel) for stream in range(1, ASKED + 1)))
    await peer.until(lambda f: f[0] == RESET)
    await until(lambda: asker.server.running == 0)
    assert await asker.memory_is_free()


async def test_a_small_call_is_not_held_up_by_the_large_replies_before_it(opened: Open) -> None:
    asker = await opened()
    await asker.ask(MB, ASKED)
    peer = asker.peer
    peer.write(peer.request("nothing", {}))
    assert await peer.reply(peer.last_stream) is None
    whole = sum(kind == REPLY and len(body) > MB for kind, *_, body in peer.frames)
    assert whole < BUDGET // MB - 5, "it came behind them all"


async def test_replies_that_are_not_out_at_their_deadline_are_given_up_and_their_memory_with_them(
    opened: Open,
) -> None:
    asker = await opened()
    peer, body, ticks = asker.peer, bytes(msgpack.packb({"size": MB})), ticks_of(0.3)
    peer.write(b"".join(frame(REQUEST, END, peer.method("give"), n, ticks, body) for n in range(1, 36)))
    await until(lambda: asker.server.running)
    await until(lambda: asker.server.running == 0)  # though the peer has read nothing
    _, _, _, _, code, _ = await peer.until(lambda f: f[0] == RESET)
    assert code == Code.DEADLINE_EXCEEDED
