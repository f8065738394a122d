"""TCP: the loop's own transports, with errors told for a person.

Nagle's algorithm is off already, asyncio and uvloop both see to that. No SO_KEEPALIVE: heartbeats are the
connection's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import socket
import ssl

from rpcfw.endpoint import Endpoint
from rpcfw.transport.failure import unlistenable
from rpcfw.transport.link import Link, Listener, ReceiverFactory
from rpcfw.transport.listener import SocketListener
from rpcfw.transport.opening import open_link


class TcpTransport:
    """Links over TCP, IPv4 and IPv6."""

    def __init__(
        self, *, reuse_port: bool = False, backlog: int = 1024, connect_timeout_s: float = 3.0
    ) -> None:
        """Set the defaults of every link.

        Args:
            reuse_port: let several processes listen on one port; the system shares the links out among them.
            backlog: links the system keeps ready before they are accepted.
            connect_timeout_s: seconds for name lookup and connect together.
        """
        self._reuse_port = reuse_port
        self._backlog = backlog
        self._connect_timeout_s = connect_timeout_s

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Open a link."""
        loop = asyncio.get_running_loop()
        return await open_link(
            endpoint,
            self._connect_timeout_s,
            receiver,
            lambda factory: loop.create_connection(factory, endpoint.host, endpoint.port),
        )

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Accept links on every address of the host."""
        return await ServerSockets(self._reuse_port, self._backlog).listen(endpoint, receiver)


@dataclasses.dataclass(frozen=True)
class ServerSockets:
    """How listening TCP sockets are made, with or without TLS."""

    reuse_port: bool
    backlog: int
    tls: ssl.SSLContext | None = None
    handshake_timeout_s: float | None = None

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> SocketListener:
        """Listen on every address of the host, on one port, also when port 0 lets the system choose it."""
        servers: list[asyncio.Server] = []
        port = endpoint.port
        try:
            for address in await self._addresses(endpoint):
                try:
                    server = await self._serve(address, port, receiver)
                except OSError as error:
                    if error.errno == errno.EADDRNOTAVAIL and servers:
                        continue  # "localhost" names ::1 also on hosts without IPv6
                    raise
                servers.append(server)
                port = server.sockets[0].getsockname()[1]
        except BaseException as error:
            for server in servers:
                server.close()
            if isinstance(error, (OSError, UnicodeError)):
                raise unlistenable(endpoint, error) from error
            raise
        return SocketListener(dataclasses.replace(endpoint, port=port), servers)

    async def _addresses(self, endpoint: Endpoint) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # IPv4 first: without IPv6 the host's other addresses may fail, once one is listened on.
        by_family = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
        return list(dict.fromkeys(str(address[0]) for *_, address in by_family))

    async def _serve(self, address: str, port: int, receiver: ReceiverFactory) -> asyncio.Server:
        try:
            return await asyncio.get_running_loop().create_server(
                receiver,
                address,
                port,
                backlog=self.backlog,
                reuse_port=self.reuse_port,
                ssl=self.tls,
                ssl_handshake_timeout=self.handshake_timeout_s,
            )
        except OSError as error:
            if error.errno is None:  # asyncio from 3.13 on keeps this one number to itself
                raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
            raise
