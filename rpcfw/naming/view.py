"""One service as several registries tell it, made into one list.

The union counts, since a server registers at all of them. A registry that cannot be reached is believed as long as no
other knows better, and so is what one knew before it was started anew. The time is passed in; there is no I/O.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from rpcfw.registry import Registration

Entries = Mapping[str, tuple[Registration, float]]
"""By address: a registration, and since when it is so, in seconds of this loop's clock."""


@dataclasses.dataclass(slots=True)
class _Said:
    """What one registry says."""

    entries: Entries = dataclasses.field(default_factory=dict)
    former: dict[str, tuple[Registration, float]] = dataclasses.field(default_factory=dict)
    """What its last run said, and this one has not said yet."""
    settled_at: float = math.inf
    is_up: bool = False
    believed_until: float = math.inf
    """While it cannot be reached, though another can."""


class View:
    """One service."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def heard(self, source: str, entries: Entries | None, settled_at: float) -> None:
        """A registry tells all it knows.

        Args:
            source: which one.
            entries: all of them, or None for what it has told before.
            settled_at: until then it may not know all.
        """
        said = self._said.setdefault(source, _Said())
        said.is_up, said.settled_at = True, settled_at
        if entries is not None:
            said.entries = entries
            for address in entries:
                said.former.pop(address, None)

    def went(self, source: str, believed_until: float) -> None:
        """A registry cannot be reached."""
        said = self._said.setdefault(source, _Said())
        if said.is_up:
            said.is_up, said.believed_until = False, believed_until

    def restarted(self, source: str) -> None:
        """Another run of a registry begins, and knows nothing yet."""
        said = self._said.setdefault(source, _Said())
        said.former.update(said.entries)
        said.entries = {}

    def merged(self, now: float) -> frozenset[Registration] | None:
        """All that is registered; None when nobody can know. Of two words about one server the later one counts."""
        for said in self._said.values():
            if said.is_up and now >= said.settled_at:
                said.former.clear()
        is_certain = any(said.is_up and now >= said.settled_at for said in self._said.values())
        found: dict[str, tuple[Registration, float]] = {}
        for said in self._said.values():
            if not said.is_up and is_certain and now >= said.believed_until:
                continue
            for part in (said.former, said.entries):
                for address, (registration, put_at) in part.items():
                    if address not in found or found[address][1] <= put_at:
                        found[address] = registration, put_at
        if not found and not is_certain:
            return None
        return frozenset(registration for registration, _ in found.values())

    def next_look(self, now: float) -> float:
        """When time alone changes something; `math.inf` when it does not."""
        times = [said.settled_at for said in self._said.values() if said.is_up]
        times += [said.believed_until for said in self._said.values() if not said.is_up]
        return min((time for time in times if time > now), default=math.inf)
