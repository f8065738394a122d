"""Results that nobody measured, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.catalog import Kind
from benchmarks.results import AWAITED, RPCFW, Cell, Results, Round, SubjectInfo
from benchmarks.subject import Workload

KINDS = {
    AWAITED: Kind.LIMIT,
    "blocking sockets": Kind.LIMIT,
    RPCFW: Kind.OURS,
    "rpcfw, TLS": Kind.OURS,
    "rpcfw, overloaded": Kind.OURS,
    "grpc.aio": Kind.PEER,
    "nats-py": Kind.PEER,
}


def made_up(cells: Mapping[tuple[Workload, int, str], Sequence[float | None]]) -> Results:
    """A run whose cells have these figures: microseconds where a lone call is timed, else calls a second."""
    results = Results(
        "2026-01-01T00:00:00+00:00",
        {"cpu": "abacus", "cores": 2, "memory_mib": 1, "kernel": "none", "python": "CPython 3.11"},
        {"rpcfw": "0"},
        {"rounds": 3, "quick": False, "only": [], "subjects": ""},
    )
    for name, kind in KINDS.items():
        results.subjects[name] = SubjectInfo(kind, name, "as it comes", {"abacus": "1"})
    for (workload, depth, subject), figures in cells.items():
        rounds = [None if figure is None else _round(depth, figure) for figure in figures]
        results.cells.append(Cell(workload, depth, subject, rounds))
    return results


def _round(depth: int, figure: float) -> Round:
    if depth == 1:
        return Round(100, 1.0, 100.0, p50=figure, p99=figure * 2, p999=figure * 3)
    return Round(int(figure), 1.0, figure)
