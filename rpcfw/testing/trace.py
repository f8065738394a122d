"""What happened in a simulated run, event by event, and one digest that says whether two runs were the same.

The digest covers every event; memory holds only the latest ones. Nothing here knows a loop or a network: whoever sees
something happen records it. After the trace hashes of FoundationDB's simulation (Zhou et al., SIGMOD 2021, section 4).
"""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

Detail: TypeAlias = str | int | float | bool | None

KEPT_EVENTS = 100_000
"""How many events stay in memory unless the trace is told otherwise: some 60 MB."""
SEND = "send"
"""`host` let a message go; `message` is its id and `peer` the host it goes to."""
RECEIVE = "receive"
"""A message reached `host`; `peer` is the host that sent it."""
LOST = "lost"
"""A message will not arrive; `host` sent it and `peer` waits in vain."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NOTHING: Mapping[str, Detail] = MappingProxyType({})
_UNHASHED = 64
"""So many events are taken into the digest at once."""


class Event(NamedTuple):
    """One thing that happened. `str(event)` is a line for people.

    Attributes:
        number: counts from 0 over the whole run.
        time_s: true time, which no host's drift touches.
        kind: one word: `SEND`, `RECEIVE`, `LOST`, a fault's name, or the recorder's own.
        host: where; "" for what concerns the whole network, such as a partition.
        text: what happened, for people.
        details: further facts.
    """

    number: int
    time_s: float
    kind: str
    host: str
    text: str
    details: Mapping[str, Detail]

    def __str__(self) -> str:
        details = "".join(f" {name}={value}" for name, value in self.details.items())
        return f"{self.time_s:.6f} {self.host or '*'} {self.kind} {self.text}{details}"


class Trace:
    """Records events. Use it from the loop's thread only.

    Two runs that record the same events at the same times in the same order have the same digest, in whatever process
    and with whatever PYTHONHASHSEED. Addresses in texts (`<Task at 0x7f...>`) are replaced, as they differ from run to
    run; a text that lists a set must sort it.
    """

    def __init__(self, now: Callable[[], float], *, keep: int = KEPT_EVENTS) -> None:
        """Stamp events with `now()`, true time in seconds, and keep the latest `keep` of them in memory."""
        if keep < 0:
            raise ValueError(f"keep={keep} is negative: say how many events to keep, 0 for the digest alone")
        self._now = now
        self._kept: collections.deque[Event] = collections.deque(maxlen=keep)
        self._hash = hashlib.sha256()
        self._unhashed: list[Event] = []
        self._messages = 0
        self.recorded = 0
        """How many events there were, those no longer kept included."""

    def record(self, kind: str, host: str, text: str = "", **details: Detail) -> None:
        """Add an event. Raises TypeError for a detail whose text could differ between two equal runs."""
        if " at 0x" in text:
            text = _ADDRESS.sub(" at 0x", text)
        for name, value in details.items():
            if isinstance(value, str):
                if " at 0x" in value:
                    details[name] = _ADDRESS.sub(" at 0x", value)
            elif value is not None and not isinstance(value, (int, float)):
                raise TypeError(
                    f"detail {name}={value!r} of {kind!r} is a {type(value).__name__}; record a str, int, float, bool "
                    "or None, for nothing else is sure to read the same in every run"
                )
        event = Event(self.recorded, self._now(), kind, host, text, details or _NOTHING)
        self._kept.append(event)
        self._unhashed.append(event)
        self.recorded += 1
        if len(self._unhashed) >= _UNHASHED:
            self._take_in()

    def _take_in(self) -> None:
        """Bring the digest up to date. Of each event it covers the text of a tuple, in which every part can be told."""
        for _, time_s, kind, host, text, details in self._unhashed:
            facts = sorted(details.items()) if len(details) > 1 else list(details.items())
            self._hash.update(repr((time_s, kind, host, text, facts)).encode("utf-8"))
        self._unhashed.clear()

    def send(self, source: str, target: str, text: str = "", **details: Detail) -> int:
        """Record that a message leaves `source` for `target`; returns its id, to be received or lost by."""
        message = self._messages
        self._messages += 1
        self.record(SEND, source, text, message=message, peer=target, **details)
        return message

    def receive(self, message: int, source: str, target: str, text: str = "", **details: Detail) -> None:
        """Record that a message reached `target`. One that arrives twice is received twice."""
        self.record(RECEIVE, target, text, message=message, peer=source, **details)

    def lose(self, message: int, source: str, target: str, text: str = "", **details: Detail) -> None:
        """Record that a message, or one try to carry it, is lost; `text` says why."""
        self.record(LOST, source, text, message=message, peer=target, **details)

    def digest(self) -> str:
        """SHA-256 over every event so far, in hexadecimal. Recording may go on afterwards."""
        self._take_in()
        return self._hash.hexdigest()

    @property
    def lines(self) -> list[str]:
        """The events that are kept, oldest first, one readable line each."""
        return [str(event) for event in self._kept]

    @property
    def dropped(self) -> int:
        """How many of the oldest events are no longer kept."""
        return self.recorded - len(self._kept)

    def __iter__(self) -> Iterator[Event]:
        """The events that are kept, oldest first."""
        return iter(self._kept)
