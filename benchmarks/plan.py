"""What is measured, in which order and for how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from benchmarks.catalog import Kind
from benchmarks.processes import Description
from benchmarks.subject import Task, Workload

QUICK_WARM_UP_S = 0.05
_OVERHEAD_S = 0.25
"""What a sample takes beside what it counts: the warm-up, connections, latencies apart."""
_SLOW = {
    Workload.SERVER_STREAM: 0.9,
    Workload.CLIENT_STREAM: 0.6,
    Workload.ORDER_STREAM: 0.3,
    Workload.COLD_START: 2.0,
    Workload.WORKERS: 1.5,
}
"""Seconds more, for the estimate of the time left alone."""
LOADS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
"""Percent of the peak."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """A workload at a depth, and how its rounds are run.

    Attributes:
        workload: which.
        depth: calls in flight, connections of IDLE, or percent of OFFERED_LOAD.
        seconds: of each sample.
        peers: whether peers take part.
        peer_rounds: how many rounds a peer has part in; None for all.
    """

    workload: Workload
    depth: int
    seconds: float
    peers: bool = True
    peer_rounds: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        name = self.workload.replace("_", " ")
        if self.workload is Workload.IDLE:
            return f"{self.depth:,} idle connections"
        if self.workload is Workload.OFFERED_LOAD:
            return f"offered load, {self.depth} % of the peak"
        if self.workload in (Workload.GET_ORDER, Workload.ECHO):
            return f"{name}, {self.depth} in flight"
        return name

    @property
    def task(self) -> Task:
        """What a subject is asked."""
        return Task(self.workload, self.depth, self.seconds)

    def takes(self, kind: Kind, description: Description) -> bool:
        """Whether a subject takes part."""
        if self.workload not in description.workloads or (kind is Kind.PEER and not self.peers):
            return False
        return self.workload not in (Workload.GET_ORDER, Workload.ECHO) or self.depth in description.depths

    def cost_s(self, kind: Kind, rounds: int) -> float:
        """About how long a subject takes for all rounds of this."""
        if kind is Kind.PEER and self.peer_rounds is not None:
            rounds = min(rounds, self.peer_rounds)
        more = self.depth / 3000 + 1.2 if self.workload is Workload.IDLE else 0.0
        return rounds * (self.seconds + _OVERHEAD_S + _SLOW.get(self.workload, 0.0) + more)


def stages(*, quick: bool, only: Collection[Workload] = ()) -> Sequence[Stage]:
    """All of them, or of these workloads."""
    seconds = 0.1 if quick else 0.3
    depths = (1, 64) if quick else (1, 8, 64, 256)
    found = [Stage(Workload.GET_ORDER, depth, seconds) for depth in depths]
    found += [Stage(Workload.ECHO, depth, seconds) for depth in (1, 64)]
    found += [
        Stage(workload, 1, seconds)
        for workload in (
            Workload.DOWNLOAD,
            Workload.UPLOAD,
            Workload.SERVER_STREAM,
            Workload.CLIENT_STREAM,
            Workload.ORDER_STREAM,
            Workload.MANY_CLIENTS,
            Workload.ONEWAY,
            Workload.WORKERS,
            Workload.COLD_START,
        )
    ]
    found.append(Stage(Workload.IDLE, 1_000, 0.0, peers=not quick, peer_rounds=1))
    if not quick:
        found.append(Stage(Workload.IDLE, 10_000, 0.0, peers=False))
    loads = LOADS[1::3] if quick else LOADS
    found += [Stage(Workload.OFFERED_LOAD, load, seconds, peers=False) for load in loads]
    found.append(Stage(Workload.OVERLOAD, 1, 1.0 if quick else 10.0))
    return [stage for stage in found if not only or stage.workload in only]
