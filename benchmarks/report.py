"""The tables of a run: each figure beside its ratio to the limit and to rpcfw.

python -m benchmarks.report FILE.json [--markdown]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.acceptance import Criterion, criteria
from benchmarks.catalog import Kind
from benchmarks.plan import Stage
from benchmarks.results import (
    AWAITED,
    RPCFW,
    Cell,
    Failure,
    Metric,
    Results,
    Round,
    load,
    median_of,
    metric,
    spread,
)
from benchmarks.subject import Workload
from benchmarks.tables import Table, number, times

_NOTES = {
    Workload.GET_ORDER: "A number there, an Order of five items back, as objects of the subject's own kind.",
    Workload.ECHO: "16 bytes there and back.",
    Workload.DOWNLOAD: "A number there, 1 MiB back, one at a time.",
    Workload.UPLOAD: "1 MiB there, its length back, one at a time.",
    Workload.SERVER_STREAM: "20,000 items of two ints, a float and a short text, from the server.",
    Workload.CLIENT_STREAM: "The same from the client.",
    Workload.ORDER_STREAM: "2,000 Orders from the server.",
    Workload.MANY_CLIENTS: "16 tasks, each on a connection of its own, one call in flight.",
    Workload.ONEWAY: "Calls without a reply; what arrived counts.",
    Workload.WORKERS: "2 client processes with 64 calls in flight each; clients and workers share all cores.",
    Workload.IDLE: "What the server's memory grows by for each connection, used once.",
    Workload.COLD_START: "Medians of 5 imports in each round; memory of the server after 1,000 calls.",
    Workload.OVERLOAD: "An open loop at three times the peak of a closed one, onset included. Latencies from when due.",
}
_RATIOS = "Of raw: the subject's figure over that of {}."


def tables(results: Results) -> list[Table]:
    """All of them, in the order of the run."""
    found = []
    loads = [depth for workload, depth in results.stages() if workload is Workload.OFFERED_LOAD]
    for workload, depth in results.stages():
        if workload is Workload.COLD_START:
            found.append(_cold(results))
        elif workload is Workload.OVERLOAD:
            found.append(_overload(results))
        elif workload is Workload.OFFERED_LOAD:
            if depth == loads[0]:
                found.append(_offered(results, loads))
        else:
            found.append(_stage(results, workload, depth))
    return found


def _stage(results: Results, workload: Workload, depth: int) -> Table:
    judge = metric(workload, depth)
    cells = sorted(results.cells_of(workload, depth), key=judge.median, reverse=judge.higher_is_better)
    reference = next((found for cell in cells if (found := results.reference(cell)) is not None), None)
    timed = any(median_of(cell, _p50) for cell in cells)
    metered = any(median_of(cell, _server_cpu) for cell in cells)
    header = [
        "subject",
        *(["p50 us", "p99 us"] if timed else []),
        _unit(judge),
        "of raw",
        "rpcfw is",
        "spread",
    ]
    header += ["server us", "client us"] if metered else []
    ours = results.cell(workload, depth, RPCFW)
    rows = []
    for cell in cells:
        ratios = results.ratios(cell, reference)
        row = [_subject(results, cell)]
        if timed:
            row += [number(median_of(cell, pick)) for pick in (_p50, _p99)]
        row.append(number(_shown(judge, cell)))
        row.append(times(results.ratio(cell, reference)))
        row.append(_better(results, judge, ours, cell))
        row.append(
            f"{spread(ratios or _values(judge, cell)):.0%}" if sum(map(bool, cell.rounds)) > 1 else "-"
        )
        if metered:
            row += [number(median_of(cell, pick) or None) for pick in (_server_cpu, _client_cpu)]
        rows.append(row)
    note = _NOTES[workload] + (f" {_RATIOS.format(reference.subject)}" if reference is not None else "")
    return Table(Stage(workload, depth, 0.0).title, header, rows, note)


def _unit(judge: Metric) -> str:
    return "calls/s" if judge.unit == "us" else judge.unit


def _shown(judge: Metric, cell: Cell) -> float | None:
    """The column of the main figure; where that is a latency, which has a column already, calls per second."""
    return median_of(cell, lambda found: found.per_s) if judge.unit == "us" else judge.median(cell)


def _values(judge: Metric, cell: Cell) -> list[float]:
    return [judge.value(found) for found in cell.rounds if found is not None]


def _better(results: Results, judge: Metric, ours: Cell | None, cell: Cell) -> str:
    """How many times better rpcfw is."""
    if ours is None or ours is cell:
        return "-"
    return times(results.ratio(ours, cell) if judge.higher_is_better else results.ratio(cell, ours))


def _cold(results: Results) -> Table:
    figures = ("import_ms", "first_reply_ms", "server_mib")
    header = ["subject", "import ms", "first reply ms", "server MiB", "first reply, of raw", "memory, of raw"]
    rows = []
    for cell in results.cells_of(Workload.COLD_START, 1):
        reference = results.reference(cell)
        found = [_figure(cell, name) for name in figures]
        memory = None if reference is None else _figure(reference, "server_mib")
        row = [_subject(results, cell), *(number(value) for value in found)]
        row.append(times(results.ratio(cell, reference)))
        row.append(times(found[2] / memory if memory and found[2] else None))
        rows.append(row)
    return Table("cold start", header, rows, _NOTES[Workload.COLD_START])


def _overload(results: Results) -> Table:
    header = [
        "subject",
        "peak/s",
        "offered/s",
        "goodput/s",
        "of the peak",
        "p50 ms",
        "p99 ms",
        "refused p50 ms",
        "p99 ms",
    ]
    rows = []
    for cell in results.cells_of(Workload.OVERLOAD, 1):
        row = [_subject(results, cell)]
        row += [number(_figure(cell, name)) for name in ("peak_per_s", "offered_per_s", "goodput_per_s")]
        row.append(times(metric(Workload.OVERLOAD, 1).median(cell)))
        row += [number((median_of(cell, pick) or 0.0) / 1e3) for pick in (_p50, _p99)]
        row += [number(_figure(cell, name)) for name in ("refused_p50_ms", "refused_p99_ms")]
        rows.append(row)
    return Table("overload, three times the peak", header, rows, _NOTES[Workload.OVERLOAD])


def _offered(results: Results, loads: Iterable[int]) -> Table:
    subjects = [RPCFW, AWAITED]
    header = ["load"]
    for name in subjects:
        header += [f"{name}: calls/s", "p50 us", "p99 us", "p99.9 us"]
    rows = []
    for load_percent in loads:
        row = [f"{load_percent} %"]
        for name in subjects:
            cell = results.cell(Workload.OFFERED_LOAD, load_percent, name)
            picks = (_per_s, _p50, _p99, _p999)
            row += ["-"] * 4 if cell is None else [number(median_of(cell, pick)) for pick in picks]
        rows.append(row)
    note = (
        "An open loop at a share of the calls per second that the subject does with 64 in flight. Latencies count from "
        "when a call was due, so that a stall counts for all that it kept waiting. The client makes a task for each "
        "call here, which the closed loop does not, and so gives out before 100 %; its collector looks after "
        "every 10,000 new objects, for both."
    )
    return Table("latency over offered load", header, rows, note)


def _p50(found: Round) -> float | None:
    return found.p50


def _p99(found: Round) -> float | None:
    return found.p99


def _p999(found: Round) -> float | None:
    return found.p999


def _server_cpu(found: Round) -> float | None:
    return found.server_cpu_us


def _client_cpu(found: Round) -> float | None:
    return found.client_cpu_us


def _per_s(found: Round) -> float | None:
    return found.per_s


def acceptance(found: Sequence[Criterion]) -> Table:
    """What was asked and what came of it."""
    rows = []
    for criterion in found:
        unit = criterion.unit if criterion.unit in ("", "x") else f" {criterion.unit}"
        bound = "at most" if criterion.at_most else "at least"
        measured = "-" if criterion.measured is None else f"{_told_apart(criterion)}{unit}"
        met = {None: "not measured", True: "met", False: "NOT MET"}[criterion.met]
        rows.append([f"{criterion.id} {criterion.what}", f"{bound} {criterion.asked:g}{unit}", measured, met])
    return Table("acceptance", ["criterion", "asked", "measured", ""], rows)


def _told_apart(criterion: Criterion) -> str:
    """What was measured, in as many digits as it takes to see on which side of what was asked it is."""
    assert criterion.measured is not None
    usual = number(criterion.measured)
    return usual if criterion.met or usual != number(criterion.asked) else f"{criterion.measured:.4g}"


def verdict(found: Sequence[Criterion], *, quick: bool) -> str:
    """A line for the end: how many were met, and which were not."""
    judged = [criterion for criterion in found if criterion.met is not None]
    missed = [f"{criterion.id} {criterion.what}" for criterion in judged if not criterion.met]
    text = f"acceptance: {len(judged) - len(missed)} of {len(judged)} met"
    text += f"; not met: {'; '.join(missed)}" if missed else ""
    return (
        f"{text}\na quick run is a look and no verdict: its samples are short, of one round"
        if quick
        else text
    )


def _subjects(results: Results) -> Table:
    """How each was configured."""
    rows = []
    for name, info in results.subjects.items():
        versions = ", ".join(f"{package} {version}" for package, version in info.versions.items())
        rows.append([name, info.setting, versions])
    return Table("subjects", ["subject", "setting", "versions"], rows, numbers=False)


def _failures(found: Sequence[Failure]) -> Table:
    """What could not be measured."""
    rows = [[failure.subject, failure.what, failure.reason] for failure in found]
    return Table("not measured", ["subject", "what", "why"], rows, numbers=False)


def heading(results: Results) -> str:
    """The machine and the settings, in a paragraph."""
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{package} {version}" for package, version in results.versions.items())
    return (
        f"{results.date}; {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}; "
        f"{versions}. Rounds: {settings['rounds']}; each figure is their median, each ratio the median of the rounds' "
        "own ratios. Server and client run in processes of their own, each kept on a core. Server us and client us: "
        "processor time for each call or item."
    )


def whole(results: Results, *, markdown: bool = False) -> str:
    """All of it."""
    parts = [*tables(results), acceptance(criteria(results)), _subjects(results)]
    if results.failures:
        parts.append(_failures(results.failures))
    rendered = [part.markdown() if markdown else part.text() for part in parts]
    return "\n\n".join([heading(results), *rendered])


def _subject(results: Results, cell: Cell) -> str:
    kind = results.subjects[cell.subject].kind
    return f"{cell.subject} (limit)" if kind is Kind.LIMIT else cell.subject


def _figure(cell: Cell, name: str) -> float | None:
    return median_of(cell, lambda found: found.figures.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="The tables of a results file."
    )
    parser.add_argument("file", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("--markdown", action="store_true", help="for a page of the documentation")
    arguments = parser.parse_args()
    print(whole(load(arguments.file), markdown=arguments.markdown))


if __name__ == "__main__":
    main()
