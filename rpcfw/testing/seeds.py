"""One scenario with many seeds, in processes of their own: a sweep, and the proof that a seed says it all.

Each process plays one seed after the other and is replaced when it dies, which is the outcome of the seed it played.
What is played, and how, is in `scenario`. Swarms of seeds are FoundationDB's way to test (Zhou et al., 2021, 4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import gc
import itertools
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from rpcfw.testing.scenario import Outcome, ScenarioError, find, play

SEEDS_PER_PROCESS = 500
"""A process that has played so many is replaced: what user code piles up in it stays bounded."""
LIMIT_S = 300.0
"""Real seconds after which a seed counts as hung; the slowest that do something take some ten."""
_LATE_S = 0.01
_HASH_SEEDS = ("1", "271828")
"""Two values of PYTHONHASHSEED under which sets of strings iterate differently."""


class Different(AssertionError):
    """Two runs of one seed were not the same. The message says where they part."""


class Sweep:
    """The outcomes of a scenario with many seeds, as they come. Iterate over it once.

    Leaving the iteration early ends the processes. What scenarios print is dropped: replay a seed to see it.

    Args:
        target: ``module:function`` or ``file.py:function``.
        seeds: which, in this order; outcomes come in the order in which they end.
        jobs: how many processes.
        limit_s: real seconds after which a seed that has not ended is ended, and has failed; None: never.

    Raises:
        ScenarioError: on iterating, when the target names no scenario.
    """

    def __init__(
        self, target: str, seeds: Iterable[int], *, jobs: int = 1, limit_s: float | None = LIMIT_S
    ) -> None:
        if jobs < 1:
            raise ValueError(f"jobs={jobs} plays nothing: give at least 1")
        if limit_s is not None and not limit_s > 0:
            raise ValueError(f"limit_s={limit_s!r} must be above 0, or None for no limit")
        self.target = target
        self.jobs = jobs
        self.limit_s = math.inf if limit_s is None else limit_s
        self._seeds = iter(seeds)
        self._players: dict[Connection, _Player] = {}

    @property
    def playing(self) -> list[int]:
        """The seeds that are being played now: where it hangs, if it does."""
        return sorted(player.seed for player in self._players.values())

    def __iter__(self) -> Iterator[Outcome]:
        try:
            while self._fill():
                for connection in wait(list(self._players), self._patience_s()):
                    assert isinstance(connection, Connection)
                    player = self._players[connection]
                    outcome = player.take()
                    if outcome is None:
                        continue
                    following = next(self._seeds, None) if player.is_fit else None
                    if following is None:
                        self._players.pop(connection).end()
                    else:
                        player.begin(following)
                    yield outcome
                for player in [player for player in self._players.values() if player.took_s() > self.limit_s]:
                    self._players.pop(player.connection).end()
                    yield Outcome(player.seed, f"it had not ended after {self.limit_s:g} s", "", 0, 0.0)
        finally:
            for player in self._players.values():
                player.end()

    def _patience_s(self) -> float | None:
        """How long to wait for an outcome before one of those that play has taken too long."""
        if self.limit_s == math.inf:
            return None
        longest_s = max(player.took_s() for player in self._players.values())
        return max(0.0, self.limit_s - longest_s) + _LATE_S

    def _fill(self) -> bool:
        """Start processes as long as there are too few and seeds are left. False when none runs."""
        while len(self._players) < self.jobs and (seed := next(self._seeds, None)) is not None:
            player = _Player(self.target)
            player.begin(seed)
            self._players[player.connection] = player
        return bool(self._players)


def check_same(target: str, *seeds: int) -> list[Outcome]:
    """Play each seed twice, in two processes that hash strings differently and play the seeds in opposite orders.

    Returns:
        The outcomes by seed, failures among them: whether a scenario passes is not the question here.

    Raises:
        Different: a seed did not give the same trace both times. The message shows the first event that differs.
        ScenarioError: the target names no scenario.
    """
    one, other = _play_twice(target, seeds)
    for seed in seeds:
        if one[seed].digest != other[seed].digest:
            raise Different(
                f"seed {seed} of {target} gave two different runs, digests {one[seed].digest[:16]} and "
                f"{other[seed].digest[:16]}. {_difference(target, seed)}"
            )
    return [one[seed] for seed in seeds]


def _play_twice(
    target: str, seeds: Sequence[int], traces: str | None = None
) -> tuple[dict[int, Outcome], dict[int, Outcome]]:
    """The outcomes in one process and in the other."""
    with contextlib.ExitStack() as ends:
        players = [_Player(target, hash_seed, traces and traces + hash_seed) for hash_seed in _HASH_SEEDS]
        for player in players:
            ends.callback(player.end)
        outcomes: tuple[dict[int, Outcome], dict[int, Outcome]] = ({}, {})
        for pair in zip(seeds, reversed(seeds), strict=True):
            for player, seed in zip(players, pair, strict=True):
                player.begin(seed)
            for player, seed, its in zip(players, pair, outcomes, strict=True):
                outcome = its[seed] = player.outcome()
                if not outcome.digest:
                    raise Different(f"seed {seed} of {target} leaves nothing to compare: {outcome.error}")
        return outcomes


def _difference(target: str, seed: int) -> str:
    """Where two runs of a seed part, found by playing it twice more, alone."""
    with tempfile.TemporaryDirectory(prefix="rpcfw-sim-") as folder:
        one, other = _play_twice(target, [seed], f"{folder}/")
        if one[seed].digest == other[seed].digest:
            return "Alone it gives the same run twice: state of the process outlives a run, and changes the next."
        first, second = (
            Path(folder, hash_seed).read_text(encoding="utf-8").splitlines() for hash_seed in _HASH_SEEDS
        )
    lines = next((pair for pair in itertools.zip_longest(first, second) if pair[0] != pair[1]), None)
    where = "\n".join(f"  {line or '(no more events)'}" for line in lines or ["(among events not kept)"])
    return f"The first difference:\n{where}\nLook there for sets of strings, the wall clock, and chance without a seed."


class _Player:
    """A process that plays the seeds it is told to, as seen from here."""

    def __init__(self, target: str, hash_seed: str | None = None, trace: str | None = None) -> None:
        """With `trace`, the lines of a run's trace are written to that file."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._target = target
        self._process = context.Process(
            target=_serve, args=(theirs, target, trace), name=f"rpcfw sim {target}", daemon=True
        )
        with _starting(hash_seed):
            self._process.start()
        theirs.close()
        self._ready = False
        self._played = 0
        self._began_s = 0.0
        self.seed = -1

    @property
    def is_fit(self) -> bool:
        """Whether it can play another seed."""
        return self._process.is_alive() and self._played < SEEDS_PER_PROCESS

    def begin(self, seed: int) -> None:
        """Tell it to play; it need not have started yet."""
        self.seed = seed
        self._began_s = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # `take` finds out what became of it
            self.connection.send_bytes(json.dumps(seed).encode())

    def took_s(self) -> float:
        """Real seconds since it was told to play."""
        return time.monotonic() - self._began_s

    def take(self) -> Outcome | None:
        """Read what it says: None when it has only become ready."""
        try:
            told: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return self._died()
        if "refused" in told:
            raise ScenarioError(told["refused"])
        if "ready" in told:
            self._ready = True
            return None
        self._played += 1
        return Outcome(**told)

    def outcome(self) -> Outcome:
        """Wait for what came of the seed it was told to play."""
        while (outcome := self.take()) is None:
            pass
        return outcome

    def end(self) -> None:
        """Kill it, whatever it does: it has nothing to lose."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _died(self) -> Outcome:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self._ready:
            raise RuntimeError(
                f"a process died before it could play {self._target} ({how}); stderr says more"
            )
        return Outcome(self.seed, f"the process that played it died: {how}", "", 0, 0.0)


@contextlib.contextmanager
def _starting(hash_seed: str | None) -> Iterator[None]:
    """While processes start: with that PYTHONHASHSEED, if any, and without the script that runs here.

    A spawned process imports the script of its parent, which would start the sweep again unless the script is guarded;
    nothing of it is needed.
    """
    script, before = sys.modules["__main__"], os.environ.get("PYTHONHASHSEED")
    sys.modules["__main__"] = ModuleType("__main__")
    if hash_seed is not None:
        os.environ["PYTHONHASHSEED"] = hash_seed
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        if hash_seed is not None:
            del os.environ["PYTHONHASHSEED"]
            if before is not None:
                os.environ["PYTHONHASHSEED"] = before


def _serve(connection: Connection, target: str, trace: str | None) -> None:
    """The other process: play what is asked for until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches who asks, and that one kills this
    try:
        scenario = find(target)
    except ScenarioError as error:
        connection.send_bytes(json.dumps({"refused": str(error)}).encode())
        return
    _be_silent()
    gc.collect()
    gc.freeze()  # what is loaded by now stays; the collections between runs need not walk it
    connection.send_bytes(json.dumps({"ready": True}).encode())
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            seed: int = json.loads(connection.recv_bytes())
            played = play(scenario, seed)
            if trace is not None:
                Path(trace).write_text("\n".join(played.simulation.trace.lines), encoding="utf-8")
            outcome = played.outcome()
            del played
            gc.collect()
            connection.send_bytes(json.dumps(dataclasses.asdict(outcome)).encode())


def _be_silent() -> None:
    """Drop what is printed and logged, as a thousand runs say it a thousand times; but not a crash's last words."""
    faulthandler.enable(os.dup(2))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
