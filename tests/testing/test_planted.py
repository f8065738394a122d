"""Bugs planted in rpcfw or in a service are found, their seed is named, and its replay shows what happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rpcfw.cli.scenarios import play_many
from rpcfw.testing.scenario import Played, find, play
from rpcfw.testing.timeline import as_text
from tests.sim.planted import ALL, Planted, first_failure

SEEDS = range(20)
"""The bugs are found by the first of them: see `tests.sim.planted`."""
TARGET = "tests.sim.planted"
each_bug = pytest.mark.parametrize("planted", ALL, ids=lambda planted: planted.bug.__name__)


def found(scenario: str) -> tuple[Played, list[str]]:
    """The run of the first seed that finds a bug, and its timeline up to the violation."""
    played = first_failure(find(f"{TARGET}:{scenario}_planted"), SEEDS)
    assert played is not None, f"not found in {SEEDS}"
    lines = as_text(played.simulation.trace).splitlines()
    (end,) = [row for row, line in enumerate(lines) if " violation: " in line]
    return played, lines[: end + 1]


def rows(lines: list[str], pattern: str) -> list[int]:
    return [row for row, line in enumerate(lines) if re.search(pattern, line)]


@each_bug
def test_a_scenario_passes_without_its_bug(planted: Planted) -> None:
    failed = first_failure(planted.scenario, SEEDS)
    assert failed is None, f"seed {failed.simulation.seed}: {failed.outcome().error}"


@each_bug
def test_a_sweep_names_the_seed_of_a_bug_and_its_replay_fails_alike(
    planted: Planted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    target = f"{TARGET}:{planted.scenario.__name__}_planted"
    with pytest.raises(SystemExit) as exit:
        play_many(target, SEEDS, jobs=1, as_json=False)
    assert exit.value.code == 1
    told = re.match(
        r"seed (\d+): (AssertionError: .*)\n +rpcfw sim run \S+ --seed \1\n", capsys.readouterr().out
    )
    assert told is not None
    one, other = (play(find(target), int(told[1])).outcome() for _ in range(2))
    assert one.first_line == told[2]
    assert other == one


def test_a_replay_shows_the_reply_that_came_twice() -> None:
    played, lines = found("replies_reach_their_own_calls")
    mistaken = re.search(r"violation: (call-\d+) got the reply to (call-\d+)$", lines[-1])
    assert mistaken is not None
    call, other = mistaken.groups()
    assert rows(lines, f"ended: {call}: {other}$")
    assert rows(lines, "ended: .*: DEADLINE_EXCEEDED$")
    whole = as_text(played.simulation.trace).splitlines()
    assert rows(whole, f"ended: {other}: ({other}|[A-Z_]+)$")  # at the same time, or given up meanwhile


def test_a_replay_shows_that_a_handler_ran_on_when_its_call_was_given_up() -> None:
    _, lines = found("no_handler_outlives_its_call")
    left = re.search(r"1 handlers outlive their calls: (call-\d+)$", lines[-1])
    assert left is not None
    (begins,) = rows(lines, f"handler: {left[1]} begins$")
    (ended,) = rows(lines, f"ended: {left[1]} is given up$")
    assert begins < ended
    assert not rows(lines, f"handler: {left[1]} ends$")


def test_a_replay_shows_the_fault_that_heartbeats_did_not_see() -> None:
    _, lines = found("no_call_waits_for_a_dead_host")
    assert re.search(r"a call took \d+\.\d s, which keepalive should have ended$", lines[-1])
    assert rows(lines, r"(s1 pause|s1 crash|network partition)")


def test_a_replay_shows_the_crash_and_the_write_it_lost() -> None:
    played, lines = found("what_was_acknowledged_survives")
    crashes, lost = rows(lines, " crash$"), rows(lines, r"disk: log: .*lost")
    assert crashes
    assert lost
    assert crashes[0] < lost[-1]
    lost_write = re.search(r"write (\w) (\d+)  \(ok", str(played.error))
    assert lost_write is not None
    assert rows(lines, rf"ended: .* write {lost_write[1]} {lost_write[2]}  \(ok")
