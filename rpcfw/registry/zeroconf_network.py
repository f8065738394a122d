"""Multicast DNS on the running loop: python-zeroconf's sockets, encoder, decoder and responder, behind a gate.

The gate decides what reaches anything: packets of the network we are meant to hear, of our type, not too large and not
too many. Queries go to the library, which answers them; responses are decoded and handed to a `Table`, and never enter
the library's cache, so that a flood finds nothing to fill. No thread is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from zeroconf import InterfaceChoice, ServiceInfo

# The library has these at its top as well, but does not tell type checkers so.
from zeroconf._dns import DNSAddress, DNSPointer, DNSQuestion, DNSService, DNSText
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncZeroconf

from rpcfw.chance import new_rng
from rpcfw.registry.remote import Away
from rpcfw.registry.zeroconf_question import Asker
from rpcfw.registry.zeroconf_records import MARK, TYPE, Address, Said, label_in

ALL = "all"
MAX_PACKET_BYTES = 2048
"""A registration takes at most some 1,450; several share a packet of at most 1,460."""
PACKETS_PER_S = 1000
BURST = 2000
_TYPE_PTR, _CLASS_IN = 12, 1
_HOST_SUFFIX = ".local."
_MEND = "register at zeroconf://127.0.0.1 for this host alone, or use another registry, such as etcd:// or file://"

Heard = Callable[[Mapping[str, Said]], None]
Network_ = ipaddress.IPv4Network | ipaddress.IPv6Network


class Network:
    """One interface, or all of them.

    Args:
        interface: an address of this host, or ``all``.
        heard: told what each response says.
        overrun: told when packets had to be dropped unread.
    """

    def __init__(self, interface: str, heard: Heard, overrun: Callable[[], None]) -> None:
        self.interface = interface
        self._heard = heard
        self._overrun = overrun
        self._zeroconf: AsyncZeroconf | None = None
        self._asker = Asker(lambda data, source: self.receive(data, source, _nothing), new_rng())
        self._opening = asyncio.Lock()
        self._networks: tuple[Network_, ...] = ()
        self._budget = float(BURST)
        self._counted_at = 0.0
        self.asked = asyncio.Event()
        """Set by each query for our type that is heard, our own included."""

    @property
    def unheard(self) -> str:
        """What to say when we do not hear what we say."""
        return f"multicast DNS on {self.interface} does not work: what is sent there is not heard; {_MEND}"

    async def open(self) -> None:
        """Open the sockets, unless they are. Raises `Away` that says why that cannot be, and the mend."""
        async with self._opening:
            if self._zeroconf is not None:
                return
            interfaces: Any = InterfaceChoice.All if self.interface == ALL else [self.interface]
            self._networks = networks_of(self.interface)
            if not self._networks:
                raise Away(f"{self.interface} is not an address of this host: {_MEND}")
            try:
                opened = AsyncZeroconf(interfaces=interfaces)
            except (OSError, RuntimeError) as error:
                raise Away(f"multicast DNS on {self.interface} does not work: {error}; {_MEND}") from error
            try:
                await opened.zeroconf.async_wait_for_start()
                if not opened.zeroconf.engine.senders:
                    raise Away(f"{self.interface} cannot do multicast: {_MEND}")
                for reader in opened.zeroconf.engine.readers:
                    inner = reader.transport.get_protocol()
                    reader.transport.set_protocol(_Gate(self, inner))
                await self._open_asker(opened)
            except BaseException:
                await opened.async_close()
                raise
            self._zeroconf = opened

    async def _open_asker(self, opened: AsyncZeroconf) -> None:
        senders = [sender.transport.get_extra_info("socket") for sender in opened.zeroconf.engine.senders]
        try:
            await self._asker.open(senders)
        except OSError as error:
            raise Away(f"multicast DNS on {self.interface} does not work: {error}; {_MEND}") from error

    async def close(self) -> None:
        """Close the sockets. May be called again; it can be opened again."""
        async with self._opening:
            self._asker.close()
            opened, self._zeroconf = self._zeroconf, None
            if opened is not None:
                opened.zeroconf.registry.async_remove(opened.zeroconf.registry.async_get_service_infos())
                await opened.async_close()

    # ------------------------------------------------------------------------------------ saying

    def announce(self, info: ServiceInfo) -> None:
        """Say that a registration is there, and answer for it from now on. Instead of the one with its name."""
        if self._zeroconf is not None:
            self._zeroconf.zeroconf.registry.async_update(info)
            self.send(self._zeroconf.zeroconf.generate_service_broadcast(info, None))

    def retract(self, info: ServiceInfo) -> None:
        """Say that it has gone."""
        if self._zeroconf is not None:
            self._zeroconf.zeroconf.registry.async_remove(info)
            self.send(self._zeroconf.zeroconf.generate_service_broadcast(info, 0))

    def ask_at_once(self, known: Mapping[str, float]) -> None:
        """Ask who is there beside those known, see `Asker.ask`, to be answered whoever else has just been answered."""
        if self._zeroconf is not None:
            self._asker.ask(known)

    def ask(self) -> None:
        """Ask who is there, to be answered for all to hear: for one who can wait."""
        out = DNSOutgoing(0)
        out.add_question(DNSQuestion(TYPE, _TYPE_PTR, _CLASS_IN))
        self.send(out)

    def send(self, out: DNSOutgoing) -> None:
        """Send a message."""
        if self._zeroconf is not None:
            with contextlib.suppress(OSError):  # what is not sent is not heard, and that is noticed
                self._zeroconf.zeroconf.async_send(out)

    # ------------------------------------------------------------------------------------ hearing

    def receive(self, data: bytes, source: str, answer: Callable[[], None]) -> None:
        """A packet: dropped, answered, or taken in."""
        if len(data) > MAX_PACKET_BYTES or len(data) < 12 or not self._is_near(source):
            return
        is_response = bool(data[2] & 0x80)
        if is_response and MARK not in data:
            return
        if not self._is_affordable():
            self._overrun()
            return
        if not is_response:
            if MARK in data:
                self.asked.set()
            answer()
            return
        message = DNSIncoming(data)
        if message.valid and (said := said_in(message)):
            self._heard(said)

    def _is_near(self, source: str) -> bool:
        try:
            address = ipaddress.ip_address(source.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _is_affordable(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._budget = min(float(BURST), self._budget + (now - self._counted_at) * PACKETS_PER_S)
        self._counted_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def _nothing() -> None:
    """The answer to a question at a port that is not for questions."""


class _Gate(asyncio.DatagramProtocol):
    """Stands before the library's own protocol."""

    def __init__(self, network: Network, inner: Any) -> None:
        self._network = network
        self._inner = inner

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One packet."""
        self._network.receive(data, str(addr[0]), lambda: self._inner.datagram_received(data, addr))

    def error_received(self, exc: Exception) -> None:
        """What is not sent is not heard, and that is noticed."""


def said_in(message: DNSIncoming) -> dict[str, Said]:
    """What a response says of registrations, by their labels."""
    said: dict[str, Said] = {}
    for record in message.answers():
        if isinstance(record, DNSPointer):
            label = label_in(record.alias, f".{TYPE}") if record.name == TYPE else ""
            if label and not record.ttl:
                said.setdefault(label, Said()).goodbye = True
            continue
        if isinstance(record, DNSAddress):
            label = label_in(record.name, _HOST_SUFFIX)
        else:
            label = label_in(record.name, f".{TYPE}")
        if not label or not record.ttl:
            continue
        words = said.setdefault(label, Said())
        if isinstance(record, DNSText):
            words.parts.txt = record.text
        elif isinstance(record, DNSService) and record.server == label + _HOST_SUFFIX:
            words.parts.port = record.port
            words.ttl_s = float(record.ttl)
        elif isinstance(record, DNSAddress) and len(record.address) in (4, 16):
            words.parts.addresses += (ipaddress.ip_address(record.address),)
    return {label: words for label, words in said.items() if words != Said()}


def networks_of(interface: str) -> tuple[Network_, ...]:
    """The networks that packets may come from: that of an address of this host, or all this host is on."""
    import ifaddr

    networks: list[Network_] = []
    for adapter in ifaddr.get_adapters():
        for found in adapter.ips:
            text = found.ip if isinstance(found.ip, str) else found.ip[0]
            if interface in (ALL, text):
                networks.append(ipaddress.ip_network(f"{text}/{found.network_prefix}", strict=False))
    return tuple(networks)


def checked(interface: str) -> str:
    """An interface as it may be written: ``all``, or an address of this host. Raises ValueError."""
    if interface == ALL:
        return interface
    try:
        address = ipaddress.ip_address(interface)
    except ValueError:
        raise ValueError(
            f"{interface!r} is neither {ALL!r} nor an address of this host: write zeroconf:// for loopback, "
            "zeroconf://all, or zeroconf://10.0.0.5"
        ) from None
    if address.is_unspecified:
        raise ValueError(f"{interface} is no interface: write zeroconf://all to mean every one")
    return str(address)


def credible(interface: str) -> Callable[[Address], bool]:
    """Whether an address can be a server's. Loopback can only be heard of on loopback; elsewhere it is a trick."""
    on_loopback = interface != ALL and ipaddress.ip_address(interface).is_loopback

    def is_credible(address: Address) -> bool:
        if address.is_unspecified or address.is_multicast or address.is_reserved:
            return False
        if address.version == 6 and address.is_link_local:
            return False  # it says nothing without its interface
        return on_loopback or not address.is_loopback

    return is_credible
