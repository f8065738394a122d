"""Datagrams: there and back, too long, and nobody there."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.transport import MAX_DATAGRAM_BYTES, DatagramLink, DatagramListener, DatagramTransport

pytestmark = pytest.mark.both_loops

ANY_PORT = "udp://127.0.0.1:0"


class Mailbox(asyncio.DatagramProtocol):
    """Keeps what arrives, with the address it came from."""

    def __init__(self) -> None:
        self.letters: asyncio.Queue[tuple[bytes, tuple[Any, ...]]] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.letters.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Post:
    """A listener, a link to it, and the mailbox of each."""

    def __init__(self) -> None:
        self.here, self.there = Mailbox(), Mailbox()
        self.listener: DatagramListener | None = None
        self.link: DatagramLink | None = None

    async def listen(self, url: str = ANY_PORT) -> DatagramListener:
        self.listener = await DatagramTransport().listen(Endpoint.parse(url), lambda: self.there)
        return self.listener

    async def connect(self) -> DatagramLink:
        assert self.listener is not None
        self.link = await DatagramTransport().connect(self.listener.endpoint, lambda: self.here)
        return self.link

    async def close(self) -> None:
        for end, mailbox in ((self.link, self.here), (self.listener, self.there)):
            if end is not None:
                end.close()
                assert end.is_closing()
                await mailbox.lost.wait()


@pytest_asyncio.fixture
async def post() -> AsyncIterator[Post]:
    post = Post()
    yield post
    await post.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_a_datagram_arrives_whole_and_is_answered(host: str, post: Post) -> None:
    listener = await post.listen(f"udp://{host}:0")
    assert listener.endpoint.port > 0
    link = await post.connect()
    for letter in (b"short", bytes(MAX_DATAGRAM_BYTES), memoryview(b"view")):
        link.send(letter)
        data, address = await post.there.letters.get()
        assert data == bytes(letter)
        listener.sendto(data[:5], address)
        assert (await post.here.letters.get())[0] == data[:5]


async def test_a_datagram_too_long_is_refused_before_it_is_sent(post: Post) -> None:
    listener, link = await post.listen(), await post.connect()
    said = rf"{listener.endpoint.address}: a datagram carries at most 65507 bytes, this has 65508; .* tcp://"
    with pytest.raises(RpcError, match=said) as caught:
        link.send(bytes(MAX_DATAGRAM_BYTES + 1))
    assert (caught.value.code, caught.value.executed) == (Code.INVALID_ARGUMENT, False)
    with pytest.raises(RpcError, match=said):
        listener.sendto(bytearray(MAX_DATAGRAM_BYTES + 1), link.get_extra_info("sockname"))
    link.send(b"next")
    assert (await post.there.letters.get())[0] == b"next"


async def test_a_datagram_to_nobody_is_told_as_an_error_later(post: Post) -> None:
    listener = await post.listen()
    listener.close()
    await post.there.lost.wait()
    link = await post.connect()
    link.send(b"anybody?")
    assert isinstance(await post.here.errors.get(), ConnectionRefusedError)


@pytest.mark.filterwarnings(  # uvloop leaves the handle of a failed bind to the garbage collector
    "ignore:Exception ignored in. 'uvloop.loop.UVHandle.__dealloc__:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_used_port_says_so(post: Post) -> None:
    listener = await post.listen()
    said = f"cannot listen on {listener.endpoint.address}: address already in use; another server has it"
    with pytest.raises(OSError, match=said) as caught:
        await DatagramTransport().listen(listener.endpoint, Mailbox)
    assert caught.value.errno == errno.EADDRINUSE


async def test_processes_may_share_a_port_when_both_ask_for_it(post: Post) -> None:
    transport = DatagramTransport(reuse_port=True)
    first = await transport.listen(Endpoint.parse(ANY_PORT), lambda: post.here)
    second = await transport.listen(first.endpoint, lambda: post.there)
    for listener, mailbox in ((first, post.here), (second, post.there)):
        listener.close()
        await mailbox.lost.wait()


async def test_a_name_that_cannot_be_a_name_says_so() -> None:
    impossible = Endpoint.parse(f"udp://{'a' * 70}:1")
    said = r"the host name cannot be looked up .*; check the spelling"
    with pytest.raises(RpcError, match=said):
        await DatagramTransport().connect(impossible, Mailbox)
    with pytest.raises(OSError, match=said):
        await DatagramTransport().listen(impossible, Mailbox)
