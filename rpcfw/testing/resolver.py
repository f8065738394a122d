"""The names of the simulated network: what a resolver says of a host, and of an address.

It reads the hosts of a `Medium` and asks no real resolver. IPv4 only.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from rpcfw.testing.medium import Medium
from rpcfw.testing.ports import ANY_ADDRESS
from rpcfw.testing.stack import LOOPBACK_ADDRESS
from rpcfw.testing.tcp import Address

AddressInfo = tuple[int, int, int, str, Address]


class Resolver:
    """Looks up the hosts of one network."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium

    def resolve(self, host: str | bytes | None, *, passive: bool = False) -> str:
        """The address that a name stands for. Raises socket.gaierror.

        Args:
            passive: no name means every address of the host that asks, as for a listener, not its loopback.
        """
        name = host.decode("idna") if isinstance(host, bytes) else host
        if not name:
            return ANY_ADDRESS if passive else LOOPBACK_ADDRESS
        name.encode("idna")  # raises UnicodeError for what no resolver would take
        if name == "localhost":
            return LOOPBACK_ADDRESS
        if name in self._medium.hosts:
            return self._medium.hosts[name].address
        if not is_address(name):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if ":" in name:
            raise _only_ipv4()
        return name

    def getaddrinfo(
        self, host: str | bytes | None, port: str | int | None, /, **options: Any
    ) -> list[AddressInfo]:
        """As the standard one. Options: family, type, proto, flags. Raises socket.gaierror."""
        check_family(options)
        address = self.resolve(host, passive=bool(options.get("flags", 0) & socket.AI_PASSIVE))
        name = address, port_number(port)
        kinds = [
            (socket.SOCK_STREAM, socket.IPPROTO_TCP),
            (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        ]
        wanted, proto = options.get("type", 0), options.get("proto", 0)
        return [
            (socket.AF_INET, kind, protocol, "", name)
            for kind, protocol in kinds
            if wanted in (0, kind) and proto in (0, protocol)
        ]

    def getnameinfo(self, sockaddr: Sequence[Any], flags: int = 0) -> tuple[str, str]:
        """The name of an address, or the address where it has none or NI_NUMERICHOST asks for it."""
        address, port = str(sockaddr[0]), str(sockaddr[1])
        if flags & socket.NI_NUMERICHOST:
            return address, port
        named = {host.address: host.name for host in self._medium.hosts.values()}
        return (named | {LOOPBACK_ADDRESS: "localhost"}).get(address, address), port


def check_family(options: dict[str, Any]) -> None:
    """Raise socket.gaierror where the options of a call ask for another family of addresses than IPv4."""
    if options.get("family", 0) not in (socket.AF_UNSPEC, socket.AF_INET):
        raise _only_ipv4()


def port_number(port: str | int | None) -> int:
    """A port as a number. Raises ValueError and OverflowError."""
    number = int(port or 0)
    if not 0 <= number <= 65_535:
        raise OverflowError(f"port {number} must be 0 to 65535")
    return number


def is_address(name: str) -> bool:
    """Whether it is an address, of whatever family, and no name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _only_ipv4() -> socket.gaierror:
    return socket.gaierror(socket.EAI_FAMILY, "the simulated network has IPv4 only")
