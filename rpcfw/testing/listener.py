"""A simulated listener: asyncio's server object over the TCP of one host.

It makes a protocol and a `SimLink` of each connection that arrives, in the context of the code that began to listen.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context

from rpcfw.testing.link import SimLink
from rpcfw.testing.stack import TcpStack
from rpcfw.testing.tcp import Address, TcpSocket


class ListeningSocket:
    """What is left of a socket where there is none: its name."""

    family = sockets.AF_INET
    type = sockets.SOCK_STREAM
    proto = sockets.IPPROTO_TCP

    def __init__(self, name: Address) -> None:
        self._name = name

    def getsockname(self) -> Address:
        """Address and port."""
        return self._name

    def fileno(self) -> int:
        """-1: there is no descriptor."""
        return -1


class SimServer(asyncio.AbstractServer):
    """Accepts links at one or several addresses of a host."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stack: TcpStack,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._loop = loop
        self._stack = stack
        self._protocol_factory = protocol_factory
        self._context = copy_context()
        self._names: list[tuple[Address, bool]] = []
        self._links: dict[int, SimLink] = {}
        self._serving = self._closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def bind(self, addresses: Sequence[str], port: int, *, share: bool) -> None:
        """Take the addresses, all with one port where 0 was asked for. Raises OSError; nothing stays taken then."""
        try:
            for address in addresses:
                port = self._stack.ports.bind(address, port, self._accept, share=share)
                self._names.append(((address, port), share))
        except OSError:
            self.close()
            raise

    @property
    def sockets(self) -> tuple[ListeningSocket, ...]:
        """One for each address, with the actual port; none once it is closed."""
        return () if self._closed else tuple(ListeningSocket(name) for name, _ in self._names)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop it lives on."""
        return self._loop

    def is_serving(self) -> bool:
        """True while it accepts links."""
        return self._serving

    async def start_serving(self) -> None:
        """Accept links."""
        if self._closed:
            raise RuntimeError("the server is closed; create another one")
        self._serving = True

    async def serve_forever(self) -> None:
        """Accept links until this is cancelled, then close."""
        await self.start_serving()
        try:
            await self._loop.create_future()
        finally:
            self.close()

    def close(self) -> None:
        """Accept no more and give the addresses back; links that exist stay."""
        if self._closed:
            return
        self._closed, self._serving = True, False
        for (_, port), _ in self._names:
            self._stack.ports.release(port, self._accept)
        self._look_for_end()

    def close_clients(self) -> None:
        """Close every link that was accepted."""
        for link in list(self._links.values()):
            link.close()

    def abort_clients(self) -> None:
        """Reset every link that was accepted."""
        for link in list(self._links.values()):
            link.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed and the links it accepted are gone, as asyncio does from 3.12 on."""
        if not self._closed or self._links:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _accept(self, socket: TcpSocket) -> None:
        """A connection is open. Runs in the network's context: nothing of the process happens here."""
        socket.changed = lambda: None
        context = self._context.copy()
        self._loop.call_soon(self._welcome, socket, context, context=context)

    def _welcome(self, socket: TcpSocket, context: Context) -> None:
        if self._closed or not self._serving:
            socket.reset()
            return
        try:
            protocol = self._protocol_factory()
        except Exception as error:
            told = {"message": "the protocol factory of a simulated server failed", "exception": error}
            self._loop.call_exception_handler(told)
            socket.reset()
            return
        link = SimLink(self._loop, socket, protocol, context, self._forget)
        self._links[id(link)] = link

    def _forget(self, link: SimLink) -> None:
        self._links.pop(id(link), None)
        self._look_for_end()

    def _look_for_end(self) -> None:
        if self._closed and not self._links:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
