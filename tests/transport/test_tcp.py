"""TCP: names and address families, ports, and the ways a connect ends without a link."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.transport import TcpTransport
from tests.transport.recorder import Meet, Recorder, link_of

pytestmark = pytest.mark.both_loops

one_loop = pytest.mark.one_loop  # uvloop asks the resolver from C: no name can be made up for it
ANY_PORT = Endpoint.parse("tcp://127.0.0.1:0")


@pytest.fixture
def full() -> Iterator[Endpoint]:
    """A port whose backlog is full: the system answers no further connect."""
    with socket.socket() as listening, socket.socket() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting.connect(listening.getsockname())
        yield Endpoint("tcp", "127.0.0.1", listening.getsockname()[1])


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.1"])
async def test_a_link_is_made_by_name_and_over_ipv6(host: str, meet: Meet) -> None:
    meeting = meet(TcpTransport(), f"tcp://{host}:0?zone=a")
    endpoint = await meeting.listen()
    assert endpoint.port > 0
    assert endpoint.host == host.strip("[]")
    assert endpoint.labels == {"zone": "a"}
    client, server = await meeting.pair()
    link_of(client).write(b"x")
    await server.until_received(1)


async def test_small_writes_are_not_held_back(meet: Meet) -> None:
    for end in await meet(TcpTransport(), "tcp://127.0.0.1:0").pair():
        sock = link_of(end).get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@one_loop
async def test_a_name_of_several_addresses_is_listened_on_under_one_port(
    meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", both)
        meeting = meet(TcpTransport(), "tcp://two.addresses:0")
        endpoint = await meeting.listen()
    for host in ("127.0.0.1", "::1"):
        await meeting.connect(Endpoint("tcp", host, endpoint.port))


@one_loop
async def test_an_address_of_a_family_the_host_lacks_is_left_out(
    meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_foreign(*args: Any, **kwargs: Any) -> list[Any]:
        return [
            (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)),
        ]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", one_foreign)
        meeting = meet(TcpTransport(), "tcp://two.addresses:0")
        endpoint = await meeting.listen()
    await meeting.connect(Endpoint("tcp", "127.0.0.1", endpoint.port))


@one_loop
async def test_a_name_of_which_one_address_is_used_is_not_listened_on_at_all(
    meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await meet(TcpTransport(), "tcp://[::1]:0").listen()

    def both(*args: Any, **kwargs: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0))]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", both)
        with pytest.raises(OSError, match="address already in use"):
            await TcpTransport().listen(Endpoint("tcp", "two.addresses", endpoint.port), Recorder)
    await meet(TcpTransport(), f"tcp://127.0.0.1:{endpoint.port}").listen()


async def test_an_address_of_another_host_cannot_be_listened_on() -> None:
    elsewhere = Endpoint.parse("tcp://192.0.2.1:0")
    with pytest.raises(OSError, match="not an address of this host") as caught:
        await TcpTransport().listen(elsewhere, Recorder)
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_processes_may_share_a_port_when_both_ask_for_it(meet: Meet) -> None:
    transport = TcpTransport(reuse_port=True)
    endpoint = await meet(transport, "tcp://127.0.0.1:0").listen()
    second = await transport.listen(endpoint, Recorder)
    assert second.endpoint.port == endpoint.port
    second.close()
    with pytest.raises(OSError, match="address already in use; another server has it"):
        await TcpTransport().listen(endpoint, Recorder)


async def test_a_connect_that_nobody_answers_ends_in_time(full: Endpoint) -> None:
    client = Recorder()
    with pytest.raises(RpcError, match=r"no answer within 0\.02 s; check the address, and that no firewall"):
        await TcpTransport(connect_timeout_s=0.02).connect(full, lambda: client)
    assert client.link is None


async def test_a_pending_connect_can_be_cancelled(full: Endpoint) -> None:
    client = Recorder()
    connecting = asyncio.create_task(TcpTransport().connect(full, lambda: client))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connecting.done()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert client.link is None


async def test_a_timeout_around_a_connect_stays_the_callers_own(full: Endpoint) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await TcpTransport().connect(full, Recorder)


async def test_a_refused_connect_says_what_to_do() -> None:
    listener = await TcpTransport().listen(ANY_PORT, Recorder)
    listener.close()
    await listener.wait_closed()
    address = listener.endpoint.address
    said = f"cannot connect to {address}: connection refused; check that the server runs and listens exactly"
    with pytest.raises(RpcError, match=said):
        await TcpTransport().connect(listener.endpoint, Recorder)


@one_loop
async def test_a_name_that_does_not_resolve_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    nowhere = Endpoint.parse("tcp://nowhere.invalid:1")
    with pytest.raises(RpcError, match="Name or service not known; check the spelling of the host") as caught:
        await TcpTransport().connect(nowhere, Recorder)
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(
        OSError, match=r"cannot listen on tcp://nowhere\.invalid:1: Name or service not known"
    ):
        await TcpTransport().listen(nowhere, Recorder)


async def test_a_name_that_cannot_be_a_name_says_so() -> None:
    impossible = Endpoint.parse(f"tcp://{'a' * 70}:1")
    said = r"the host name cannot be looked up .*; check the spelling"
    with pytest.raises(RpcError, match=said):
        await TcpTransport().connect(impossible, Recorder)
    with pytest.raises(OSError, match=said):
        await TcpTransport().listen(impossible, Recorder)
