"""TCP as the system of one simulated host does it: which connections and listeners it has, and what answers a stray
segment.

It knows no protocol and no process; those get a `TcpSocket` to read and write.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from rpcfw.testing.medium import Medium, NetHost, Parcel
from rpcfw.testing.ports import Ports
from rpcfw.testing.tcp import Address, Segment, TcpSocket

Accept = Callable[[TcpSocket], None]
"""Takes a connection that a client has opened."""
LOOPBACK_ADDRESS = "127.0.0.1"


class TcpStack:
    """The TCP of one host."""

    def __init__(self, medium: Medium, host: NetHost, stacks: dict[str, TcpStack]) -> None:
        """Args: stacks: those of all hosts by name, where the segments arrive."""
        self.ports: Ports[Accept] = Ports()
        self.sockets: dict[tuple[Address, Address], TcpSocket] = {}
        self._medium = medium
        self._host = host
        self._stacks = stacks

    def dial(self, remote: Address, local_port: int = 0) -> TcpSocket:
        """Begin to connect. Raises OSError when the host is down or has no port left."""
        if not self._host.alive:
            raise OSError(errno.ENETDOWN, f"the simulated host {self._host.name!r} is down")
        address = source_address(self._host, remote[0])
        port = local_port or self.ports.free_port(lambda port: ((address, port), remote) not in self.sockets)
        if ((address, port), remote) in self.sockets:
            raise OSError(
                errno.EADDRINUSE, f"port {port} already has a connection to {remote[0]}:{remote[1]}"
            )
        socket = self._make((address, port), remote, dials=True)
        socket.begin()
        return socket

    def power_off(self) -> None:
        """Lose every connection and listener; nobody is told."""
        for socket in list(self.sockets.values()):
            socket.vanish()
        self.ports.clear()

    def receive(self, segment: Segment, local: Address, remote: Address) -> None:
        """A segment came from `remote` for `local`."""
        socket = self.sockets.get((local, remote))
        if socket is not None:
            socket.arrive(segment)
        elif segment.syn and not segment.ack:
            self._welcome(segment, local, remote)
        elif not segment.rst:
            self._refuse(segment, local, remote)

    def _welcome(self, segment: Segment, local: Address, remote: Address) -> None:
        listening = self.ports.find(*local)
        if not listening:
            self._refuse(segment, local, remote)
            return
        accept = listening[0] if len(listening) == 1 else self._medium.rng.choice(listening)
        socket = self._make(local, remote, dials=False)
        socket.changed = lambda: accept(socket) if socket.open and not socket.gone else None
        socket.arrive(segment)
        socket.begin()

    def _refuse(self, segment: Segment, local: Address, remote: Address) -> None:
        answer = Segment(segment.ack, segment.end, rst=True)
        _Wire(self, local, remote).send(answer, "RST")

    def _make(self, local: Address, remote: Address, *, dials: bool) -> TcpSocket:
        wire = _Wire(self, local, remote)
        socket = self.sockets[local, remote] = TcpSocket(wire, local, remote, dials=dials)
        return socket


class _Wire:
    """The way of one connection's segments to its peer, in order unless they are lost."""

    def __init__(self, stack: TcpStack, local: Address, remote: Address) -> None:
        self.medium = stack._medium
        self._stack = stack
        self._local, self._remote = local, remote
        self._arrives = 0.0

    @property
    def segment_bytes(self) -> int:
        host = self._stack._host
        return self.medium.way(host, self.medium.at(host, self._remote[0])).segment_bytes

    def send(self, segment: Segment, text: str) -> float:
        label = f"tcp {self._local[1]}>{self._remote[1]} {text}" if text else ""
        not_before = self._arrives if text else 0.0
        size = len(segment.data)
        parcel = Parcel(self._stack._host, self._remote[0], label, size, not_before, certain=segment.rst)
        trip = self.medium.carry(parcel, lambda host: self._deliver(host, segment))
        self._arrives = max(self._arrives, trip.arrives)
        return trip.departs

    def forget(self) -> None:
        self._stack.sockets.pop((self._local, self._remote), None)

    def _deliver(self, host: NetHost, segment: Segment) -> None:
        self._stack._stacks[host.name].receive(segment, self._remote, self._local)


def source_address(host: NetHost, target: str) -> str:
    """Which of its addresses a host uses towards a target."""
    return LOOPBACK_ADDRESS if target.startswith("127.") else host.address
