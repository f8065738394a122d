"""What was measured, as it lies in a results file, and the ratios that follow from it.

A ratio is computed round by round, to the reference of the same round, and then the median is taken: the machine may
be faster in one round than in another, for all alike.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.catalog import Kind
from benchmarks.subject import LARGE_BYTES, Sample, Workload

FORMAT = 1
MAX_LATENCIES = 200
"""Of one sample, in the file."""
RPCFW, AWAITED, CALLBACKS = "rpcfw", "raw uvloop, awaited", "raw uvloop, callbacks"
_MIB, _KIB = 1 << 20, 1 << 10


@dataclasses.dataclass(slots=True)
class Round:
    """One sample, its latencies in microseconds: None where there are none, an even selection where they are listed.

    Processor time is per call or item, in microseconds; 0 where it was not looked at.
    """

    count: int
    elapsed_s: float
    per_s: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    client_cpu_us: float = 0.0
    server_cpu_us: float = 0.0
    server_bytes: int | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    latencies_us: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, sample: Sample) -> Round:
        """Reduce a sample."""
        latencies = sorted(sample.latencies_us)
        p50, p99, p999 = (percentile(latencies, share) for share in (0.5, 0.99, 0.999))
        return cls(
            sample.count,
            round(sample.elapsed_s, 6),
            round(sample.count / sample.elapsed_s, 2) if sample.elapsed_s else 0.0,
            p50,
            p99,
            p999,
            round(sample.client_cpu_s / max(sample.count, 1) * 1e6, 3),
            round(sample.server_cpu_s / max(sample.count, 1) * 1e6, 3),
            sample.server_bytes,
            {name: round(value, 4) for name, value in sample.figures.items()},
            selected(latencies, MAX_LATENCIES),
        )


@dataclasses.dataclass(slots=True)
class Cell:
    """One subject at one workload: its rounds, None where a round failed."""

    workload: Workload
    depth: int
    subject: str
    rounds: list[Round | None]


@dataclasses.dataclass(slots=True)
class Failure:
    """What could not be measured, and why."""

    subject: str
    kind: Kind
    what: str
    reason: str


@dataclasses.dataclass(slots=True)
class SubjectInfo:
    """What a subject says of itself."""

    kind: Kind
    module: str
    setting: str
    versions: dict[str, str]


@dataclasses.dataclass(slots=True)
class Results:
    """A run."""

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    subjects: dict[str, SubjectInfo] = dataclasses.field(default_factory=dict)
    cells: list[Cell] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def cell(self, workload: Workload, depth: int, subject: str) -> Cell | None:
        """One of them, where it has at least one round."""
        for cell in self.cells:
            if (cell.workload, cell.depth, cell.subject) == (workload, depth, subject) and any(cell.rounds):
                return cell
        return None

    def stages(self) -> list[tuple[Workload, int]]:
        """Workloads and calls in flight, in the order of the run."""
        return list(dict.fromkeys((cell.workload, cell.depth) for cell in self.cells if any(cell.rounds)))

    def cells_of(self, workload: Workload, depth: int) -> list[Cell]:
        """All that was measured there."""
        return [
            cell
            for cell in self.cells
            if (cell.workload, cell.depth) == (workload, depth) and any(cell.rounds)
        ]

    def ratios(self, cell: Cell, other: Cell | None) -> list[float]:
        """This one's main figure over the other's, round by round; empty where there is none."""
        if other is None:
            return []
        value = metric(cell.workload, cell.depth).value
        pairs = zip(cell.rounds, other.rounds, strict=False)
        return [
            value(mine) / value(its)
            for mine, its in pairs
            if mine is not None and its is not None and value(its)
        ]

    def ratio(self, cell: Cell | None, other: Cell | None) -> float | None:
        """The median of `ratios`."""
        found = [] if cell is None else self.ratios(cell, other)
        return statistics.median(found) if found else None

    def reference(self, cell: Cell) -> Cell | None:
        """The limit that this cell is judged by."""
        name = REFERENCES.get(cell.workload)
        return None if name is None else self.cell(cell.workload, cell.depth, name)

    def peers(self, workload: Workload, depth: int) -> list[Cell]:
        """What the peers did there."""
        return [
            cell for cell in self.cells_of(workload, depth) if self.subjects[cell.subject].kind is Kind.PEER
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """The figure that a workload is judged by."""

    unit: str
    value: Callable[[Round], float]
    higher_is_better: bool = True

    def median(self, cell: Cell) -> float:
        """Over the rounds."""
        return statistics.median(self.value(found) for found in cell.rounds if found is not None)


REFERENCES = {
    Workload.GET_ORDER: AWAITED,
    Workload.ECHO: AWAITED,
    Workload.MANY_CLIENTS: AWAITED,
    Workload.IDLE: AWAITED,
    Workload.OFFERED_LOAD: AWAITED,
    Workload.DOWNLOAD: "blocking sockets",
    Workload.UPLOAD: "blocking sockets",
    Workload.SERVER_STREAM: "raw uvloop, batched",
    Workload.CLIENT_STREAM: "raw uvloop, batched",
    Workload.ORDER_STREAM: "raw uvloop, batched",
    Workload.ONEWAY: "raw uvloop, datagrams",
    Workload.WORKERS: "rpcfw, 1 worker",
    Workload.COLD_START: "raw uvloop",
}
"""The limit of each workload. An overload is compared with the peak of its own run."""

_PER_S = Metric("calls/s", lambda found: found.per_s)
_LATENCY = Metric("us", lambda found: found.p50 or 0.0, higher_is_better=False)
_ITEMS = Metric("items/s", lambda found: found.per_s)
_PAYLOAD = Metric("MiB/s", lambda found: found.per_s * LARGE_BYTES / _MIB)
_MEMORY = Metric(
    "KiB per connection",
    lambda found: (found.server_bytes or 0) / _KIB / max(found.count, 1),
    higher_is_better=False,
)
_COLD = Metric("ms to the first reply", lambda found: found.figures["first_reply_ms"], higher_is_better=False)
_GOODPUT = Metric("of the peak", lambda found: found.figures["goodput_per_s"] / found.figures["peak_per_s"])
_METRICS = {
    Workload.DOWNLOAD: _PAYLOAD,
    Workload.UPLOAD: _PAYLOAD,
    Workload.SERVER_STREAM: _ITEMS,
    Workload.CLIENT_STREAM: _ITEMS,
    Workload.ORDER_STREAM: _ITEMS,
    Workload.IDLE: _MEMORY,
    Workload.COLD_START: _COLD,
    Workload.OVERLOAD: _GOODPUT,
    Workload.OFFERED_LOAD: _LATENCY,
}


def metric(workload: Workload, depth: int) -> Metric:
    """The main figure of a workload with so many in flight."""
    if workload in (Workload.GET_ORDER, Workload.ECHO) and depth == 1:
        return _LATENCY
    return _METRICS.get(workload, _PER_S)


def median_of(cell: Cell, value: Callable[[Round], float | None]) -> float | None:
    """Of some figure over the rounds that have it."""
    found = [
        number for number in (value(each) for each in cell.rounds if each is not None) if number is not None
    ]
    return statistics.median(found) if found else None


def spread(ratios: Iterable[float]) -> float:
    """How far apart the rounds are: the range over the median."""
    found = list(ratios)
    return (max(found) - min(found)) / statistics.median(found) if found and statistics.median(found) else 0.0


def percentile(ordered: list[float], share: float) -> float | None:
    """The value that so large a share of a sorted list does not exceed."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else None


def selected(ordered: list[float], most: int) -> list[float]:
    """At most so many values of a sorted list, evenly chosen, ends included."""
    if len(ordered) > most:
        step = (len(ordered) - 1) / (most - 1)
        ordered = [ordered[round(number * step)] for number in range(most)]
    return [round(value, 1) for value in ordered]


def save(results: Results, path: Path, extra: dict[str, Any]) -> None:
    """Write a results file, a line for each cell."""
    document = {"format": FORMAT, **dataclasses.asdict(results), **extra}
    cells = document.pop("cells")
    head = json.dumps(document, indent=1)
    lines = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-2]},\n "cells": [\n{lines}\n]}}\n', encoding="utf-8")


def load(path: Path) -> Results:
    """Read one. Raises ValueError when it is none, or of another format."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path} is no results file of `python -m benchmarks` (format {FORMAT})")
    cells = [
        Cell(
            Workload(cell["workload"]),
            cell["depth"],
            cell["subject"],
            [None if found is None else Round(**found) for found in cell["rounds"]],
        )
        for cell in document["cells"]
    ]
    subjects = {
        name: SubjectInfo(Kind(info["kind"]), info["module"], info["setting"], info["versions"])
        for name, info in document["subjects"].items()
    }
    failures = [Failure(**{**found, "kind": Kind(found["kind"])}) for found in document["failures"]]
    return Results(
        document["date"],
        document["machine"],
        document["versions"],
        document["settings"],
        subjects,
        cells,
        failures,
    )
