"""The simulated network: hosts by name, what happens to them, and the calls of the loop that make links.

It lies below the event loop, so that whatever speaks asyncio (rpcfw's transports, asyncio's streams, other libraries)
runs on it unchanged, with host names of the simulation. After FoundationDB's simulated network (Zhou et al., SIGMOD
2021) and madsim. Nothing here opens a real socket or asks a real resolver.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from rpcfw.testing.conditions import Conditions
from rpcfw.testing.datagrams import SimDatagrams, UdpStack
from rpcfw.testing.link import SimLink
from rpcfw.testing.listener import SimServer
from rpcfw.testing.medium import Medium, NetHost, Recorder, Silence
from rpcfw.testing.ports import ANY_ADDRESS
from rpcfw.testing.resolver import AddressInfo, Resolver, check_family, is_address, port_number
from rpcfw.testing.stack import LOOPBACK_ADDRESS, TcpStack
from rpcfw.testing.tcp import TcpSocket

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)
Group = str | Iterable[str]
"""The name of a host, or names of several."""


class Network:
    """Hosts and the ways between them. It lives on the loop that is running when it is first used.

    Args:
        rng: where all chance comes from: losses, delays, duplicates.
        trace: is told of every message (its kind is send, receive or lost) and of every fault. Bare acknowledgements
            are left out.
        default: of every way that `set` has not changed.
    """

    def __init__(
        self, rng: random.Random, *, trace: Recorder | None = None, default: Conditions | None = None
    ) -> None:
        self._trace = trace or Silence()
        self._medium = Medium(rng, self._trace, default or Conditions())
        self._resolver = Resolver(self._medium)
        self._tcp: dict[str, TcpStack] = {}
        self._udp: dict[str, UdpStack] = {}

    # --------------------------------------------------------------------------------------------- hosts

    def host(self, name: str) -> NetHost:
        """The host of that name, made and given an address when it is first asked for."""
        host = self._medium.hosts.get(name)
        if host is None:
            if not name or name == "localhost" or is_address(name):
                raise ValueError(f"{name!r} cannot name a simulated host; choose a word, such as 'orders'")
            host = self._medium.add(name)
            self._tcp[name] = TcpStack(self._medium, host, self._tcp)
            self._udp[name] = UdpStack(self._medium, host, self._udp, self._resolver.resolve)
        return host

    @property
    def hosts(self) -> tuple[NetHost, ...]:
        """All hosts, the oldest first."""
        return tuple(self._medium.hosts.values())

    def open_ends(self) -> int:
        """Ends of links that some host still keeps, those included whose process has closed them."""
        return sum(len(stack.sockets) for stack in self._tcp.values())

    # -------------------------------------------------------------------------------------- ways and faults

    @property
    def default(self) -> Conditions:
        """What every way is like that `set` has not changed."""
        return self._medium.default

    @default.setter
    def default(self, conditions: Conditions) -> None:
        self._medium.default = conditions

    def set(self, a: str, b: str, conditions: Conditions, both: bool = True) -> None:
        """Say what the way from one host to another is like, and back unless told otherwise."""
        self._medium.set_way(self.host(a).name, self.host(b).name, conditions)
        if both:
            self._medium.set_way(b, a, conditions)

    def partition(self, group_a: Group, group_b: Group, one_way: bool = False) -> None:
        """Let nothing through from one group to the other, and back unless it is one-way; also what is on its way."""
        some, others = _names(group_a), _names(group_b)
        for a in some:
            for b in others:
                self._medium.block(self.host(a).name, self.host(b).name)
                if not one_way:
                    self._medium.block(b, a)
        arrow = "->" if one_way else "<->"
        self._trace.record("partition", "", f"{' '.join(some)} {arrow} {' '.join(others)}")

    def heal(self, group_a: Group = (), group_b: Group = ()) -> None:
        """End the partition between two groups, both ways, or all of them. Links send again what was lost meanwhile."""
        some, others = _names(group_a), _names(group_b)
        if not some and not others:
            self._medium.unblock()
            self._trace.record("heal", "", "everything")
            return
        for a in some:
            for b in others:
                self._medium.unblock(a, b)
                self._medium.unblock(b, a)
        self._trace.record("heal", "", f"{' '.join(some)} <-> {' '.join(others)}")

    def cut(self, host: str) -> None:
        """Take a host's power: its links, listeners and ports are gone, and no peer is told."""
        cut = self.host(host)
        cut.alive = False
        self._tcp[host].power_off()
        self._udp[host].power_off()
        self._trace.record("cut", host)

    def restore(self, host: str) -> None:
        """Give a host its power back: what reaches its old links is answered by a reset."""
        self.host(host).alive = True
        self._trace.record("restore", host)

    def lossy(self, probability: float) -> None:
        """Lose so many more messages on every way between hosts, beyond what its conditions say; 0 is as before."""
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability!r} must be 0.0 to 1.0")
        self._medium.extra_loss = probability
        self._trace.record(
            "lossy" if probability else "heal", "", f"{probability:g} of the messages beyond the usual"
        )

    def slow(self, host: str, factor: float) -> None:
        """Let every trip from and to a host take so many times longer; 1 is as before."""
        if not factor > 0:
            raise ValueError(f"factor={factor!r} must be above 0; 1 is as before, 10 is ten times as slow")
        self.host(host).slowness = factor
        self._trace.record("heal" if factor == 1 else "slow", host, f"{factor:g} times the usual latency")

    # --------------------------------------------------------------------------------------------- names

    def getaddrinfo(
        self, host: str | bytes | None, port: str | int | None, /, **options: Any
    ) -> list[AddressInfo]:
        """As the standard one, for hosts of this network. Options: family, type, proto, flags.

        Raises:
            socket.gaierror: there is no such host.
        """
        return self._resolver.getaddrinfo(host, port, **options)

    def getnameinfo(self, sockaddr: Sequence[Any], flags: int = 0) -> tuple[str, str]:
        """The name of an address, or the address where it has none or NI_NUMERICHOST asks for it."""
        return self._resolver.getnameinfo(sockaddr, flags)

    # ------------------------------------------------------------------------------- what the loop asks for

    async def create_connection(
        self,
        host_name: str,
        protocol_factory: Callable[[], P],
        host: str | None,
        port: str | int | None,
        /,
        **options: Any,
    ) -> tuple[SimLink, P]:
        """As the loop's: a link from `host_name`. Options of asyncio that have no meaning here are passed over.

        Raises:
            OSError: refused, no answer, or no such host.
            NotImplementedError: an option asks for a real socket or for TLS.
        """
        _refuse(options, "create_connection")
        check_family(options)
        loop = self._medium.loop
        self.host(host_name)
        remote = self._resolver.resolve(host), port_number(port)
        here = options.get("local_addr")
        tcp = self._tcp[host_name].dial(remote, 0 if here is None else port_number(here[1]))
        try:
            await _opened(loop, tcp)
            protocol = protocol_factory()
        except BaseException:
            tcp.close()
            raise
        link = SimLink(loop, tcp, protocol, copy_context())
        try:
            await link.made
        except BaseException:
            link.close()
            raise
        return link, protocol

    async def create_server(
        self,
        host_name: str,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None,
        port: int | None,
        /,
        **options: Any,
    ) -> SimServer:
        """As the loop's: a listener on `host_name`. The backlog has no end.

        Raises:
            OSError: the port is in use, or the address is not one of that host.
            NotImplementedError: an option asks for a real socket or for TLS.
        """
        _refuse(options, "create_server")
        check_family(options)
        names = [host] if host is None or isinstance(host, str) else host
        addresses = [self._own_address(host_name, name) for name in names]
        server = SimServer(self._medium.loop, self._tcp[host_name], protocol_factory)
        server.bind(list(dict.fromkeys(addresses)), port or 0, share=bool(options.get("reuse_port")))
        if options.get("start_serving", True):
            await server.start_serving()
        return server

    async def create_datagram_endpoint(
        self,
        host_name: str,
        protocol_factory: Callable[[], D],
        local_addr: tuple[str | None, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        /,
        **options: Any,
    ) -> tuple[SimDatagrams, D]:
        """As the loop's: an endpoint on `host_name`. Raises OSError and NotImplementedError like the others."""
        _refuse(options, "create_datagram_endpoint")
        check_family(options)
        loop = self._medium.loop
        remote = (
            None
            if remote_addr is None
            else (self._resolver.resolve(remote_addr[0]), port_number(remote_addr[1]))
        )
        address = self._own_address(host_name, local_addr[0] if local_addr else None)
        endpoint = SimDatagrams(loop, self._udp[host_name], copy_context(), remote)
        share = bool(options.get("reuse_port"))
        endpoint.bind(address, port_number(local_addr[1]) if local_addr else 0, share=share)
        try:
            protocol = protocol_factory()
            endpoint.begin(protocol)
            await endpoint.made
        except BaseException:
            endpoint.close()
            raise
        return endpoint, protocol

    def _own_address(self, host_name: str, name: str | None) -> str:
        """The address of a host that a name means to itself."""
        own = self.host(host_name)
        if not own.alive:
            raise OSError(errno.ENETDOWN, f"the simulated host {host_name!r} is down")
        address = self._resolver.resolve(name, passive=True)
        if address not in (own.address, LOOPBACK_ADDRESS, ANY_ADDRESS):
            raise OSError(
                errno.EADDRNOTAVAIL, f"{os.strerror(errno.EADDRNOTAVAIL)}: {address} on {host_name!r}"
            )
        return address


async def _opened(loop: asyncio.AbstractEventLoop, tcp: TcpSocket) -> None:
    """Wait until a connection is open. Raises OSError when it is refused, or nobody answers."""
    waiter = loop.create_future()

    def look() -> None:
        if not waiter.done() and (tcp.open or tcp.broken is not None):
            waiter.set_result(None)

    tcp.changed = look
    await waiter
    if tcp.broken is not None:
        raise tcp.broken


def _refuse(options: dict[str, Any], call: str) -> None:
    for name in ("ssl", "sock"):
        if options.get(name):
            raise NotImplementedError(
                f"{call}({name}=...) is not simulated: use plain tcp:// or udp:// addresses of simulated hosts"
            )


def _names(group: Group) -> list[str]:
    return [group] if isinstance(group, str) else list(group)
