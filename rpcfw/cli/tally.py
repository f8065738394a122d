"""How calls under load went: latencies, errors, what could not be made. Tallies of several processes add up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from rpcfw.cli.histogram import Histogram
from rpcfw.errors import RpcError

MAX_ERRORS = 100
"""So many different errors are told apart; what comes then is one more."""
OTHER_ERRORS = "others"


@dataclasses.dataclass(slots=True)
class Failures:
    """Calls that ended in the same error.

    Attributes:
        example: what one of them said.
        total_s: how long they took, together.
    """

    count: int = 0
    example: str = ""
    total_s: float = 0.0


@dataclasses.dataclass(slots=True)
class Tally:
    """How calls went.

    Attributes:
        latencies: seconds, of the calls that succeeded.
        delays: open loop: seconds from when a call was to begin until it did.
        errors: by code, declared ones by name.
        items: of streams.
        not_started: open loop: too many were in progress when these were to begin.
        unfinished: in progress when all was interrupted.
        elapsed_s: until the last call ended.
        cpu_s: processor time of this process meanwhile.
        nodes: calls by the address that took them, where there is a choice.
    """

    latencies: Histogram = dataclasses.field(default_factory=Histogram)
    delays: Histogram = dataclasses.field(default_factory=Histogram)
    errors: dict[str, Failures] = dataclasses.field(default_factory=dict)
    items: int = 0
    not_started: int = 0
    unfinished: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    nodes: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Calls that ended in an error."""
        return sum(failures.count for failures in self.errors.values())

    @property
    def calls(self) -> int:
        """Calls that ended."""
        return self.latencies.count + self.failed

    def fail(self, error: Exception, took_s: float) -> None:
        """Count a call that ended in an error."""
        name, said = type(error).__name__, str(error)
        if isinstance(error, RpcError):
            name, said = error.code.name, error.message
        failures = self._failures(name)
        failures.count += 1
        failures.total_s += took_s
        failures.example = failures.example or said

    def merge(self, other: Tally) -> None:
        """Count what another process counted at the same time."""
        self.latencies.merge(other.latencies)
        self.delays.merge(other.delays)
        for name, theirs in other.errors.items():
            failures = self._failures(name)
            failures.count += theirs.count
            failures.total_s += theirs.total_s
            failures.example = failures.example or theirs.example
        self.items += other.items
        self.not_started += other.not_started
        self.unfinished += other.unfinished
        self.elapsed_s = max(self.elapsed_s, other.elapsed_s)
        self.cpu_s += other.cpu_s
        for address, count in other.nodes.items():
            self.nodes[address] = self.nodes.get(address, 0) + count

    def _failures(self, name: str) -> Failures:
        if name not in self.errors and len(self.errors) >= MAX_ERRORS:
            name = OTHER_ERRORS
        return self.errors.setdefault(name, Failures())


def merged(tallies: Iterable[Tally]) -> Tally:
    """The sum of what several processes counted."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total
