"""The aims of issue 5, C1 to C9, each with what was asked and what was measured: ratios within one run.

C10 is a page of the documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from benchmarks.results import AWAITED, CALLBACKS, RPCFW, Cell, Results, Round, median_of, metric
from benchmarks.subject import Workload

_GRPC = "grpc.aio"
_BLOCKING = "blocking sockets"
_BATCHED = "raw uvloop, batched"
_COUNTED = "raw uvloop, batched, only counted"
_SERVE = "rpcfw, rpcfw.serve"


@dataclasses.dataclass(frozen=True, slots=True)
class Criterion:
    """One aim. `measured` is None where this run does not tell; the unit is ``x`` for ratios."""

    id: str
    what: str
    asked: float
    measured: float | None
    unit: str = "x"
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.asked if self.at_most else self.measured >= self.asked


def criteria(results: Results) -> list[Criterion]:
    """All of them."""
    return [
        *_calls(results),
        *_payloads(results),
        *_streams(results),
        *_features(results),
        *_process(results),
        *_overload(results),
    ]


def _calls(results: Results) -> Iterable[Criterion]:
    def at(depth: int, subject: str) -> Cell | None:
        return results.cell(Workload.GET_ORDER, depth, subject)

    ours = at(64, RPCFW)
    fastest, name = _best(results, Workload.GET_ORDER, 64)
    yield Criterion("C1", "64 in flight, of raw uvloop awaited", 1.0, results.ratio(ours, at(64, AWAITED)))
    yield Criterion("C1", "the aim beyond, of the same", 1.6, results.ratio(ours, at(64, AWAITED)))
    yield Criterion("C1", "64 in flight, over grpc.aio", 25.0, results.ratio(ours, at(64, _GRPC)))
    yield Criterion("C1", f"64 in flight, over the fastest peer{name}", 3.0, results.ratio(ours, fastest))
    models = at(64, "rpcfw, pydantic")
    yield Criterion("C1", "pydantic, of raw uvloop awaited", 0.6, results.ratio(models, at(64, AWAITED)))
    alone = at(1, RPCFW)
    quickest, name = _best(results, Workload.GET_ORDER, 1)
    yield Criterion(
        "C2", "p50 alone, of raw uvloop awaited", 1.1, results.ratio(alone, at(1, AWAITED)), at_most=True
    )
    yield Criterion(
        "C2", "p50 alone, of raw uvloop callbacks", 1.1, results.ratio(alone, at(1, CALLBACKS)), at_most=True
    )
    yield Criterion(
        "C2", f"p50 alone, of the quickest peer{name}", 1.0, results.ratio(alone, quickest), at_most=True
    )


def _payloads(results: Results) -> Iterable[Criterion]:
    for workload in (Workload.DOWNLOAD, Workload.UPLOAD):
        ours = results.cell(workload, 1, RPCFW)
        best, name = _best(results, workload, 1)
        limit = results.cell(workload, 1, _BLOCKING)
        yield Criterion("C3", f"1 MiB {workload}, of blocking sockets", 0.85, results.ratio(ours, limit))
        yield Criterion("C3", f"1 MiB {workload}, over the best peer{name}", 1.5, results.ratio(ours, best))


def _streams(results: Results) -> Iterable[Criterion]:
    down = results.cell(Workload.SERVER_STREAM, 1, RPCFW)
    up = results.cell(Workload.CLIENT_STREAM, 1, RPCFW)
    limit, grpc = (results.cell(Workload.SERVER_STREAM, 1, name) for name in (_BATCHED, _GRPC))
    rate = None if down is None else metric(Workload.SERVER_STREAM, 1).median(down)
    yield Criterion("C4", "server stream, items a second", 1_000_000.0, rate, "")
    yield Criterion("C4", "server stream, of raw batched frames", 0.45, results.ratio(down, limit))
    counted = results.cell(Workload.SERVER_STREAM, 1, _COUNTED)
    yield Criterion("C4", "the same, of frames that are only counted", 0.45, results.ratio(down, counted))
    yield Criterion("C4", "server stream, over grpc.aio", 25.0, results.ratio(down, grpc))
    ratio = results.ratio(up, down)
    yield Criterion("C4", "client stream, of the server stream", 0.5, ratio)


def _features(results: Results) -> Iterable[Criterion]:
    plain = results.cell(Workload.GET_ORDER, 64, RPCFW)
    for number, what, name, asked in (
        ("C5", "everything on, of the plain call", "rpcfw, everything on", 0.6),
        ("C6", "TLS, of TCP, 64 in flight", "rpcfw, TLS", 0.5),
    ):
        yield Criterion(number, what, asked, results.ratio(results.cell(Workload.GET_ORDER, 64, name), plain))


def _process(results: Results) -> Iterable[Criterion]:
    idle = results.cell(Workload.IDLE, 10_000, RPCFW)
    memory = None if idle is None else metric(Workload.IDLE, 10_000).median(idle)
    yield Criterion("C7", "memory per idle connection, of 10,000", 12.0, memory, "KiB", at_most=True)
    cold = results.cell(Workload.COLD_START, 1, _SERVE)
    for what, asked, figure, unit in (
        ("import rpcfw", 150.0, "import_ms", "ms"),
        ("a server process, after 1,000 calls", 45.0, "server_mib", "MiB"),
    ):
        yield Criterion("C8", what, asked, _figure(cell=cold, name=figure), unit, at_most=True)


def _overload(results: Results) -> Iterable[Criterion]:
    cell = results.cell(Workload.OVERLOAD, 1, "rpcfw, overloaded")
    goodput = None if cell is None else metric(Workload.OVERLOAD, 1).median(cell)
    yield Criterion("C9", "goodput at 3 times the peak, of the peak", 0.8, goodput)
    yield Criterion(
        "C9",
        "p99 of what is accepted",
        50.0,
        _milliseconds(cell, lambda found: found.p99),
        "ms",
        at_most=True,
    )
    yield Criterion(
        "C9", "p99 of refusals, RESOURCE_EXHAUSTED", 50.0, _figure(cell, "refused_p99_ms"), "ms", at_most=True
    )
    yield Criterion(
        "C9", "calls that ended otherwise", 0.0, _figure(cell, "other_failures"), "", at_most=True
    )


def _best(results: Results, workload: Workload, depth: int) -> tuple[Cell | None, str]:
    """The peer that does best, and its name in parentheses."""
    peers = results.peers(workload, depth)
    if not peers:
        return None, ""
    judge = metric(workload, depth)
    best = (max if judge.higher_is_better else min)(peers, key=judge.median)
    return best, f" ({best.subject})"


def _figure(cell: Cell | None, name: str) -> float | None:
    return None if cell is None else median_of(cell, lambda found: found.figures.get(name))


def _milliseconds(cell: Cell | None, value: Callable[[Round], float | None]) -> float | None:
    found = None if cell is None else median_of(cell, value)
    return None if found is None else found / 1e3
