"""What lies between the simulated hosts: it decides when a parcel arrives, or why it does not, and tells the trace.

It knows hosts, ways and parcels; what is in a parcel, ports and links are above. All chance comes from the one
generator it is given, all time from the loop: true time, which no host's drift touches.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from rpcfw.testing.conditions import LOOPBACK, Conditions
from rpcfw.testing.trace import LOST, RECEIVE, SEND, Detail

MAX_QUEUE_S = 1.0
"""A datagram that would wait longer for its turn on a narrow way is lost, as in a router whose queue is full."""


class Recorder(Protocol):
    """Is told what happens; `rpcfw.testing.trace.Trace` is one."""

    def record(self, kind: str, host: str, text: str = "", **details: Detail) -> None:
        """Something happened at a host, or to the whole network when `host` is empty."""


class Silence:
    """Records nothing."""

    def record(self, kind: str, host: str, text: str = "", **details: Detail) -> None:
        """Pass it over."""


@dataclasses.dataclass(eq=False, slots=True)
class NetHost:
    """One host as the network sees it.

    Attributes:
        name: what `getaddrinfo` resolves.
        address: 10.0.0.1 and so on; 127.0.0.1 is each host itself.
        alive: False while its power is off: what reaches it is lost.
        slowness: how many times longer its trips take.
    """

    name: str
    address: str
    alive: bool = True
    slowness: float = 1.0


@dataclasses.dataclass(slots=True)
class Parcel:
    """What goes from a host to an address.

    Attributes:
        text: for the trace; a parcel without one is a bare acknowledgement, which is not recorded and waits for no
            other parcel.
        size: bytes, headers not counted.
        not_before: it arrives no earlier: the segments of one link stay in order.
        datagram: it may also arrive twice, late, or find a queue full.
        certain: chance does not lose it. Resets are: where one gets lost nobody sends it again, and the link is half
            open for good, which is what `Network.cut` and `Network.partition` are for.
    """

    source: NetHost
    address: str
    text: str
    size: int
    not_before: float = 0.0
    datagram: bool = False
    certain: bool = False


@dataclasses.dataclass(slots=True)
class Trip:
    """When a parcel has left its host, and when it arrives if nothing happens to it; true time in seconds."""

    departs: float
    arrives: float


Arrive = Callable[[NetHost], None]
"""Called, in a context of its own, once for each time that a parcel reaches its host."""


class Medium:
    """The ways between all hosts."""

    def __init__(self, rng: random.Random, trace: Recorder, default: Conditions) -> None:
        self.rng = rng
        self.trace = trace
        self.default = default
        self.extra_loss = 0.0
        """The probability with which parcels are lost beyond what their way loses."""
        self.hosts: dict[str, NetHost] = {}
        self._by_address: dict[str, NetHost] = {}
        self._conditions: dict[tuple[str, str], Conditions] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._free_at: dict[tuple[str, str], float] = {}
        self._messages = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call_at: Callable[..., asyncio.TimerHandle]
        self.now: Callable[[], float] = self._first_now
        """True time in seconds."""

    # --------------------------------------------------------------------------------------------- hosts

    def add(self, name: str) -> NetHost:
        """A new host with the next address."""
        number = len(self.hosts) + 1
        host = NetHost(name, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        self.hosts[name] = self._by_address[host.address] = host
        return host

    def at(self, source: NetHost, address: str) -> NetHost | None:
        """The host that an address means to `source`; None when there is none."""
        return source if address.startswith("127.") else self._by_address.get(address)

    def set_way(self, source: str, target: str, conditions: Conditions) -> None:
        """Change one way."""
        self._conditions[source, target] = conditions

    def way(self, source: NetHost, target: NetHost | None) -> Conditions:
        """What the way between two hosts is like."""
        if target is None:
            return self.default
        usual = LOOPBACK if source is target else self.default
        return self._conditions.get((source.name, target.name), usual)

    def block(self, source: str, target: str) -> None:
        """Let nothing through one way; a host is never cut off from itself."""
        if source != target:
            self._blocked.add((source, target))

    def unblock(self, source: str | None = None, target: str | None = None) -> None:
        """Let everything through again, one way or everywhere."""
        if source is None or target is None:
            self._blocked.clear()
        else:
            self._blocked.discard((source, target))

    # ---------------------------------------------------------------------------------------------- time

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that this network lives on: the one running when it was first used."""
        return self._loop or self._settle()

    def _settle(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.get_running_loop()
        self.now = getattr(loop, "global_time", loop.time)
        self._call_at = getattr(loop, "call_at_global", None) or _call_at_in(loop)
        return loop

    def _first_now(self) -> float:
        self._settle()
        return self.now()

    def later(self, delay_s: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call back after a while of true time, in a context without any host."""
        return self.at_time(self.now() + delay_s, callback, *args)

    def at_time(self, when_s: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call back at a true time, in a context without any host."""
        if self._loop is None:
            self._settle()
        return self._call_at(when_s, callback, *args)

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back in the loop's next turn, in a context without any host."""
        self.loop.call_soon(callback, context=Context())

    # --------------------------------------------------------------------------------------------- trips

    def carry(self, parcel: Parcel, arrive: Arrive) -> Trip:
        """Send a parcel on its way. A host without power sends nothing."""
        now = self.now()
        source = parcel.source
        if not source.alive:
            return Trip(now, now)
        target = self.at(source, parcel.address)
        message = next(self._messages)
        if parcel.text:
            peer = target.name if target else parcel.address
            self.trace.record(SEND, source.name, parcel.text, message=message, peer=peer)
        conditions = self.way(source, target)
        slowness = source.slowness * (target.slowness if target else 1.0)
        departs = self._depart(parcel, target, conditions, slowness)
        why = self._lost_at_once(parcel, target, conditions, departs)
        if why or target is None:
            self._lose(message, parcel, target, why)
            return Trip(departs, departs)
        copies = 1
        if parcel.datagram and conditions.duplicate and self.rng.random() < conditions.duplicate:
            copies = 2
        arrives = departs
        for _ in range(copies):
            trip_s = conditions.draw_latency(self.rng) * slowness
            if parcel.datagram and conditions.reorder_s:
                trip_s += self.rng.uniform(0, conditions.reorder_s)
            arrives = max(departs + trip_s, parcel.not_before)
            self.at_time(arrives, self._arrive, message, parcel, target, arrive)
        return Trip(departs, arrives)

    def _depart(
        self, parcel: Parcel, target: NetHost | None, conditions: Conditions, slowness: float
    ) -> float:
        """When the parcel's last byte leaves its host; `math.inf` when the queue is full."""
        now = self.now()
        if conditions.bandwidth_bytes_s is None or target is None or not parcel.text:
            return now
        way = parcel.source.name, target.name
        begins = max(now, self._free_at.get(way, now))
        if parcel.datagram and begins - now > MAX_QUEUE_S:
            return math.inf
        self._free_at[way] = begins + parcel.size * slowness / conditions.bandwidth_bytes_s
        return self._free_at[way]

    def _lost_at_once(
        self, parcel: Parcel, target: NetHost | None, conditions: Conditions, departs: float
    ) -> str:
        if target is None:
            return "no such host"
        if (parcel.source.name, target.name) in self._blocked:
            return "partition"
        if departs == math.inf:
            return "queue full"
        loss = conditions.loss
        if self.extra_loss and parcel.source is not target:
            loss = 1 - (1 - loss) * (1 - self.extra_loss)
        if loss and not parcel.certain and self.rng.random() < loss:
            return "loss"
        return ""

    def _arrive(self, message: int, parcel: Parcel, target: NetHost, arrive: Arrive) -> None:
        if not target.alive:
            self._lose(message, parcel, target, "host down")
        elif (parcel.source.name, target.name) in self._blocked:
            self._lose(message, parcel, target, "partition")
        else:
            if parcel.text:
                self.trace.record(RECEIVE, target.name, parcel.text, message=message, peer=parcel.source.name)
            arrive(target)

    def _lose(self, message: int, parcel: Parcel, target: NetHost | None, why: str) -> None:
        if parcel.text:
            peer = target.name if target else parcel.address
            self.trace.record(LOST, parcel.source.name, why, message=message, peer=peer)


def _call_at_in(loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.TimerHandle]:
    def call_at(when_s: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        # A context each: one that is entered, as while a timer of the network runs, cannot be entered again.
        return loop.call_at(when_s, callback, *args, context=Context())

    return call_at
