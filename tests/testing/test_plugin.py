"""The pytest plugin as its users have it: sessions of their own, with pytest-asyncio beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
addopts = --strict-markers -p no:cacheprovider
filterwarnings = error
"""
SERVICE = """
import asyncio
import pytest
import rpcfw

@rpcfw.service("test.Greeter")
class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"
"""

Session = Callable[..., pytest.RunResult]


@pytest.fixture
def session(pytester: pytest.Pytester) -> Session:
    """Runs a file of tests, with pytest-asyncio in auto mode unless told otherwise."""

    def run(tests: str, *options: str, mode: str = "auto") -> pytest.RunResult:
        pytester.makeini(INI.format(mode=mode))
        pytester.makepyfile(test_it=f"{SERVICE}\n{tests}")
        return pytester.runpytest_inprocess(*options)

    return run


# ------------------------------------------------------------------------------------------------ seeds

MANY = """
played = []

@pytest.mark.seeds(5, first=10)
async def test_many(simulation):
    await asyncio.sleep(86_000)
    played.append(simulation.seed)

def test_which():
    print(f"played {played}")
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
@pytest.mark.parametrize(
    ("options", "played"),
    [
        ([], [10, 11, 12, 13, 14]),
        (["--rpcfw-seeds", "2"], [10, 11]),
        (["--rpcfw-seed", "417"], [417]),
    ],
)
def test_a_marked_test_is_played_with_each_of_its_seeds_or_as_the_options_say(
    session: Session, options: list[str], played: list[int], mode: str
) -> None:
    result = session(MANY, "-s", *options, mode=mode)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"*played {str(played).replace('[', '[[]')}"])


FAILS = """
@pytest.mark.seeds(50)
async def test_fails(simulation):
    for number in range(300):
        simulation.record("step", "orders", str(number))
    await asyncio.sleep(1)
    assert simulation.seed != 7
"""


@pytest.mark.parametrize("options", [[], ["--show-capture=no"]])
def test_a_failure_names_the_seed_and_the_command_that_replays_it(
    session: Session, options: list[str]
) -> None:
    result = session(FAILS, *options)
    result.assert_outcomes(failed=1)
    replay = "to replay it: pytest test_it.py::test_fails --rpcfw-seed 7"
    result.stdout.fnmatch_lines(
        [">*assert simulation.seed != 7", "E*assert 7 != 7", f"E*seed 7, after 7 that passed; {replay}"]
    )


def test_a_failure_shows_the_end_of_the_timeline_of_its_seed(session: Session) -> None:
    result = session(FAILS)
    result.stdout.fnmatch_lines(
        ["*- rpcfw simulation -*", "*100 earlier events*", "*step: 100", "*step: 299"]
    )
    result.stdout.no_fnmatch_line("*step: 99")


def test_a_failure_shows_the_faults_that_were_injected(session: Session) -> None:
    result = session(
        """
from rpcfw.testing import Schedule

async def test_fails(simulation):
    simulation.host("orders", lambda host: asyncio.sleep(100))
    await simulation.inject(Schedule.parse("1 s  pause  orders  for 2 s"))
    assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["faults:", "1 s  pause  orders  for 2 s", "*orders pause"])


def test_a_plain_test_that_is_marked_runs_the_simulation_itself(session: Session) -> None:
    result = session(
        """
@pytest.mark.seeds(5)
def test_plain(simulation):
    async def scenario(simulation):
        await asyncio.sleep(5)
        return simulation.seed
    assert simulation.run(scenario) != 3
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*seed 3, after 3 that passed;*"])


def test_marked_methods_have_their_instance_parameters_and_other_fixtures(session: Session) -> None:
    result = session(
        """
class TestIt:
    def setup_method(self):
        self.prepared = True

    @pytest.mark.seeds(3)
    @pytest.mark.parametrize("number", [1, 2])
    async def test_it(self, simulation, number, tmp_path):
        assert self.prepared and number and tmp_path.exists()
        await asyncio.sleep(1)
"""
    )
    result.assert_outcomes(passed=2)


def test_a_skip_within_a_seed_skips_the_test(session: Session) -> None:
    result = session("@pytest.mark.seeds(3)\nasync def test_it(simulation):\n    pytest.skip('not here')\n")
    result.assert_outcomes(skipped=1)


@pytest.mark.parametrize(
    ("mark", "takes", "problem"),
    [
        ("@pytest.mark.seeds(3)", "", "a test marked 'seeds' has to take the fixture 'simulation'"),
        ("@pytest.mark.seeds(0)", "simulation", "*plays nothing; write @pytest.mark.seeds(100)*"),
        ("@pytest.mark.seeds()", "simulation", "*plays nothing; write @pytest.mark.seeds(100)*"),
        ("@pytest.mark.seeds(3)", "simulation, cluster", "*fixture 'cluster' takes 'simulation'*"),
    ],
)
def test_a_mark_that_would_test_nothing_is_refused(
    session: Session, mark: str, takes: str, problem: str
) -> None:
    fixture = "@pytest.fixture\ndef cluster(simulation): return simulation.host('a')\n"
    result = session(f"{fixture}{mark}\ndef test_it({takes}): pass\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([problem])


def test_no_seeds_at_all_are_refused(session: Session) -> None:
    result = session(MANY, "--rpcfw-seeds", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--rpcfw-seeds 0 plays nothing*"])


# ------------------------------------------------------------------------------------------------ fixtures


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_an_async_test_that_takes_a_simulation_is_a_scenario(session: Session, mode: str) -> None:
    result = session(
        """
async def test_it(simulation):
    async def serve(host):
        async with rpcfw.serve(Greeter(), listen="tcp://0.0.0.0:7000", limits=rpcfw.Limits(block_threshold_s=None)):
            await asyncio.Event().wait()
    simulation.host("greeter", serve)
    async with rpcfw.connect("tcp://greeter:7000") as client:
        assert await client.stub(Greeter).hello("Ada") == "Hello, Ada!"
    assert 0 < simulation.elapsed_s < 1
""",
        mode=mode,
    )
    result.assert_outcomes(passed=1)


def test_a_plain_test_gets_a_simulation_that_has_not_run(session: Session) -> None:
    result = session(
        """
def test_it(simulation):
    async def scenario(simulation):
        simulation.record("step", "orders", "the last")
        await asyncio.sleep(5)
    simulation.run(scenario)
    assert simulation.elapsed_s == 6

def test_unused(simulation):
    assert simulation.elapsed_s == 0
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["seed 0; to replay it:*", "*orders note: step: the last"])


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_an_async_test_that_takes_the_virtual_clock_waits_in_no_time(session: Session, mode: str) -> None:
    result = session(
        """
async def test_it(virtual_clock, rpcfw_memory):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    assert virtual_clock.elapsed_s == 3600
    async with rpcfw_memory(Greeter()) as client:
        assert await client.stub(Greeter).hello("Ada") == "Hello, Ada!"

def test_plain(virtual_clock):
    virtual_clock.run(lambda: asyncio.sleep(5))
    virtual_clock.run(lambda: asyncio.sleep(5))
    assert virtual_clock.elapsed_s == 10
""",
        mode=mode,
    )
    result.assert_outcomes(passed=2)


def test_what_a_test_leaves_on_the_virtual_clock_is_ended(session: Session) -> None:
    result = session(
        """
async def lasts():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(3600)
        print("ended")

async def test_it(virtual_clock):
    left = asyncio.create_task(lasts())
    await asyncio.sleep(1)
""",
        "-s",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*ended"])


def test_a_service_in_memory_runs_on_the_loop_of_the_test(session: Session) -> None:
    result = session(
        """
async def test_it(rpcfw_memory):
    async with rpcfw_memory(Greeter()) as client:
        assert await client.stub(Greeter).hello("Ada") == "Hello, Ada!"
    assert asyncio.all_tasks() == {asyncio.current_task()}
"""
    )
    result.assert_outcomes(passed=1)


# ------------------------------------------------------------------------------------------------ the fake registry


def test_registries_of_a_test_see_each_other_and_those_of_another_seed_do_not(session: Session) -> None:
    result = session(
        """
from rpcfw import Endpoint
from rpcfw.registry import Registration

ORDERS = Registration("shop.Orders", Endpoint.parse("tcp://orders:7000"))

async def serve(host, registry):
    async with registry().register(ORDERS):
        await asyncio.Event().wait()

@pytest.mark.seeds(3)
async def test_simulated(simulation, rpcfw_registry):
    seen = rpcfw_registry()
    assert await seen.services() == frozenset()
    orders = simulation.host("orders", lambda host: serve(host, rpcfw_registry))
    await asyncio.sleep(1)
    assert await seen.services() == {"shop.Orders"}
    orders.crash()
    await asyncio.sleep(1)
    assert await seen.services() == {"shop.Orders"}
    await asyncio.sleep(10)
    assert await seen.services() == frozenset()

async def test_real(rpcfw_registry):
    one, other = rpcfw_registry(), rpcfw_registry()
    async with one.register(ORDERS):
        assert await other.services() == {"shop.Orders"}
        rpcfw_registry.store.stop()
        with pytest.raises(rpcfw.RpcError):
            await other.services()
        rpcfw_registry.store.start()
    assert await other.services() == frozenset()
"""
    )
    result.assert_outcomes(passed=2)


# ------------------------------------------------------------------------------------------------ beside others


def test_other_async_tests_stay_with_pytest_asyncio(session: Session) -> None:
    result = session(
        """
@pytest.fixture
async def loop_of_fixture():
    return asyncio.get_running_loop()

async def test_it(loop_of_fixture):
    assert loop_of_fixture is asyncio.get_running_loop()
    assert type(loop_of_fixture).__module__.startswith("asyncio")

@pytest.mark.parametrize("number", [1, 2])
async def test_parameters(number):
    await asyncio.sleep(0)
"""
    )
    result.assert_outcomes(passed=3)


def test_a_simulated_test_is_not_run_once_per_loop_of_pytest_asyncio(
    session: Session, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        "import asyncio\n"
        "def pytest_asyncio_loop_factories(config, item):\n"
        "    return {'one': asyncio.new_event_loop, 'two': asyncio.new_event_loop}\n"
    )
    result = session("async def test_it(simulation): pass\nasync def test_other(): pass\n", "-v")
    result.assert_outcomes(passed=3)


def test_the_plugin_imports_neither_the_command_line_nor_what_plays_scenarios() -> None:
    code = """if True:
        import sys
        import rpcfw.testing.plugin
        names = {"typer", "rich", "rpcfw.cli", "rpcfw.testing.seeds", "rpcfw.testing.scenario"}
        print(sorted(names & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_help_of_pytest_shows_options_and_the_mark(session: Session) -> None:
    result = session("", "--help")
    assert re.search(r"--rpcfw-seeds=?\s?N", result.stdout.str())
    result = session("", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.seeds(count, first=0): *"])
