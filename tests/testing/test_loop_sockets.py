"""What the simulated loop passes on to the network under it; asyncio's streams run on any object with its methods."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from rpcfw.testing import SimLoop
from rpcfw.testing.clock import OUTSIDE, START_S, context_on
from tests.testing.test_loop_hosts import Machine

TRIP_S = 0.25


class Wire(asyncio.Transport):
    """One end; what is written arrives at the other end's protocol after a trip."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.far: Wire | None = None
        self.closed = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert self.far is not None
        self._later(self.far.protocol.data_received, bytes(data))

    def write_eof(self) -> None:
        assert self.far is not None
        self._later(self.far.protocol.eof_received)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.write_eof()
            self._later(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """A stream reader asks for it; nothing here is that long."""

    def resume_reading(self) -> None:
        """As pause_reading."""

    def _later(self, callback: Callable[..., Any], *args: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.call_at_global(loop.global_time() + TRIP_S, callback, *args)


class FakeNetwork:
    """Every host and port leads to the one server. `asked` keeps what the loop passed on."""

    def __init__(self) -> None:
        self.accept: Callable[[], Any] | None = None
        self.asked: list[tuple[Any, ...]] = []

    async def create_connection(
        self, host_name: str, protocol_factory: Callable[[], Any], host: Any, port: Any, /, **options: Any
    ) -> tuple[Any, Any]:
        self.asked.append(("connect", host_name, host, port, options))
        assert self.accept is not None
        await asyncio.sleep(TRIP_S)
        near, far = Wire(protocol_factory()), Wire(self.accept())
        near.far, far.far = far, near
        return near, near.protocol

    async def create_server(
        self, host_name: str, protocol_factory: Callable[[], Any], host: Any, port: Any, /, **options: Any
    ) -> Any:
        self.asked.append(("listen", host_name, host, port, options))
        self.accept = protocol_factory
        return object()  # asyncio.start_server only hands it on

    async def create_datagram_endpoint(
        self,
        host_name: str,
        protocol_factory: Callable[[], Any],
        local_addr: Any,
        remote_addr: Any,
        /,
        **options: Any,
    ) -> tuple[Any, Any]:
        self.asked.append(("datagrams", host_name, local_addr, remote_addr, options))
        return asyncio.DatagramTransport(), protocol_factory()

    def getaddrinfo(self, host: Any, port: Any, /, **options: Any) -> list[Any]:
        return [(socket.AF_INET, options["type"], 6, "", ("10.0.0.1", port))]

    def getnameinfo(self, sockaddr: Any, flags: int = 0, /) -> tuple[str, str]:
        return f"host of {sockaddr[0]}", str(sockaddr[1])


def run_on(network: FakeNetwork, main: Callable[[SimLoop], Any]) -> None:
    loop = SimLoop()
    loop.network = network
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.finish()


def test_asyncio_streams_talk_over_the_network_under_the_loop() -> None:
    network = FakeNetwork()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main(loop: SimLoop) -> None:
        listening = loop.create_task(
            asyncio.start_server(echo, "0.0.0.0", 7000), context=context_on(Machine("orders"))
        )
        await listening
        reader, writer = await asyncio.open_connection("orders", 7000)
        writer.write(b"two\nlines\n")
        writer.write_eof()
        assert await reader.read() == b"TWO\nLINES\n"
        writer.close()
        await writer.wait_closed()
        assert loop.time() - START_S == 4 * TRIP_S

    run_on(network, main)
    listen, connect = network.asked
    assert listen[:4] == ("listen", "orders", "0.0.0.0", 7000)
    assert connect == ("connect", OUTSIDE, "orders", 7000, {})


def test_names_addresses_and_datagrams_are_the_networks() -> None:
    network = FakeNetwork()

    async def main(loop: SimLoop) -> None:
        found = await loop.getaddrinfo("orders", 7000, type=socket.SOCK_STREAM)
        assert found == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 7000))]
        assert await loop.getnameinfo(("10.0.0.1", 7000)) == ("host of 10.0.0.1", "7000")
        endpoint = loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("orders", 7000), reuse_port=True
        )
        await loop.create_task(endpoint, context=context_on(Machine("shop")))

    run_on(network, main)
    assert network.asked == [("datagrams", "shop", None, ("orders", 7000), {"reuse_port": True})]
