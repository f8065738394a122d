"""The benchmark: rpcfw, its peers and the limits in one run, as ratios.

    python -m benchmarks [--quick] [--only get_order,echo] [--subjects rpcfw,grpc.aio] [--json FILE] [--compare OLD]

`make bench` installs what it needs and runs it. It takes about 10 minutes on two cores, with --quick under 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import signal
import sys
from pathlib import Path
from typing import NoReturn

from benchmarks import compare, machine, report
from benchmarks.acceptance import criteria
from benchmarks.catalog import Kind, chosen, entries
from benchmarks.plan import QUICK_WARM_UP_S, stages
from benchmarks.progress import Bar
from benchmarks.results import Results, load, save
from benchmarks.runner import Runner
from benchmarks.subject import WARM_UP, Workload

_ROUNDS, _QUICK_ROUNDS = 3, 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="rpcfw, its peers and the limits in one run, as ratios."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a look, under 2 minutes: short samples, one round"
    )
    parser.add_argument("--only", metavar="WORKLOAD,...", default="", help=f"of {', '.join(Workload)}")
    parser.add_argument(
        "--subjects",
        metavar="NAME,...",
        default="",
        help="grpc.aio,TLS,...: names, or what follows the comma in them, or ours, peer; limits and rpcfw always run",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"{_ROUNDS} unless given; {_QUICK_ROUNDS} with --quick"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="name what got slower; exit code 1 if any did"
    )
    parser.add_argument("--results", type=Path, metavar="NEW.json", help="measure nothing; compare this file")
    parser.add_argument("--list", action="store_true", help="the subjects and workloads")
    arguments = parser.parse_args()
    arguments.only = _workloads(parser, arguments.only)
    try:
        names = [name.strip() for name in arguments.subjects.split(",")]
        arguments.chosen = chosen(entries(), [name for name in names if name])
    except ValueError as error:
        parser.error(f"--subjects: {error}")
    if arguments.rounds is None:
        arguments.rounds = _QUICK_ROUNDS if arguments.quick else _ROUNDS
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: at least 1")
    if arguments.results and not arguments.compare:
        parser.error("--results NEW.json goes with --compare OLD.json")
    return arguments


def _workloads(parser: argparse.ArgumentParser, text: str) -> frozenset[Workload]:
    try:
        return frozenset(Workload(name) for name in text.split(",") if name)
    except ValueError as error:
        parser.error(f"--only: {error}; there are {', '.join(Workload)}")


def _measure(arguments: argparse.Namespace) -> Results:
    plan = stages(quick=arguments.quick, only=arguments.only)
    results = Results(
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine.described(),
        machine.versions(),
        {
            "rounds": arguments.rounds,
            "sample_s": {stage.title: stage.seconds for stage in plan},
            "quick": arguments.quick,
            "only": sorted(arguments.only),
            "subjects": arguments.subjects,
        },
    )
    with Bar() as bar:
        environment = {WARM_UP: str(QUICK_WARM_UP_S)} if arguments.quick else {}
        Runner(results, arguments.rounds, bar, environment).run(arguments.chosen, plan)
    return results


def _compare(old: Results, new: Results) -> int:
    found = compare.changes(old, new)
    print(f"\n{compare.table(found).text()}")
    return int(any(change.slower for change in found))


def _list() -> None:
    print("workloads:", ", ".join(Workload))
    for kind in Kind:
        print(f"{kind}:", *(f"  {entry.name}" for entry in entries() if entry.kind is kind), sep="\n")


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """The command line; returns the exit code."""
    arguments = _arguments()
    if arguments.list:
        _list()
        return 0
    try:
        old = load(arguments.compare) if arguments.compare else None
        new = load(arguments.results) if arguments.results else None
    except (OSError, ValueError) as error:
        print(f"error: no results of an earlier run can be read there: {error}", file=sys.stderr)
        return 2
    if old is not None and new is not None:
        return _compare(old, new)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        results = _measure(arguments)
    except KeyboardInterrupt:
        print("interrupted; all processes are ended", file=sys.stderr)
        return 130
    print(report.whole(results))
    judged = criteria(results)
    print(f"\n{report.verdict(judged, quick=arguments.quick)}")
    if arguments.json:
        found = [{**dataclasses.asdict(criterion), "met": criterion.met} for criterion in judged]
        save(results, arguments.json, {"acceptance": found})
        print(f"results: {arguments.json}")
    slower = _compare(old, results) if old is not None else 0
    failed = [failure for failure in results.failures if failure.kind is not Kind.PEER]
    return 2 if failed else slower


if __name__ == "__main__":
    sys.exit(main())
