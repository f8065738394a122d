"""Scenarios with many seeds in other processes: outcomes, deaths, refusals, and the same run twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from rpcfw.testing import seeds
from rpcfw.testing.scenario import Outcome, Scenario, ScenarioError, find, in_words, many_runs, play
from rpcfw.testing.seeds import Different, Sweep, check_same
from rpcfw.testing.simulation import Simulation

TWO_SERVERS = "tests.testing.two_servers:scenario"
SCENARIOS = """
import asyncio, os, signal, random

runs = 0

async def passes(simulation):
    await asyncio.sleep(3.5)
    simulation.record("drawn", "test", str(random.random()))

async def fails(simulation):
    print("said by every run")
    await asyncio.sleep(1)
    assert simulation.seed % 3 != 1

async def dies(simulation):
    if simulation.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if simulation.seed == 2:
        os._exit(7)

async def tells_its_process(simulation):
    raise RuntimeError(str(os.getpid()))

async def lists_a_set(simulation):
    simulation.record("set", "test", " ".join({"a", "b", "c", "d", "e", "f", "g", "h"}))

async def counts(simulation):
    global runs
    runs += 1
    simulation.record("count", "test", str(runs))

async def waits_busily(simulation):
    while simulation.seed % 3 == 1:
        pass

async def dies_once(simulation):
    if os.environ["PYTHONHASHSEED"] != "1":
        os._exit(7)

def takes_nothing():
    pass
"""

Target = Callable[[str], str]


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The name of a scenario in a file of its own; what finding it does to this process is undone."""
    path = tmp_path / f"scenarios_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(SCENARIOS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda name: f"{path.name}:{name}"


def by_seed(outcomes: list[Outcome]) -> dict[int, Outcome]:
    return {outcome.seed: outcome for outcome in outcomes}


# ------------------------------------------------------------------------------------------------ one seed


def test_a_run_that_passes_is_told_in_numbers(target: Target) -> None:
    outcome = play(find(target("passes")), 5).outcome()
    assert (outcome.seed, outcome.error, outcome.first_line) == (5, None, "")
    assert (outcome.events, outcome.virtual_s) == (1, 3.5)


def test_an_error_is_told_with_its_place_in_the_users_file(target: Target) -> None:
    outcome = play(find(target("fails")), 1).outcome()
    path = target("fails").partition(":")[0]
    line = SCENARIOS.splitlines().index("    assert simulation.seed % 3 != 1") + 1
    assert outcome.first_line == f"AssertionError: assert simulation.seed % 3 != 1 ({path}:{line})"
    assert outcome.error is not None
    assert "Traceback" in outcome.error


def test_an_error_alone_in_a_group_is_told_without_the_group() -> None:
    async def scenario(simulation: Simulation) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1))
            raise ValueError("first\nsecond")

    outcome = play(scenario, 0).outcome()
    assert outcome.error is not None
    first, second, *_ = outcome.error.splitlines()
    assert first.startswith("ValueError: first (test_seeds.py:")
    assert second == "second"


def test_an_error_without_end_is_cut() -> None:
    assert len(in_words(ValueError("x" * 1_000_000))) <= 20_000


@pytest.mark.parametrize("error", [SystemExit(3), pytest.fail.Exception("no"), asyncio.CancelledError()])
def test_whatever_a_scenario_raises_is_a_failure(error: BaseException) -> None:
    async def scenario(simulation: Simulation) -> None:
        await asyncio.sleep(1)
        raise error

    assert type(play(scenario, 0).error) is type(error)


def test_chance_of_the_random_module_comes_from_the_seed_and_is_put_back() -> None:
    drawn = []

    async def scenario(simulation: Simulation) -> None:
        drawn.append(random.random())

    before = random.getstate()
    for seed in (1, 1, 2):
        play(scenario, seed)
    assert random.getstate() == before
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_a_run_has_left_is_freed_before_the_next() -> None:
    left: list[weakref.ref[Simulation]] = []

    async def scenario(simulation: Simulation) -> None:
        left.append(weakref.ref(simulation))
        simulation.host("a")

    with many_runs() as tidy:
        for seed in range(3):
            play(scenario, seed)
            tidy()
            assert left[seed]() is None


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("{file}", "names no scenario; write module:function or file.py:function"),
        (":passes", "names no scenario"),
        ("{file}:nothing", "has no 'nothing'; it has {file}:passes, {file}:fails, "),
        ("{file}:takes_nothing", "write it as `async def takes_nothing(simulation: Simulation) -> None`"),
        ("no_such_file.py:passes", "there is no file 'no_such_file.py'"),
        ("no_such_module:passes", "there is no module 'no_such_module'"),
        (
            "broken.py:passes",
            "broken.py cannot be imported: ZeroDivisionError: division by zero (broken.py:1)",
        ),
    ],
)
def test_a_target_that_names_no_scenario_is_refused_in_words(
    target: Target, tmp_path: Path, named: str, problem: str
) -> None:
    file = target("").removesuffix(":")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ScenarioError) as caught:
        find(named.format(file=file))
    assert problem.format(file=file) in str(caught.value)


def test_a_file_in_a_package_is_imported_as_a_part_of_it(target: Target, tmp_path: Path) -> None:
    package = tmp_path / f"package_of_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "hosts.py").write_text("NAME = 'a'\n")
    (package / "scenarios.py").write_text(
        "from .hosts import NAME\nasync def it(simulation): assert NAME == 'a'\n"
    )
    scenario: Scenario = find(f"{package.name}/scenarios.py:it")
    assert play(scenario, 0).error is None
    assert find(f"{package.name}.scenarios:it") is scenario


# ------------------------------------------------------------------------------------------------ many seeds


def test_a_sweep_gives_for_each_seed_what_playing_it_alone_gives(target: Target) -> None:
    outcomes = by_seed(list(Sweep(target("passes"), range(10, 20), jobs=2)))
    assert sorted(outcomes) == list(range(10, 20))
    for seed in (10, 17):
        assert outcomes[seed] == play(find(target("passes")), seed).outcome()


def test_failing_seeds_are_told_and_what_scenarios_print_is_not(
    target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = by_seed(list(Sweep(target("fails"), range(6), jobs=2)))
    assert [seed for seed, outcome in sorted(outcomes.items()) if outcome.error] == [1, 4]
    assert capfd.readouterr() == ("", "")


def test_a_process_that_dies_is_the_outcome_of_its_seed_and_the_others_are_played(target: Target) -> None:
    outcomes = by_seed(list(Sweep(target("dies"), range(6), jobs=2)))
    assert {seed: outcome.error for seed, outcome in outcomes.items() if outcome.error} == {
        1: "the process that played it died: killed by SIGKILL",
        2: "the process that played it died: exit code 7",
    }
    assert sorted(outcomes) == list(range(6))


def test_a_process_is_replaced_before_much_can_pile_up_in_it(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "SEEDS_PER_PROCESS", 2)
    outcomes = list(Sweep(target("tells_its_process"), range(5)))
    assert len({outcome.first_line for outcome in outcomes}) == 3


def test_leaving_a_sweep_early_ends_its_processes(target: Target) -> None:
    sweep = Sweep(target("passes"), range(1_000_000), jobs=2)
    outcomes = iter(sweep)
    next(outcomes)
    assert len(multiprocessing.active_children()) == 2
    assert sweep.playing
    outcomes.close()  # type: ignore[attr-defined]  # a generator, which a `for` that is left closes
    assert multiprocessing.active_children() == []


def test_a_seed_that_never_ends_has_failed_after_a_while_and_the_others_are_played(target: Target) -> None:
    outcomes = by_seed(list(Sweep(target("waits_busily"), range(5), jobs=2, limit_s=2.0)))
    hung = {seed: outcome.error for seed, outcome in outcomes.items() if outcome.error}
    assert hung == dict.fromkeys((1, 4), "it had not ended after 2 s")
    assert sorted(outcomes) == list(range(5))
    assert multiprocessing.active_children() == []
    with pytest.raises(ValueError, match="limit_s=0"):
        Sweep(target("passes"), range(3), limit_s=0)


def test_a_sweep_without_a_scenario_or_a_process_is_refused(target: Target) -> None:
    with pytest.raises(ScenarioError, match="has no 'nothing'"):
        list(Sweep(target("nothing"), range(3)))
    assert multiprocessing.active_children() == []
    with pytest.raises(ValueError, match="jobs=0 plays nothing"):
        Sweep(target("passes"), range(3), jobs=0)


def test_a_script_that_starts_a_sweep_needs_no_guard(target: Target, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"from rpcfw.testing.seeds import Sweep\nprint(len(list(Sweep({target('passes')!r}, range(3)))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


# ------------------------------------------------------------------------------------------------ the same twice


def test_two_hundred_scenarios_run_the_same_in_two_processes_and_each_seed_differs() -> None:
    outcomes = check_same(TWO_SERVERS, *range(200))
    assert [outcome.first_line for outcome in outcomes if outcome.error] == []
    assert len({outcome.digest for outcome in outcomes}) == 200


def test_a_run_that_depends_on_the_hashes_of_strings_is_told_with_the_first_difference(
    target: Target,
) -> None:
    with pytest.raises(Different, match=r"seed 4 of .* gave two different runs") as caught:
        check_same(target("lists_a_set"), 4)
    _, one, other, _ = str(caught.value).splitlines()
    assert one != other
    assert sorted(one.split()) == sorted(other.split())


def test_a_run_that_depends_on_the_ones_before_is_told(target: Target) -> None:
    with pytest.raises(Different, match="state of the process outlives a run"):
        check_same(target("counts"), 0, 1)


def test_a_process_that_dies_leaves_nothing_to_compare(target: Target) -> None:
    with pytest.raises(Different, match=r"seed 3 of .* leaves nothing to compare: .* exit code 7"):
        check_same(target("dies_once"), 3)
    assert multiprocessing.active_children() == []
