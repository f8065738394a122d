"""One-shot questions of multicast DNS: asked of all, answered to the one who asks, at once.

A responder says to all at most once a second what it has, and passes over a question that was asked just before. So who
starts right after another asks from a port of its own, which nobody shares; the answers come there. What they say is
not read here. Source: RFC 6762, sections 5.1 (one-shot queries), 6 (a second between multicasts), 6.7 (legacy unicast
responses) and 7.1 (known answers).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zeroconf._dns import DNSPointer, DNSQuestion
from zeroconf._protocol.outgoing import DNSOutgoing

from rpcfw.registry.zeroconf_records import TYPE

PORT = 5353
_GROUPS = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}
_MULTICAST_OPTIONS = {
    socket.AF_INET: (
        socket.IPPROTO_IP,
        (socket.IP_MULTICAST_IF, socket.IP_MULTICAST_TTL, socket.IP_MULTICAST_LOOP),
    ),
    socket.AF_INET6: (
        socket.IPPROTO_IPV6,
        (socket.IPV6_MULTICAST_IF, socket.IPV6_MULTICAST_HOPS, socket.IPV6_MULTICAST_LOOP),
    ),
}
_TYPE_PTR, _CLASS_IN = 12, 1
_REMEMBERED = 8
"""Questions whose answers are still taken."""
_MAX_KNOWN = 40
"""Labels that fit into one packet with the question. Two packets would make responders wait for a third."""
_RECEIVE_BUFFER_BYTES = 1 << 20
"""All answer at once."""

Answered = Callable[[bytes, str], None]


class Asker:
    """Sockets to ask from, one for each interface.

    Args:
        answered: given what comes back, undecoded, and from which address.
        rng: makes the numbers of questions, by which answers are known.
    """

    def __init__(self, answered: Answered, rng: random.Random) -> None:
        self._answered = answered
        self._rng = rng
        self._transports: list[asyncio.DatagramTransport] = []
        self._asked: collections.deque[bytes] = collections.deque(maxlen=_REMEMBERED)

    async def open(self, senders: Iterable[socket.socket]) -> None:
        """Open a socket beside each of those that send to all, for the same interface. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            for sender in senders:
                beside = _beside(sender)
                try:
                    transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(self), sock=beside)
                except BaseException:
                    beside.close()
                    raise
                self._transports.append(transport)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets. May be called again."""
        while self._transports:
            self._transports.pop().close()

    def ask(self, known: Mapping[str, float]) -> None:
        """Ask who is there beside those who are known, by their labels and for how many seconds they still are."""
        number = self._rng.getrandbits(16)
        question = DNSOutgoing(0, multicast=False, id_=number)
        question.add_question(DNSQuestion(TYPE, _TYPE_PTR, _CLASS_IN))
        for label, left_s in itertools.islice(known.items(), _MAX_KNOWN):
            pointer = DNSPointer(TYPE, _TYPE_PTR, _CLASS_IN, max(0, round(left_s)), f"{label}.{TYPE}")
            question.add_answer_at_time(pointer, 0)
        self._asked.append(number.to_bytes(2))
        for transport in self._transports:
            group = _GROUPS[transport.get_extra_info("socket").family]
            for packet in question.packets():
                with contextlib.suppress(OSError):  # what is not sent is not heard, and that is noticed
                    transport.sendto(packet, _to(group, transport.get_extra_info("sockname")))

    def receive(self, data: bytes, source: tuple[Any, ...]) -> None:
        """A packet: an answer of a responder to a question of ours, or dropped."""
        if source[1] == PORT and len(data) > 2 and data[2] & 0x80 and data[:2] in self._asked:
            self._answered(data, str(source[0]))


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One packet."""
        self._asker.receive(data, addr)

    def error_received(self, exc: Exception) -> None:
        """What is not sent is not heard, and that is noticed."""


def _beside(sender: socket.socket) -> socket.socket:
    """A socket at the same address as another, with a port of its own, that sends to the same interface."""
    address = sender.getsockname()
    level, options = _MULTICAST_OPTIONS[socket.AddressFamily(sender.family)]
    made = socket.socket(sender.family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        for option in options:
            made.setsockopt(level, option, sender.getsockopt(level, option, 4))
        made.bind((address[0], 0, *address[2:]))
    except BaseException:
        made.close()
        raise
    return made


def _to(group: str, name: tuple[Any, ...]) -> tuple[Any, ...]:
    return (group, PORT, *name[2:])
