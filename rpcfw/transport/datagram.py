"""Datagrams over UDP, for one-way calls and heartbeats: each arrives whole, once, or not at all, and in any
order.

No stream, so no `Transport`: a datagram link has no flow control, and its receiver is an
`asyncio.DatagramProtocol`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport.failure import connecting, unlistenable

MAX_DATAGRAM_BYTES = 65_507
"""The longest datagram UDP carries over IPv4 (RFC 768, RFC 791: 65,535 less both headers). On real networks
1,200 is safe from being cut in pieces."""

DatagramReceiverFactory = Callable[[], asyncio.DatagramProtocol]
"""Makes what a datagram link tells of: connection_made, datagram_received(data, address), error_received,
connection_lost."""


class DatagramTransport:
    """Links over UDP."""

    def __init__(self, *, reuse_port: bool = False, connect_timeout_s: float = 3.0) -> None:
        """Set what every link shares.

        Args:
            reuse_port: let several processes listen on one port.
            connect_timeout_s: seconds for the name lookup; UDP itself connects to nobody.
        """
        self._reuse_port = reuse_port
        self._connect_timeout_s = connect_timeout_s

    async def connect(self, endpoint: Endpoint, receiver: DatagramReceiverFactory) -> DatagramLink:
        """Make a link to one peer. Succeeds also when nobody listens: error_received may tell later.

        Raises:
            RpcError: UNAVAILABLE, the host name cannot be looked up.
        """
        loop = asyncio.get_running_loop()
        async with connecting(endpoint, self._connect_timeout_s):
            transport, _ = await loop.create_datagram_endpoint(
                receiver, remote_addr=(endpoint.host, endpoint.port)
            )
        return DatagramLink(endpoint, transport)

    async def listen(self, endpoint: Endpoint, receiver: DatagramReceiverFactory) -> DatagramListener:
        """Receive from anybody. Raises OSError that names the address and the mend."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                receiver, local_addr=(endpoint.host, endpoint.port), reuse_port=self._reuse_port or None
            )
        except (OSError, UnicodeError) as error:
            wrapped = error.__cause__  # uvloop puts an error without a number around the system's
            raise unlistenable(endpoint, wrapped if isinstance(wrapped, OSError) else error) from error
        port = transport.get_extra_info("sockname")[1]
        return DatagramListener(dataclasses.replace(endpoint, port=port), transport)


class DatagramLink:
    """Datagrams to and from one peer."""

    def __init__(self, endpoint: Endpoint, transport: asyncio.DatagramTransport) -> None:
        self.endpoint = endpoint
        self._transport = transport

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram; never waits. Raises RpcError when it is too long."""
        _check_size(data, self.endpoint)
        self._transport.sendto(data)

    def close(self) -> None:
        """Send what is queued, then connection_lost."""
        self._transport.close()

    def is_closing(self) -> bool:
        """True from `close` on."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peername`` and ``sockname``."""
        return self._transport.get_extra_info(name, default)


class DatagramListener:
    """An address that receives from anybody, and answers."""

    def __init__(self, endpoint: Endpoint, transport: asyncio.DatagramTransport) -> None:
        """Args: endpoint: with the actual port."""
        self.endpoint = endpoint
        self._transport = transport

    def sendto(self, data: bytes | bytearray | memoryview, address: tuple[Any, ...]) -> None:
        """Send one datagram to an address that datagram_received told. Raises RpcError when it is too
        long.
        """
        _check_size(data, self.endpoint)
        self._transport.sendto(data, address)

    def close(self) -> None:
        """Receive no more, send what is queued, then connection_lost."""
        self._transport.close()

    def is_closing(self) -> bool:
        """True from `close` on."""
        return self._transport.is_closing()


def _check_size(data: bytes | bytearray | memoryview, endpoint: Endpoint) -> None:
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if size > MAX_DATAGRAM_BYTES:
        message = (
            f"{endpoint.address}: a datagram carries at most {MAX_DATAGRAM_BYTES} bytes, this has {size}; "
            "send less, or use tcp://"
        )
        raise RpcError(Code.INVALID_ARGUMENT, message, origin=Origin.LOCAL, executed=False)
