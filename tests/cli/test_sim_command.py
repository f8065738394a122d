"""`rpcfw sim run` as a command: the sum of many seeds, the replay of one, and how they exit."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpcfw.cli.scenarios import _Progress
from rpcfw.testing.scenario import Outcome
from tests.cli.conftest import Rpcfw, Start

SCENARIOS = """
import asyncio, os

async def passes(simulation):
    simulation.host("orders")
    await asyncio.sleep(3600)
    simulation.record("note", "orders", "still there")

async def fails(simulation):
    for number in range(300):
        simulation.record("step", "orders", str(number))
    print("seen in a replay")
    await asyncio.sleep(0.5)
    assert simulation.seed % 4 != 2, "two too many"

async def hangs(simulation):
    with open("fifo") as fifo, open("pid", "w") as file:
        file.write(str(os.getpid()))
        file.close()
        fifo.read()
"""


@pytest.fixture(autouse=True)
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """cluster.py in the current folder, imported anew by each test."""
    (folder / "cluster.py").write_text(SCENARIOS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("cluster", None)


def test_seeds_that_pass_end_in_a_line_that_says_so(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "cluster.py:passes", "--seeds", "4", "--jobs", "2")
    assert (done.code, done.err) == (0, "")
    sum_of_all, last = done.out.splitlines()
    assert re.fullmatch(r"4 events in 4\.0 hours of virtual time; it took \d+\.\d s", sum_of_all)
    assert last == "seeds 4, violations 0"


def test_seeds_that_fail_are_listed_with_the_command_that_replays_them(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "cluster:fails", "--first", "1", "--seeds", "6", "--jobs", "2")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[:4] == [
        "seed 2: AssertionError: two too many (cluster.py:14)",
        "    rpcfw sim run cluster:fails --seed 2",
        "seed 6: AssertionError: two too many (cluster.py:14)",
        "    rpcfw sim run cluster:fails --seed 6",
    ]
    assert lines[-1] == "seeds 6, violations 2"
    replay = rpcfw(*lines[1].split()[1:])
    assert replay.code == 1
    assert replay.out.splitlines()[-1] == lines[0]


def test_the_sum_as_json_has_every_failure(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "cluster.py:fails", "--seeds", "3", "--jobs", "1", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert told.pop("real_s") > 0
    (failure,) = told.pop("failures")
    assert told == {
        "target": "cluster.py:fails",
        "first": 0,
        "seeds": 3,
        "violations": 1,
        "events": 900,
        "virtual_s": 1.5,
    }
    assert failure == {
        "seed": 2,
        "error": "AssertionError: two too many (cluster.py:14)",
        "replay": "rpcfw sim run cluster.py:fails --seed 2",
    }


def test_a_replay_that_fails_shows_the_end_of_the_timeline_and_the_traceback(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "cluster.py:fails", "--seed", "2")
    assert done.code == 1
    assert "seen in a replay\n" in done.out
    assert "step: 299\n" in done.out
    assert "step: 99\n" not in done.out
    assert "Traceback" in done.out
    assert "--trace prints the timeline from its beginning" in done.err


def test_a_replay_that_passes_says_so_and_shows_the_timeline_when_asked(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "cluster.py:passes", "--seed", "2")
    assert done.code == 0
    first, last = done.out.splitlines()
    assert first.startswith("seed 2: 1 events in 60.0 minutes of virtual time, digest ")
    assert last == "seed 2: passed"
    traced = rpcfw("sim", "run", "cluster.py:passes", "--seed", "2", "--trace").out
    assert traced.endswith(done.out)
    assert "still there" in traced


def test_a_replay_writes_the_timeline_as_a_page(rpcfw: Rpcfw, folder: Path) -> None:
    done = rpcfw("sim", "run", "cluster.py:passes", "--seed", "2", "--html", "timeline.html")
    assert (done.code, done.err) == (0, "wrote timeline.html\n")
    page = (folder / "timeline.html").read_text()
    assert "<title>" in page
    assert "cluster.py:passes, seed 2" in page
    assert "still there" in page


def test_a_replay_as_json_is_the_outcome_with_the_timeline_if_asked(rpcfw: Rpcfw) -> None:
    told = json.loads(rpcfw("sim", "run", "cluster.py:passes", "--seed", "2", "--json").out)
    assert (told["seed"], told["error"], told["events"], told["virtual_s"]) == (2, None, 1, 3600.0)
    assert "timeline" not in told
    traced = json.loads(rpcfw("sim", "run", "cluster.py:passes", "--seed", "2", "--json", "--trace").out)
    assert traced["digest"] == told["digest"]
    assert "still there" in traced["timeline"][-1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["cluster.py:nothing"], "cluster.py has no 'nothing'; it has cluster.py:passes"),
        (["cluster.py:nothing", "--seed", "1"], "cluster.py has no 'nothing'"),
        (["cluster.py:passes", "--trace"], "say which with --seed SEED"),
        (["cluster.py:passes", "--html", "x.html"], "--html is about one run"),
        (["cluster.py:passes", "--seed", "1", "--seeds", "5"], "leave out --seeds"),
        (["cluster.py:passes", "--seeds", "0"], "--seeds"),
    ],
)
def test_wrong_usage_is_told_in_words_and_exits_with_2(
    rpcfw: Rpcfw, arguments: list[str], problem: str
) -> None:
    done = rpcfw("sim", "run", *arguments)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err


def test_ctrl_c_ends_a_scenario_that_hangs_and_tells_its_seed(start: Start, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    running = start("sim", "run", "cluster.py:hangs", "--first", "3", "--seeds", "1")
    with (folder / "fifo").open("w"):  # which waits for its reader
        running.signal(signal.SIGINT)
        assert running.code() == 130
    assert running.text == "interrupted after 0 seeds and 0 violations, in seeds 3"


def test_ctrl_c_of_the_terminal_is_left_to_the_command(start: Start, folder: Path) -> None:
    for name in ("fifo", "pid"):
        os.mkfifo(folder / name)
    running = start("sim", "run", "cluster.py:hangs", "--seeds", "1")
    with (folder / "fifo").open("w"), (folder / "pid").open() as pid:
        os.kill(int(pid.readline()), signal.SIGINT)  # as a terminal does to every process
    assert running.code() == 0
    assert running.text.endswith("seeds 1, violations 0")


def test_the_help_has_examples_and_exit_codes(rpcfw: Rpcfw) -> None:
    done = rpcfw("sim", "run", "--help")
    assert done.code == 0
    assert re.search(r"\n Examples: *\n   rpcfw sim run ", done.out)
    assert "Exit codes: 0 done, 1 failed" in done.out
    assert "│ run " in rpcfw("sim", "--help").out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "told"), [(Terminal, 10), (io.StringIO, 1)])
def test_progress_is_one_line_in_a_terminal_and_a_line_now_and_then_in_a_log(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], told: int
) -> None:
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    now_s = 100.0
    progress = _Progress(20, now_s, lambda: now_s)
    for seed in range(10):
        now_s += 1.0
        progress.played(Outcome(seed, "bad" if seed == 3 else None, "", 0, 0.0))
    progress.clear()
    text = stderr.getvalue()
    assert text.count(" of 20 seeds, violations ") == told
    assert "10 of 20 seeds, violations 1, 10.0 s left" in text
    assert text.endswith("\r" if stream is Terminal else "\n")
