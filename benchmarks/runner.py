"""Runs the plan: all subjects alive but idle, one at a time at work, a round of all before the next round of any."""

from __future__ import annotations

import dataclasses
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.catalog import Entry, Kind
from benchmarks.plan import Stage
from benchmarks.processes import Description, RunningSubject, SubjectFailed
from benchmarks.results import Cell, Failure, Results, Round, SubjectInfo
from benchmarks.subject import Sample, Task, Workload

_STARTING_S = 0.5
_AT_A_TIME = 3
_PEAK_IN_FLIGHT = 64
_GIVE_UP_AFTER = 3
"""Failures in a row, and a subject is left alone."""


class Progress(Protocol):
    """Is told how far a run is."""

    def plan(self, seconds: float) -> None:
        """About how long all takes."""

    def show(self, what: str) -> None:
        """What runs now."""

    def advance(self, seconds: float) -> None:
        """So much of the plan is done."""


@dataclasses.dataclass
class _Member:
    entry: Entry
    running: RunningSubject
    description: Description
    failures: int = 0
    peak: float = 0.0


class Runner:
    """One run.

    Args:
        results: is filled.
        rounds: of each stage.
        progress: is told.
        environment: of the subjects' processes, beside this one's.
    """

    def __init__(
        self, results: Results, rounds: int, progress: Progress, environment: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._results = results
        self._rounds = rounds
        self._progress = progress
        self._members: list[_Member] = []
        self._running: list[RunningSubject] = []

    def run(self, entries: Sequence[Entry], plan: Sequence[Stage]) -> None:
        """Measure. No process is left when this returns or raises, KeyboardInterrupt included."""
        with tempfile.TemporaryDirectory(prefix="rpcfw-bench-", ignore_cleanup_errors=True) as folder:
            try:
                self._start(entries, plan, Path(folder))
                costs = [
                    stage.cost_s(member.entry.kind, self._rounds)
                    for stage in plan
                    for member in self._taking_part(stage)
                ]
                self._progress.plan(len(entries) * _STARTING_S + sum(costs))
                self._progress.advance(len(entries) * _STARTING_S)
                for stage in plan:
                    self._stage(stage, Path(folder))
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is near, and must be reached
                for running in self._running:
                    running.close()
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _start(self, entries: Sequence[Entry], plan: Sequence[Stage], folder: Path) -> None:
        """Start all servers; those that cannot, or have no part in the plan, are left out."""
        self._progress.plan(len(entries) * _STARTING_S)
        for number, entry in enumerate(entries):
            self._progress.show(f"starting {entry.name}")
            while len(self._running) < min(number + _AT_A_TIME, len(entries)):
                self._running.append(self._subject(entries[len(self._running)], folder))
            running = self._running[number]
            try:
                description = running.described()
            except SubjectFailed as error:
                self._fail(entry.name, entry.kind, "start", error)
                running.close()
                continue
            if not any(stage.takes(entry.kind, description) for stage in plan):
                running.close()
                continue
            self._members.append(_Member(entry, running, description))
            self._results.subjects[description.name] = SubjectInfo(
                entry.kind, entry.module, description.setting, description.versions
            )

    def _taking_part(self, stage: Stage) -> list[_Member]:
        """Those that a stage is for; limits alone are not worth it."""
        members = [member for member in self._members if stage.takes(member.entry.kind, member.description)]
        return members if any(member.entry.kind is not Kind.LIMIT for member in members) else []

    def _stage(self, stage: Stage, folder: Path) -> None:
        members = self._taking_part(stage)
        cells = {
            member.description.name: Cell(stage.workload, stage.depth, member.description.name, [])
            for member in members
        }
        self._results.cells.extend(cells.values())
        for number in range(self._rounds):
            # to and fro, so that what changes steadily falls on all alike
            for member in members if number % 2 == 0 else reversed(members):
                name = member.description.name
                cost_s = stage.cost_s(member.entry.kind, self._rounds) / self._rounds
                self._progress.show(f"{stage.title}, round {number + 1} of {self._rounds}: {name}")
                cells[name].rounds.append(self._sample(stage, member, number, folder))
                self._progress.advance(cost_s)

    def _sample(self, stage: Stage, member: _Member, number: int, folder: Path) -> Round | None:
        kind = member.entry.kind
        if member.failures >= _GIVE_UP_AFTER:
            return None
        if kind is Kind.PEER and stage.peer_rounds is not None and number >= stage.peer_rounds:
            return None
        try:
            if stage.workload is Workload.IDLE:
                sample = self._fresh(stage.task, member, folder)
            elif stage.workload is Workload.OFFERED_LOAD:
                sample = member.running.measure(self._offered(stage, member))
            else:
                sample = member.running.measure(stage.task)
        except SubjectFailed as error:
            member.failures += 1
            self._fail(member.description.name, kind, stage.title, error)
            self._restart(member, folder)
            return None
        member.failures = 0
        if stage.workload is Workload.GET_ORDER and stage.depth == _PEAK_IN_FLIGHT:
            member.peak = sample.count / sample.elapsed_s
        return Round.of(sample)

    def _subject(self, entry: Entry, folder: Path) -> RunningSubject:
        return RunningSubject(entry, folder, self._environment)

    def _fresh(self, task: Task, member: _Member, folder: Path) -> Sample:
        """In processes of its own, whose memory nothing else has used before."""
        with self._subject(member.entry, folder) as running:
            self._running.append(running)
            try:
                running.described()
                return running.measure(task)
            finally:
                self._running.remove(running)

    def _offered(self, stage: Stage, member: _Member) -> Task:
        if not member.peak:
            sample = member.running.measure(Task(Workload.GET_ORDER, _PEAK_IN_FLIGHT, stage.seconds))
            member.peak = sample.count / sample.elapsed_s
        return dataclasses.replace(stage.task, rate=member.peak * stage.depth / 100)

    def _restart(self, member: _Member, folder: Path) -> None:
        self._running.remove(member.running)
        member.running.close()
        member.running = self._subject(member.entry, folder)
        self._running.append(member.running)
        try:
            member.running.described()
        except SubjectFailed:
            member.failures = _GIVE_UP_AFTER

    def _fail(self, name: str, kind: Kind, what: str, error: SubjectFailed) -> None:
        failure = Failure(name, kind, what, str(error))
        if failure not in self._results.failures:
            self._results.failures.append(failure)
