"""What happens in the demo, and when: what it does itself, and what its client notices."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable


class Kind(enum.Enum):
    """Whose an entry is."""

    PART = "part"
    """A part of the demo begins."""
    DEED = "deed"
    """The demo does something, or sums up what came of it."""
    NOTICE = "notice"
    """The client noticed something: an event of its cluster."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, so many seconds after the first."""

    at_s: float
    kind: Kind
    text: str


class Timeline:
    """Entries in the order in which they happened. Its clock is the running loop's, and begins when it is made."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.part = ""
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._listeners: list[Callable[[Entry], None]] = []

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return self._loop.time() - self._start

    def restart(self) -> None:
        """Forget all entries; the clock begins anew."""
        self.entries.clear()
        self._start = self._loop.time()

    def on_entry(self, listener: Callable[[Entry], None]) -> None:
        """Tell this listener of each entry from now on."""
        self._listeners.append(listener)

    def begin(self, part: str) -> None:
        """A part of the demo begins."""
        self.part = part
        self._add(Kind.PART, part)

    def tell(self, deed: str) -> None:
        """The demo does something, or sums up."""
        self._add(Kind.DEED, deed)

    def notice(self, event: str) -> None:
        """The client has noticed something."""
        self._add(Kind.NOTICE, event)

    def _add(self, kind: Kind, text: str) -> None:
        entry = Entry(self.elapsed_s, kind, text)
        self.entries.append(entry)
        for listener in self._listeners:
            listener(entry)
