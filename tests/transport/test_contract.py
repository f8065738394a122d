"""What every transport promises, on both loops."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
from contextvars import ContextVar

import pytest

from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport import vectored_write
from tests.transport.recorder import Meeting, Recorder, link_of

pytestmark = pytest.mark.both_loops

MORE_THAN_ANY_SYSTEM_BUFFERS = 64 * 1024 * 1024
TURNS_TO_SETTLE = 200
SETTING: ContextVar[str] = ContextVar("SETTING", default="unset")


async def test_bytes_arrive_whole_and_in_order_both_ways(meeting: Meeting, rng: random.Random) -> None:
    def sizes() -> int:
        return rng.choice((1 << 10, 1 << 14, 1 << 18))

    ends = await meeting.pair(sizes)
    sent = (rng.randbytes(3_000_000 + rng.randrange(1000)), rng.randbytes(2_000_000 + rng.randrange(1000)))
    for end, data in zip(ends, sent, strict=True):
        rest = memoryview(data)
        while rest:
            size = rng.choice((1, 16, 1000, 70_000, 400_000))
            if rng.random() < 0.5:
                link_of(end).write(rest[:size])
            else:
                vectored_write(link_of(end))([rest[: size // 2], b"", bytes(rest[size // 2 : size]), b""])
            rest = rest[size:]
            if rng.random() < 0.1:
                await asyncio.sleep(0)
    assert await ends[1].until_received(len(sent[0])) == sent[0]
    assert await ends[0].until_received(len(sent[1])) == sent[1]


async def test_a_receiver_with_tiny_buffers_gets_every_byte(meeting: Meeting, rng: random.Random) -> None:
    client, server = await meeting.pair(lambda: rng.randrange(1, 8))
    data = rng.randbytes(30_000)
    link_of(client).write(data)
    link_of(client).close()
    assert await server.lost is None
    assert bytes(server.received) == data


async def test_what_is_written_while_being_connected_arrives_first(meeting: Meeting) -> None:
    class Eager(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            link_of(self).write(b"first ")

    endpoint = await meeting.listen()
    client = Eager()
    meeting.clients.append(client)
    link = await meeting.transport.connect(endpoint, lambda: client)
    link.write(b"second")
    assert await (await meeting.accept()).until_received(12) == b"first second"


@pytest.mark.parametrize("vectored", [False, True])
async def test_a_paused_receiver_stops_the_writer_until_it_resumes(vectored: bool, meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link = link_of(client)
    writelines = vectored_write(link)
    link.set_write_buffer_limits(high=100_000, low=20_000)
    link_of(server).pause_reading()
    chunk, written = bytes(range(256)) * 256, 0
    while not client.writing_paused:
        assert written < MORE_THAN_ANY_SYSTEM_BUFFERS
        if vectored:
            writelines([chunk[:1000], chunk[1000:], b""])
        else:
            link.write(chunk)
        written += len(chunk)
        await asyncio.sleep(0)
    received = len(server.received)
    await asyncio.sleep(0)
    assert len(server.received) == received
    # TLS adds to each record, and holds up to a high-water mark of its own.
    assert link.get_write_buffer_size() <= 100_000 + 2 * len(chunk)

    link_of(server).resume_reading()
    await client.until(lambda: not client.writing_paused)
    assert link.get_write_buffer_size() <= 20_000
    data = await server.until_received(written)
    assert data == chunk * (written // len(chunk))


async def test_lower_limits_pause_a_writer_that_was_below_the_old_ones(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link = link_of(client)
    link.set_write_buffer_limits(high=MORE_THAN_ANY_SYSTEM_BUFFERS * 2)
    link_of(server).pause_reading()
    while link.get_write_buffer_size() <= 1_000_000:
        link.write(bytes(1_000_000))
        await asyncio.sleep(0)
    assert not client.writing_paused
    link.set_write_buffer_limits(high=1000)
    assert client.writing_paused
    with pytest.raises(ValueError, match="high"):
        link.set_write_buffer_limits(high=1, low=2)


async def test_close_delivers_what_was_written_and_ends_both_sides(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    data = random.Random(1).randbytes(2_000_000)
    link = link_of(client)
    link.write(data)
    link.close()
    assert link.is_closing()
    assert await server.lost is None
    assert await client.lost is None
    assert bytes(server.received) == data
    assert server.ends == 1
    assert link_of(server).is_closing()


async def test_a_link_closed_by_the_server_delivers_what_was_written(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    vectored_write(link_of(server))([b"fare", b"well", b""])
    link_of(server).close()
    assert await client.lost is None
    assert await server.lost is None
    assert bytes(client.received) == b"farewell"


async def test_both_sides_may_close_at_once_with_bytes_on_their_way(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link_of(client).write(b"to the server")
    link_of(server).write(b"to the client")
    link_of(client).close()
    link_of(server).close()
    link_of(client).close()
    await asyncio.gather(client.lost, server.lost)


async def test_using_a_closed_link_does_nothing(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link = link_of(client)
    link.close()
    link.write(b"late")
    vectored_write(link)([b"later"])
    link.pause_reading()
    link.resume_reading()
    link.close()
    assert link.is_closing()
    await asyncio.gather(client.lost, server.lost)
    assert not server.received


async def test_abort_drops_what_was_written_and_ends_both_sides(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link = link_of(client)
    link.set_write_buffer_limits(high=1000)
    link_of(server).pause_reading()
    while not client.writing_paused:
        link.write(bytes(1_000_000))
        await asyncio.sleep(0)
    link.abort()
    assert link.is_closing()
    assert await client.lost is None
    link_of(server).resume_reading()
    await server.lost


async def test_a_peer_that_goes_away_ends_the_link(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link_of(server).abort()
    await client.lost
    assert link_of(client).is_closing()


async def test_a_paused_link_delivers_the_rest_and_the_end_after_resuming(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    link_of(server).pause_reading()
    link_of(client).write(b"the rest")
    link_of(client).close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not server.received
    assert not server.ends
    link_of(server).resume_reading()
    assert await server.lost is None
    assert bytes(server.received) == b"the rest"


async def test_a_receiver_that_raises_loses_its_link_and_no_other(meeting: Meeting) -> None:
    class Broken(Recorder):
        def buffer_updated(self, nbytes: int) -> None:
            raise ZeroDivisionError("of the test")

    reports: list[BaseException | None] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reports.append(context.get("exception"))
    )
    client, server = await meeting.pair()
    broken = Broken()
    meeting.clients.append(broken)
    assert meeting.listener is not None
    await meeting.transport.connect(meeting.listener.endpoint, lambda: broken)
    victim = await meeting.accept()
    link_of(victim).write(b"x")
    assert isinstance(await broken.lost, ZeroDivisionError)
    await victim.lost
    assert [type(report) for report in reports] == [ZeroDivisionError]
    link_of(client).write(b"unharmed")
    assert await server.until_received(8) == b"unharmed"


async def test_a_receiver_does_not_see_the_context_variables_of_the_writer(meeting: Meeting) -> None:
    seen: list[str] = []

    class Looking(Recorder):
        def buffer_updated(self, nbytes: int) -> None:
            seen.append(SETTING.get())
            super().buffer_updated(nbytes)

    SETTING.set("when it began to listen")
    server = Looking()
    listener = await meeting.transport.listen(meeting.listen_at, lambda: server)
    meeting.listener = listener
    SETTING.set("when it connected")
    client = await meeting.connect()
    SETTING.set("when it wrote")
    link_of(client).write(b"x")
    await server.until_received(1)
    assert seen == ["when it began to listen"]
    link_of(client).close()
    await server.lost


async def test_a_refused_connect_says_where_and_what_to_check(meeting: Meeting) -> None:
    endpoint = await meeting.listen()
    assert meeting.listener is not None
    meeting.listener.close()
    await meeting.listener.wait_closed()
    with pytest.raises(RpcError) as caught:
        await meeting.connect(endpoint)
    error = caught.value
    assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, False)
    assert error.message.startswith(f"cannot connect to {endpoint.address}: ")
    assert isinstance(error.__cause__, OSError)
    assert "; " in error.message
    assert error.details == {"endpoint": endpoint.address}


async def test_listening_on_a_used_address_says_so(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    assert meeting.listener is not None
    endpoint = meeting.listener.endpoint
    with pytest.raises(OSError, match=f"cannot listen on {endpoint.address}: ") as caught:
        await meeting.transport.listen(endpoint, Recorder)
    assert caught.value.errno == errno.EADDRINUSE
    link_of(client).write(b"x")  # and the first one is as before
    await server.until_received(1)
    await meeting.connect()


async def test_a_closed_listener_keeps_its_links_and_frees_its_address(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    assert meeting.listener is not None
    endpoint = meeting.listener.endpoint
    meeting.listener.close()
    meeting.listener.close()
    await meeting.listener.wait_closed()
    link_of(client).write(b"still here")
    assert await server.until_received(10) == b"still here"
    again = await meeting.transport.listen(endpoint, Recorder)
    assert again.endpoint == endpoint
    again.close()
    await again.wait_closed()


async def test_wait_closed_waits_for_close(meeting: Meeting) -> None:
    await meeting.listen()
    assert meeting.listener is not None
    waiting = asyncio.create_task(meeting.listener.wait_closed())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    meeting.listener.close()
    await waiting


async def test_a_connect_cancelled_at_any_turn_leaves_nothing_behind(meeting: Meeting) -> None:
    endpoint = await meeting.listen()
    descriptors = _descriptors()
    for turns in range(25):
        client = Recorder()
        task = asyncio.create_task(meeting.transport.connect(endpoint, itertools.repeat(client).__next__))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            (await task).close()
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
        if client.link is not None:
            await client.lost
    for _ in range(TURNS_TO_SETTLE):
        if _descriptors() == descriptors:
            break
        await asyncio.sleep(0)
    assert _descriptors() == descriptors
    assert all(server.lost.done() for server in meeting.servers)
    await meeting.pair()


async def test_a_link_tells_the_name_of_its_peer(meeting: Meeting) -> None:
    client, server = await meeting.pair()
    assert link_of(client).get_extra_info("peername")
    assert link_of(server).get_extra_info("sockname")
    assert link_of(client).get_extra_info("no such thing", "default") == "default"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
