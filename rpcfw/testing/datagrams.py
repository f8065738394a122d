"""Simulated datagrams: the UDP of one host, and asyncio's datagram transport over it.

Each datagram is one parcel, so it may be lost, come twice, or overtake another. A receiver that is too slow loses what
its buffer cannot hold.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from rpcfw.testing.medium import Medium, NetHost, Parcel
from rpcfw.testing.ports import ANY_ADDRESS, Ports
from rpcfw.testing.stack import source_address
from rpcfw.testing.tcp import Address

MAX_DATAGRAM_BYTES = 65_507
RECEIVE_BUFFER_BYTES = 212_992  # Linux's


class UdpStack:
    """The UDP of one host."""

    def __init__(
        self, medium: Medium, host: NetHost, stacks: dict[str, UdpStack], resolve: Callable[[str], str]
    ) -> None:
        """Start with no port taken.

        Args:
            stacks: those of all hosts by name, where the datagrams arrive.
            resolve: gives the address that a name stands for, or raises OSError.
        """
        self.ports: Ports[SimDatagrams] = Ports()
        self.resolve = resolve
        self._medium = medium
        self._host = host
        self._stacks = stacks

    def power_off(self) -> None:
        """Lose every endpoint; nobody is told."""
        self.ports.clear()

    def send(self, endpoint: SimDatagrams, data: bytes, target: Address) -> None:
        """Send a datagram; errors may come back to an endpoint that is connected."""
        host = self._host
        source = source_address(host, target[0]), endpoint.port
        text = f"udp {source[1]}>{target[1]} {len(data)} B"

        def arrive(there: NetHost) -> None:
            if not self._stacks[there.name].receive(data, source, target):
                refusal = Parcel(
                    there, source[0], f"icmp {target[1]}>{source[1]} unreachable", 0, datagram=True
                )
                self._medium.carry(refusal, lambda _: endpoint.refused(target))

        self._medium.carry(Parcel(host, target[0], text, len(data), datagram=True), arrive)

    def receive(self, data: bytes, source: Address, target: Address) -> bool:
        """Put a datagram into its receiver's buffer; False when nobody has the port."""
        takers = [endpoint for endpoint in self.ports.find(*target) if endpoint.takes_from(source)]
        if not takers:
            return False
        taker = takers[0] if len(takers) == 1 else self._medium.rng.choice(takers)
        if not taker.put(data, source):
            self._medium.trace.record(
                "overflow", self._host.name, f"udp {target[1]}: the receiver is too slow"
            )
        return True


class SimDatagrams(asyncio.DatagramTransport):
    """One endpoint, bound to a port; with `remote` it sends to and hears from that address alone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stack: UdpStack,
        context: Context,
        remote: Address | None,
    ) -> None:
        super().__init__({"peername": remote, "socket": None})
        self.port = 0
        self.made: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._stack = stack
        self._context = context
        self._remote = remote
        self._protocol: asyncio.DatagramProtocol | None = None
        self._news: deque[tuple[bytes, Address] | Exception] = deque()
        self._bytes = 0
        self._scheduled = self._told_made = self._closing = False

    def bind(self, address: str, port: int, *, share: bool) -> None:
        """Take the port. Raises OSError."""
        self.port = self._stack.ports.bind(address, port, self, share=share)
        if self._remote is not None and address == ANY_ADDRESS:
            address = source_address(self._stack._host, self._remote[0])
        self._extra: dict[str, Any]
        self._extra["sockname"] = (address, self.port)

    def begin(self, protocol: asyncio.DatagramProtocol) -> None:
        """Tell the protocol of the endpoint, and from then on of datagrams."""
        self._protocol = protocol
        self._wake()

    def takes_from(self, source: Address) -> bool:
        """Whether datagrams of that address are for this endpoint."""
        return self._remote is None or self._remote == source

    def put(self, data: bytes, source: Address) -> bool:
        """A datagram came; False when there is no room for it."""
        if self._bytes + len(data) > RECEIVE_BUFFER_BYTES:
            return False
        self._bytes += len(data)
        self._news.append((data, source))
        self._wake()
        return True

    def refused(self, target: Address) -> None:
        """Word came that nobody listens there."""
        if self._remote == target:
            self._say(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))

    def _say(self, error: OSError) -> None:
        """Have the protocol hear of an error."""
        self._news.append(error)
        self._wake()

    # ------------------------------------------------------------------------------------------- sending

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a copy; to the remote address unless told another one."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self._remote is not None:
            if addr is not None and tuple(addr[:2]) != self._remote:
                raise ValueError(f"this endpoint is connected to {self._remote}: send to it, or to None")
            target = self._remote
        elif isinstance(addr, tuple):
            target = (str(addr[0]), int(addr[1]))
            try:
                target = (self._stack.resolve(target[0]), target[1])
            except OSError as error:
                self._say(error)
                return
        else:
            raise ValueError(f"cannot send to {addr!r}: this endpoint needs an address of (host, port)")
        owned = bytes(data)
        if len(owned) > MAX_DATAGRAM_BYTES:
            self._say(OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE)))
        elif not self._closing:
            self._stack.send(self, owned, target)

    def get_write_buffer_size(self) -> int:
        """0: the system takes every datagram at once."""
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high limit; never reached."""
        return 0, 65_536

    # ----------------------------------------------------------------------------------------- receiving

    def _wake(self) -> None:
        if not self._scheduled and self._protocol is not None:
            self._scheduled = True
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._scheduled = False
        protocol = self._protocol
        if protocol is None:
            return
        try:
            if not self._told_made:
                self._told_made = True
                if not self.made.done():
                    self.made.set_result(None)
                protocol.connection_made(self)
            elif self._closing:
                self._protocol = None
                protocol.connection_lost(None)
                return
            elif self._news:
                self._tell(protocol, self._news.popleft())
        except Exception as error:
            told = {"message": "a datagram protocol failed", "exception": error, "transport": self}
            self._loop.call_exception_handler(told)
        if self._news or self._closing:
            self._wake()

    def _tell(self, protocol: asyncio.DatagramProtocol, news: tuple[bytes, Address] | Exception) -> None:
        if isinstance(news, Exception):
            protocol.error_received(news)
        else:
            self._bytes -= len(news[0])
            protocol.datagram_received(*news)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another one from now on."""
        if not isinstance(protocol, asyncio.DatagramProtocol):
            raise TypeError(f"{protocol!r} is no asyncio.DatagramProtocol")
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who is told."""
        if self._protocol is None:
            raise RuntimeError("the endpoint is closed, and has let go of its protocol")
        return self._protocol

    # ------------------------------------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        """True from `close` on."""
        return self._closing

    def close(self) -> None:
        """Receive no more, then connection_lost(None)."""
        if not self._closing:
            self._closing = True
            self._stack.ports.release(self.port, self)
            self._news.clear()
            self._wake()

    def abort(self) -> None:
        """Close: there is nothing to drop."""
        self.close()
