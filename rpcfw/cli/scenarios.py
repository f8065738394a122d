"""What `rpcfw sim run` does: play a scenario with many seeds and tell the sum, or replay one and show its timeline."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rpcfw.cli.output import CommandError, Exit, put, say, to_json
from rpcfw.cli.progress import ProgressLine
from rpcfw.testing.scenario import Outcome, ScenarioError, find, play
from rpcfw.testing.seeds import LIMIT_S, Sweep
from rpcfw.testing.timeline import as_html, as_text

LISTED = 50
"""So many failing seeds are told to a person; a program gets them all."""
TIMELINE_LINES = 200
"""How much of the timeline of a run that failed is printed unasked: its end is where it failed."""
_TELL_EVERY_S = 0.1


def play_many(
    target: str, seeds: range, *, jobs: int | None, as_json: bool, limit_s: float | None = None
) -> None:
    """Play seeds in processes of their own, and tell the sum. Exits with `Exit.FAILED` when one fails.

    A seed that takes more than `limit_s` real seconds has failed.
    """
    began_s = time.monotonic()
    sweep = Sweep(
        target, seeds, jobs=jobs or min(os.cpu_count() or 1, len(seeds)), limit_s=limit_s or LIMIT_S
    )
    failures: list[tuple[int, str]] = []
    events, virtual_s = 0, 0.0
    progress = _Progress(len(seeds), began_s)
    try:
        for outcome in sweep:
            events += outcome.events
            virtual_s += outcome.virtual_s
            if outcome.error is not None:
                failures.append((outcome.seed, outcome.first_line))
            progress.played(outcome)
    except ScenarioError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except KeyboardInterrupt:
        progress.clear()
        playing = ", ".join(map(str, sweep.playing))
        say(f"interrupted after {progress.done:,} seeds and {len(failures):,} violations, in seeds {playing}")
        raise
    progress.clear()
    took_s = time.monotonic() - began_s
    failures.sort()
    if as_json:
        told = [{"seed": seed, "error": line, "replay": _replay(target, seed)} for seed, line in failures]
        summary = {"target": target, "first": seeds.start, "seeds": len(seeds), "violations": len(failures)}
        summary |= {"events": events, "virtual_s": virtual_s, "real_s": round(took_s, 3), "failures": told}
        put(to_json(summary))
    else:
        _tell(target, failures)
        put(f"{events:,} events in {_duration(virtual_s)} of virtual time; it took {_duration(took_s)}")
        put(f"seeds {len(seeds)}, violations {len(failures)}")
    if failures:
        raise SystemExit(Exit.FAILED)


def replay(target: str, seed: int, *, whole: bool, page: Path | None, as_json: bool) -> None:
    """Play one seed in this process and show what happened. Exits with `Exit.FAILED` when it fails."""
    try:
        scenario = find(target)
    except ScenarioError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    played = play(scenario, seed)
    outcome, trace = played.outcome(), played.simulation.trace
    if page is not None:
        page.write_text(as_html(trace, title=f"{target}, seed {seed}"), encoding="utf-8")
        say(f"wrote {page}")
    lines = None if whole else TIMELINE_LINES
    if as_json:
        told = dataclasses.asdict(outcome) | {"faults": played.simulation.faults()}
        put(to_json(told | {"timeline": as_text(trace).splitlines()} if whole else told))
    else:
        if whole or outcome.error is not None:
            put(as_text(trace, last=lines))
        if outcome.error is not None:
            faults = played.simulation.faults()
            if faults:
                put(f"faults:\n{faults}\n")
            if not whole and trace.recorded > TIMELINE_LINES:
                say("--trace prints the timeline from its beginning, --html FILE writes it as a web page")
            put(f"{outcome.error}\n")
        put(
            f"seed {seed}: {outcome.events:,} events in {_duration(outcome.virtual_s)} of virtual time, "
            f"digest {outcome.digest}"
        )
        put(f"seed {seed}: {outcome.first_line or 'passed'}")
    if outcome.error is not None:
        raise SystemExit(Exit.FAILED)


def _tell(target: str, failures: list[tuple[int, str]]) -> None:
    for seed, line in failures[:LISTED]:
        put(f"seed {seed}: {line}\n    {_replay(target, seed)}")
    if len(failures) > LISTED:
        put(f"and {len(failures) - LISTED:,} more; --json lists them all")


def _replay(target: str, seed: int) -> str:
    return f"rpcfw sim run {shlex.quote(target)} --seed {seed}"


def _duration(seconds: float) -> str:
    for unit, size_s in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.1f} s"


class _Progress:
    """What is told of the seeds played so far."""

    def __init__(self, total: int, began_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self._failed = 0
        self._total = total
        self._began_s = began_s
        self._clock = clock
        self._line = ProgressLine(_TELL_EVERY_S, began_s, clock)

    def played(self, outcome: Outcome) -> None:
        self.done += 1
        self._failed += outcome.error is not None
        if self._line.due():
            left_s = (self._clock() - self._began_s) / self.done * (self._total - self.done)
            seeds = f"{self.done:,} of {self._total:,} seeds"
            self._line.show(f"{seeds}, violations {self._failed:,}, {_duration(left_s)} left")

    def clear(self) -> None:
        """Wipe the line away, before something else is said."""
        self._line.clear()
