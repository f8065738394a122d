"""The simulated network by itself: links, datagrams, names, faults; asyncio's own streams are the client and server."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from typing import Any

import pytest

from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.medium import NetHost
from rpcfw.testing.network import Network
from rpcfw.testing.tcp import RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES
from rpcfw.testing.trace import LOST, RECEIVE, SEND
from tests.testing.world import SEED, World, simulate


class Listening(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.link: asyncio.Transport
        self.made, self.lost, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.received = bytearray()
        self.paused = False
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.link = transport
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.ended.set()
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.lost.set()


async def join(world: World, here: Listening, there: Listening) -> None:
    """Join two protocols, the client's first."""
    await world.on("orders", world.loop.create_server(lambda: there, "orders", 7000))
    await world.on("client", world.loop.create_connection(lambda: here, "orders", 7000))
    await there.made.wait()


class Mailbox(asyncio.DatagramProtocol):
    """Keeps datagrams and errors."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.letters.append(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


# ------------------------------------------------------------------------------------------------- links


def test_asyncio_streams_talk_over_it_and_a_trip_takes_the_latency() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        reader, writer = await world.connect()
        assert world.now() == pytest.approx(0.02)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert world.now() == pytest.approx(0.04)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(1)
        assert world.network.open_ends() == 0

    simulate(scenario)


@pytest.mark.parametrize("number", range(20))
def test_bytes_arrive_whole_and_in_order_however_many_segments_are_lost(number: int) -> None:
    rough = Conditions(Latency(0.02, 1.0), bandwidth_bytes_s=1e6, loss=0.1, segment_bytes=1_000)
    rng = random.Random(f"{SEED}/{number}")
    letters = [rng.randbytes(rng.choice((1, 700, 5_000))) for _ in range(60)]

    async def scenario(world: World) -> None:
        await world.echo()
        reader, writer = await world.connect()
        for letter in letters:
            writer.write(letter)
            await asyncio.sleep(rng.choice((0, 0.01)))
        writer.write_eof()
        assert await reader.read() == b"".join(letters)
        writer.close()
        await asyncio.sleep(200)
        assert world.network.open_ends() == 0

    world = simulate(scenario, rough, seed=SEED + number)
    assert "loss" in world.kinds(LOST)


def test_a_peer_that_does_not_read_stops_the_writer_and_memory_stays_bounded() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        there.link.pause_reading()
        written = 0
        while not here.paused or world.now() < 5:
            if not here.paused:
                here.link.write(bytes(10_000))
                written += 10_000
            await asyncio.sleep(0.01)
        assert not there.received
        assert here.link.get_write_buffer_size() <= 65_536 + 10_000
        assert written <= SEND_BUFFER_BYTES + RECEIVE_BUFFER_BYTES + 65_536 + 10_000
        await asyncio.sleep(300)  # it lives and is patient: nothing breaks
        there.link.resume_reading()
        await asyncio.sleep(10)
        assert len(there.received) == written
        assert not here.paused

    simulate(scenario)


def test_a_reader_resumes_although_word_of_the_room_is_lost() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        there.link.pause_reading()
        here.link.write(bytes(RECEIVE_BUFFER_BYTES))
        await asyncio.sleep(5)
        here.link.write(bytes(1_000))
        world.network.partition("orders", "client", one_way=True)
        there.link.resume_reading()
        await asyncio.sleep(1)
        world.network.heal()
        await asyncio.sleep(10)
        assert len(there.received) == RECEIVE_BUFFER_BYTES + 1_000

    simulate(scenario)


def test_a_writer_goes_on_a_trip_after_its_peer_reads_again() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        there.link.pause_reading()
        here.link.write(bytes(RECEIVE_BUFFER_BYTES + 1_000))
        await asyncio.sleep(30)
        there.link.resume_reading()
        await asyncio.sleep(0.025)  # word of the room, and the rest
        assert len(there.received) == RECEIVE_BUFFER_BYTES + 1_000

    simulate(scenario)


def test_close_delivers_what_was_written_to_a_peer_beyond_a_lossy_way() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        here.link.write(bytes(1_000_000))
        here.link.close()
        await there.lost.wait()
        assert len(there.received) == 1_000_000
        assert here.error is there.error is None
        assert here.lost.is_set()

    simulate(scenario, Conditions(Latency(0.01), loss=0.1))


def test_abort_is_a_reset_for_the_peer() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        here.link.abort()
        await there.lost.wait()
        assert isinstance(there.error, ConnectionResetError)
        assert here.error is None
        assert world.network.open_ends() == 0

    simulate(scenario)


def test_a_link_closed_with_bytes_unread_is_reset() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        there.link.pause_reading()
        here.link.write(b"never read")
        await asyncio.sleep(1)
        there.link.close()
        await here.lost.wait()
        assert isinstance(here.error, ConnectionResetError)

    simulate(scenario)


def test_what_reaches_a_closed_link_is_answered_by_a_reset() -> None:
    async def scenario(world: World) -> None:
        class Patient(Listening):
            def eof_received(self) -> bool:
                return True

        here, there = Listening(), Patient()
        await join(world, here, there)
        here.link.close()
        await here.lost.wait()
        await asyncio.sleep(1)
        there.link.write(b"too late")
        await there.lost.wait()
        assert isinstance(there.error, ConnectionResetError)
        assert world.network.open_ends() == 0

    simulate(scenario)


def test_one_side_may_end_and_go_on_reading() -> None:
    async def scenario(world: World) -> None:
        class Patient(Listening):
            def eof_received(self) -> bool:
                super().eof_received()
                return True

        here, there = Patient(), Patient()
        await join(world, here, there)
        here.link.write(b"question")
        here.link.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            here.link.write(b"more")
        await there.ended.wait()
        assert bytes(there.received) == b"question"
        there.link.write(b"answer")
        there.link.close()
        await here.ended.wait()
        assert bytes(here.received) == b"answer"

    simulate(scenario)


def test_bandwidth_is_shared_by_all_that_goes_one_way() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        links = [await world.connect() for _ in range(2)]
        started = world.now()
        for _, writer in links:
            writer.write(bytes(50_000))
        for reader, _ in links:
            await reader.readexactly(50_000)
        assert world.now() - started == pytest.approx(1, abs=0.05)  # the echo comes back meanwhile

    simulate(scenario, Conditions(0.001, bandwidth_bytes_s=100_000, segment_bytes=1_000))


def test_a_slow_host_takes_longer_for_every_trip() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        world.network.slow("orders", 10)
        reader, writer = await world.connect()
        assert world.now() == pytest.approx(0.2)
        await asyncio.sleep(1)
        world.network.slow("orders", 1)
        writer.write(b"x")
        await reader.readexactly(1)
        assert world.now() == pytest.approx(1.22)

    simulate(scenario)


def test_a_trip_takes_true_time_whatever_the_clocks_of_the_hosts_say() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        _, writer = await world.on("client", asyncio.open_connection("orders", 7000), rate=4)
        world.writers.append(writer)
        assert world.now() == pytest.approx(0.02)

    simulate(scenario)


def test_a_protocol_runs_in_the_context_of_the_code_that_opened_or_accepted_its_link() -> None:
    async def scenario(world: World) -> None:
        seen: set[tuple[str, str, str]] = set()

        class Looking(Listening):
            def __init__(self, side: str) -> None:
                super().__init__()
                self.side = side

            def note(self, what: str) -> None:
                assert world.loop.host is not None
                seen.add((self.side, what, world.loop.host.name))

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.note("made")

            def data_received(self, data: bytes) -> None:
                self.note("data")

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                self.note("lost")

        here, there = Looking("here"), Looking("there")
        await join(world, here, there)
        here.link.write(b"x")
        there.link.write(b"y")
        await asyncio.sleep(1)
        here.link.close()
        await there.lost.wait()
        sides = (("here", "client"), ("there", "orders"))
        assert seen == {(side, what, host) for side, host in sides for what in ("made", "data", "lost")}

    simulate(scenario)


# ------------------------------------------------------------------------------------- names and listeners


def test_names_resolve_to_addresses_and_back() -> None:
    async def scenario(world: World) -> None:
        orders = world.network.host("orders")
        found = await world.loop.getaddrinfo("orders", 7000, type=socket.SOCK_STREAM)
        tcp = socket.IPPROTO_TCP
        assert found == [(socket.AF_INET, socket.SOCK_STREAM, tcp, "", (orders.address, 7000))]
        assert await world.loop.getnameinfo((orders.address, 7000)) == ("orders", "7000")
        with pytest.raises(socket.gaierror, match="Name or service not known"):
            await world.loop.getaddrinfo("nowhere", 1)
        await world.echo()
        _, writer = await world.connect(orders.address)
        peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        assert peer == (orders.address, 7000)
        assert here[0] == world.network.host("client").address

    simulate(scenario)


def test_a_port_has_one_listener_and_is_free_again_when_that_closes() -> None:
    async def scenario(world: World) -> None:
        server = await world.echo()
        with pytest.raises(OSError, match=r"10\.0\.0\.2:7000") as caught:
            await world.echo()
        assert caught.value.errno == errno.EADDRINUSE
        await world.echo(host="third")
        server.close()
        await server.wait_closed()
        await world.echo()
        with pytest.raises(OSError, match="on 'client'") as caught:
            await world.on("client", asyncio.start_server(lambda reader, writer: None, "orders", 1))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        any_port = await world.echo(port=0)
        assert isinstance(any_port, asyncio.AbstractServer)
        assert any_port.sockets[0].getsockname()[1] >= 32_768  # type: ignore[attr-defined]

    simulate(scenario)


def test_a_connect_is_refused_where_nobody_listens_and_unanswered_where_nobody_is() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(ConnectionRefusedError):
            await world.connect()
        assert world.now() == pytest.approx(0.02)
        world.network.cut("orders")
        for host in ("orders", "10.9.9.9"):
            started = world.now()
            with pytest.raises(TimeoutError) as caught:
                await world.connect(host)
            assert caught.value.errno == errno.ETIMEDOUT
            assert world.now() - started == pytest.approx(130, abs=1)
        assert world.network.open_ends() == 0

    world = simulate(scenario)
    assert "host down" in world.kinds(LOST)
    assert "no such host" in world.kinds(LOST)


def test_a_connection_that_opens_when_its_listener_has_closed_is_reset() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        server = await world.on("orders", world.loop.create_server(lambda: there, "orders", 7000))
        await world.on("client", world.loop.create_connection(lambda: here, "orders", 7000))
        server.close()  # the client's last step of the handshake is on its way
        await here.lost.wait()
        assert isinstance(here.error, ConnectionResetError)
        assert not there.made.is_set()

    simulate(scenario)


def test_a_host_reaches_itself_by_localhost_and_whatever_is_cut_off() -> None:
    async def scenario(world: World) -> None:
        world.network.partition("client", ["client", "orders"])
        await world.echo(host="client")
        reader, writer = await world.connect("client")
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        with pytest.raises(ConnectionRefusedError):
            await world.connect("localhost")  # it listens at its outer address alone

    simulate(scenario)


def test_a_connect_cancelled_at_any_time_leaves_nothing_behind() -> None:
    async def scenario(world: World) -> None:
        server = await world.echo()
        opened = 0
        for number in range(35):
            connecting = world.on("client", asyncio.open_connection("orders", 7000))
            await asyncio.sleep(0.001 * min(number, 20))
            for _ in range(number - 20):  # the turns between the last of the handshake and the link
                await asyncio.sleep(0)
            if connecting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            else:
                (await connecting)[1].close()
                opened += 1
        assert 3 < opened < 15
        server.close()
        await server.wait_closed()
        await asyncio.sleep(200)
        assert world.network.open_ends() == 0

    simulate(scenario)


# ------------------------------------------------------------------------------------------------ faults


def test_a_partition_breaks_a_link_after_half_a_minute_of_sending_again() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        world.network.partition(["client"], ["orders", "third"])
        here.link.write(b"anybody?")
        started = world.now()
        await here.lost.wait()
        assert isinstance(here.error, TimeoutError)
        assert world.now() - started == pytest.approx(30)
        assert not there.received
        assert not there.lost.is_set()  # half-open: it wrote nothing, and cannot know
        world.network.heal()
        there.link.write(b"still there?")
        await there.lost.wait()
        assert isinstance(there.error, ConnectionResetError)

    world = simulate(scenario)
    assert "partition" in world.kinds(LOST)


def test_a_link_survives_a_partition_that_heals_soon() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        world.network.partition("client", "orders")
        here.link.write(b"later")
        await asyncio.sleep(10)
        assert not there.received
        world.network.heal()
        await asyncio.sleep(10)
        assert bytes(there.received) == b"later"

    simulate(scenario)


def test_a_partition_loses_what_is_on_its_way() -> None:
    async def scenario(world: World) -> None:
        link, _, there = await post(world)
        link.sendto(b"lost")
        await asyncio.sleep(0.005)
        world.network.partition("client", "orders")
        await asyncio.sleep(1)
        world.network.heal("orders", "client")
        link.sendto(b"found")
        await asyncio.sleep(1)
        assert there.letters == [b"found"]

    simulate(scenario)


def test_a_one_way_partition_lets_the_other_way_through() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        world.network.partition("orders", "client", one_way=True)
        here.link.write(b"ask")
        there.link.write(b"say")
        await asyncio.sleep(1)
        assert bytes(there.received) == b"ask"
        assert not here.received
        await asyncio.sleep(31)  # neither end is told that the other has heard it
        assert isinstance(here.error, TimeoutError)
        assert isinstance(there.error, TimeoutError | ConnectionResetError)
        assert bytes(there.received) == b"ask"

    simulate(scenario)


def test_a_host_without_power_leaves_half_open_links_that_are_reset_once_it_is_back() -> None:
    async def scenario(world: World) -> None:
        here, there = Listening(), Listening()
        await join(world, here, there)
        world.network.cut("orders")
        there.link.write(b"from the dead")
        here.link.write(b"hello?")
        await asyncio.sleep(5)
        assert not here.lost.is_set()
        assert not here.received
        there.link.close()
        await there.lost.wait()  # so that what is left of its process can end
        with pytest.raises(OSError, match="'orders' is down"):
            await world.echo()
        world.network.restore("orders")
        await here.lost.wait()
        assert isinstance(here.error, ConnectionResetError)
        await world.echo()  # its port is free
        reader, writer = await world.connect()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"

    simulate(scenario)


# --------------------------------------------------------------------------------------------- datagrams


async def post(world: World, port: int = 9) -> tuple[asyncio.DatagramTransport, Mailbox, Mailbox]:
    """A link from the client to a mailbox at orders, and both mailboxes."""
    there: Mailbox
    _, there = await world.on("orders", world.loop.create_datagram_endpoint(Mailbox, ("orders", 9)))
    link, here = await world.on(
        "client", world.loop.create_datagram_endpoint(Mailbox, remote_addr=("orders", port))
    )
    return link, here, there


def test_datagrams_are_lost_doubled_and_reordered_and_never_changed() -> None:
    async def scenario(world: World) -> None:
        link, _, there = await post(world)
        for number in range(1_000):
            link.sendto(number.to_bytes(2, "big"))
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        numbers = [int.from_bytes(letter, "big") for letter in there.letters]
        assert numbers != sorted(numbers)
        assert set(numbers) < set(range(1_000))
        assert 700 < len(set(numbers)) < 900
        assert 50 < len(numbers) - len(set(numbers)) < 250

    simulate(scenario, Conditions(0.01, loss=0.2, duplicate=0.2, reorder_s=0.05))


def test_a_datagram_to_nobody_is_told_to_who_sends_to_that_address_alone() -> None:
    async def scenario(world: World) -> None:
        link, here, there = await post(world, port=10)
        link.sendto(b"anybody?")
        await asyncio.sleep(1)
        assert [type(error) for error in here.errors] == [ConnectionRefusedError]
        with pytest.raises(ValueError, match="is connected to"):
            link.sendto(b"x", ("third", 1))
        link.sendto(bytes(70_000))
        await asyncio.sleep(1)
        too_long = here.errors[1]
        assert isinstance(too_long, OSError)
        assert too_long.errno == errno.EMSGSIZE
        link.close()
        await here.lost.wait()
        assert not there.letters

    simulate(scenario)


def test_a_flood_of_datagrams_is_lost_where_the_way_is_narrow() -> None:
    async def scenario(world: World) -> None:
        link, _, there = await post(world)
        for _ in range(1_000):
            link.sendto(bytes(1_000))
        await asyncio.sleep(10)
        assert 95 <= len(there.letters) <= 105  # a second's worth

    world = simulate(scenario, Conditions(0.01, bandwidth_bytes_s=100_000))
    assert "queue full" in world.kinds(LOST)


def test_a_burst_beyond_the_receivers_buffer_is_lost() -> None:
    async def scenario(world: World) -> None:
        link, _, there = await post(world)
        for _ in range(300):
            link.sendto(bytes(1_000))
        await asyncio.sleep(1)
        assert len(there.letters) == 212
        assert len(world.kinds("overflow")) == 300 - 212

    simulate(scenario)


def test_a_connected_endpoint_hears_its_peer_alone() -> None:
    async def scenario(world: World) -> None:
        link, here, _ = await post(world)
        stranger, other = await world.on("third", world.loop.create_datagram_endpoint(Mailbox, ("third", 0)))
        stranger.sendto(b"psst", link.get_extra_info("sockname"))
        await asyncio.sleep(1)
        assert not here.letters
        assert not other.errors  # it is not connected, so not told of the refusal

    world = simulate(scenario)
    assert any("unreachable" in text for text in world.kinds(RECEIVE))


def test_a_datagram_may_be_addressed_by_name_and_an_unknown_name_is_told() -> None:
    async def scenario(world: World) -> None:
        await world.on("orders", world.loop.create_datagram_endpoint(Mailbox, ("orders", 9)))
        link, here = await world.on("client", world.loop.create_datagram_endpoint(Mailbox, ("client", 9)))
        link.sendto(b"to myself", ("localhost", 9))
        link.sendto(b"by name", ("client", 9))
        link.sendto(b"to nobody", ("nobody", 9))
        await asyncio.sleep(1)
        assert sorted(here.letters) == [b"by name"]
        assert [type(error) for error in here.errors] == [socket.gaierror]

    simulate(scenario)


def test_endpoints_for_datagrams_may_share_a_port() -> None:
    async def scenario(world: World) -> None:
        shared = [
            await world.on(
                "orders", world.loop.create_datagram_endpoint(Mailbox, ("orders", 9), reuse_port=True)
            )
            for _ in range(2)
        ]
        link, _ = await world.on(
            "client", world.loop.create_datagram_endpoint(Mailbox, remote_addr=("orders", 9))
        )
        for _ in range(100):
            link.sendto(b"x")
        await asyncio.sleep(1)
        got = [len(mailbox.letters) for _, mailbox in shared]
        assert sum(got) == 100
        assert min(got) > 20

    simulate(scenario)


def test_a_network_that_loses_more_loses_it_on_every_way_and_changes_nothing_else() -> None:
    own, usual = Conditions(0.03, loss=0.5), Conditions(0.02)

    async def scenario(world: World) -> None:
        world.network.set("client", "orders", own)
        link, _, there = await post(world)
        for loss, expected in ((0.5, 250), (1.0, 0), (0.0, 500)):
            there.letters.clear()
            world.network.lossy(loss)
            for _ in range(1_000):
                link.sendto(b"x")
                await asyncio.sleep(0.001)
            await asyncio.sleep(1)
            assert abs(len(there.letters) - expected) <= 60, loss
        assert world.network.default == usual
        _, mailbox = await world.on("orders", world.loop.create_datagram_endpoint(Mailbox, ("127.0.0.1", 7)))
        world.network.lossy(1.0)
        alone, _ = await world.on(
            "orders", world.loop.create_datagram_endpoint(Mailbox, remote_addr=("127.0.0.1", 7))
        )
        alone.sendto(b"x")
        await asyncio.sleep(1)
        assert mailbox.letters == [b"x"]  # no way between hosts
        with pytest.raises(ValueError, match=r"probability=1\.5"):
            world.network.lossy(1.5)

    simulate(scenario, usual)


def test_another_family_than_ipv4_is_refused() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        six: dict[str, Any] = {"family": socket.AF_INET6}
        for asked in (
            world.loop.create_connection(asyncio.Protocol, "orders", 7000, **six),
            world.loop.create_server(asyncio.Protocol, None, 0, **six),
            world.loop.create_datagram_endpoint(Mailbox, ("client", 0), **six),
        ):
            with pytest.raises(socket.gaierror, match="IPv4 only"):
                await world.on("client", asked)

    simulate(scenario)


# -------------------------------------------------------------------------------------- one seed, one run


def test_one_seed_gives_one_trace_and_every_message_is_received_or_lost() -> None:
    async def scenario(world: World) -> None:
        await world.echo()
        reader, writer = await world.connect()
        for _ in range(50):
            writer.write(bytes(3_000))
            await reader.readexactly(3_000)
        writer.close()
        await asyncio.sleep(100)

    rough = Conditions(Latency(0.02, 0.5), loss=0.1)
    first, second, other = (simulate(scenario, rough, seed=seed) for seed in (SEED, SEED, SEED + 1))
    assert first.trace.digest() == second.trace.digest()
    assert first.trace.digest() != other.trace.digest()
    sent, ended = (
        sorted(event.details["message"] for event in first.trace if event.kind in kinds)  # type: ignore[type-var]
        for kinds in ((SEND,), (RECEIVE, LOST))
    )
    assert sent == ended


def test_conditions_out_of_range_say_so() -> None:
    wrong: dict[str, Any] = {"loss": 1.5, "latency_s": -1, "bandwidth_bytes_s": 0, "segment_bytes": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            Conditions(**{name: value})
    with pytest.raises(ValueError, match="median_s above 0"):
        Latency(0)
    network = Network(random.Random(SEED))
    assert isinstance(network.host("orders"), NetHost)
    with pytest.raises(ValueError, match="'localhost' cannot name"):
        network.host("localhost")
