"""The pytest plugin: tests that are scenarios, played with many seeds, and fixtures for services without a network.

An async test that takes `simulation` is a scenario and runs on a simulated cluster; one that takes `virtual_clock` runs
on a loop in virtual time. For pytest and its other plugins both are plain tests.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from rpcfw import Client
    from rpcfw.testing.fake_registry import FakeRegistry
    from rpcfw.testing.simulation import Simulation
    from rpcfw.testing.virtual_clock import VirtualClock

TIMELINE_LINES = 200
"""How much of the timeline a failure shows: its end, where it failed."""

InMemory: TypeAlias = "Callable[..., AbstractAsyncContextManager[Client]]"

_SIMULATION, _CLOCK = "simulation", "virtual_clock"
_MARK = "seeds"
_played = pytest.StashKey["Simulation"]()
"""The simulation that a test has played last."""


# ------------------------------------------------------------------------------------------------ settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for seeds."""
    group = parser.getgroup("rpcfw", "simulated clusters")
    group.addoption(
        "--rpcfw-seeds",
        type=int,
        metavar="N",
        help="play tests marked `seeds` with N seeds each, whatever they say",
    )
    group.addoption(
        "--rpcfw-seed", type=int, metavar="SEED", help="play tests that take a simulation with this one seed"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and refuse a number of seeds that would test nothing."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(count, first=0): play this test, which takes `{_SIMULATION}`, once with each of so many seeds",
    )
    count: int | None = config.getoption("rpcfw_seeds")
    if count is not None and count < 1:
        raise pytest.UsageError(f"--rpcfw-seeds {count} plays nothing: give at least 1")


def _seeds_of(item: pytest.Item) -> Sequence[int]:
    """The seeds that a test is to be played with."""
    only: int | None = item.config.getoption("rpcfw_seed")
    if only is not None:
        return [only]
    mark = item.get_closest_marker(_MARK)
    if mark is None:
        return [0]
    try:
        count, first = _read(*mark.args, **mark.kwargs)
    except TypeError:
        count, first = 0, 0
    if count < 1:
        pytest.fail(
            f"{mark} plays nothing; write @pytest.mark.{_MARK}(100) or @pytest.mark.{_MARK}(100, first=5000)",
            pytrace=False,
        )
    count = item.config.getoption("rpcfw_seeds") or count
    return range(first, first + count)


def _read(count: int, first: int = 0) -> tuple[int, int]:
    return int(count), int(first)


# ------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture
def rpcfw_memory() -> InMemory:
    """What serves implementations in memory and gives a client of them, entered with ``async with``: `in_memory`."""
    from rpcfw.testing.memory import in_memory

    return in_memory


@pytest.fixture
def rpcfw_registry() -> FakeRegistry:
    """Gives registries in memory that share a store: call it once for each server, client or simulated host."""
    from rpcfw.testing.fake_registry import FakeRegistry

    return FakeRegistry()


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """A simulated cluster that has not run yet, with the seed of ``--rpcfw-seed`` or 0.

    An async test that takes it is a scenario: it runs on the cluster. One marked `seeds` gets a new cluster for each.
    """
    item: pytest.Function = request.node
    if _makes_its_own(item):
        _refuse_others(item)
        yield None  # type: ignore[misc]  # the test is given others
        return
    from rpcfw.testing.simulation import Simulation

    made = item.stash[_played] = Simulation(_seeds_of(item)[0])
    yield made
    if not made.loop.is_closed():
        made.loop.finish()


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> Iterator[VirtualClock]:
    """Time that takes no time: an async test that takes it runs in that time, another one calls its `run`."""
    from rpcfw.testing.virtual_clock import VirtualClock

    clock = VirtualClock(_seeds_of(request.node)[0])
    yield clock
    clock.close()


def _refuse_others(item: pytest.Function) -> None:
    """Another fixture would keep the cluster of one seed."""
    definitions: Mapping[str, Sequence[Any]] = item._fixtureinfo.name2fixturedefs
    others = [name for name, found in definitions.items() if found and _SIMULATION in found[-1].argnames]
    if others:
        pytest.fail(
            f"the fixture {others[0]!r} takes {_SIMULATION!r}, and this test is given a new one for each seed: make "
            "that fixture a function which the test calls",
            pytrace=False,
        )


# ------------------------------------------------------------------------------------------------ collection


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:
    """Hide from other plugins that a simulated test is async: they would give it loops of theirs."""
    _take_over(metafunc.definition)
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """The same for what becomes of it; last, so that other plugins see it done."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function):
            _take_over(item)
    return made


def _take_over(item: pytest.Function) -> None:
    """Make a plain function of a simulated test."""
    test = item.obj
    if _makes_its_own(item):
        play = functools.partial(_play_seeds, item, test)
    elif inspect.iscoroutinefunction(test) and _takes(test, _CLOCK):
        play = functools.partial(_play_in_time, test)
    else:
        return

    @functools.wraps(test)
    def played(**arguments: Any) -> None:
        play(arguments)

    played.__dict__["rpcfw_test"] = test
    item.obj = played


def _makes_its_own(item: pytest.Function) -> bool:
    """Whether a test is played by this plugin, which makes the simulations it is given."""
    test = getattr(item.obj, "rpcfw_test", item.obj)
    marked = item.get_closest_marker(_MARK) is not None
    return (marked or inspect.iscoroutinefunction(test)) and _takes(test, _SIMULATION)


def _takes(test: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(test).parameters


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a mark that would do nothing."""
    useless = any(mark.name == _MARK for mark in item.own_markers)
    if useless and isinstance(item, pytest.Function) and not _makes_its_own(item):
        pytest.fail(f"a test marked {_MARK!r} has to take the fixture {_SIMULATION!r}", pytrace=False)


# ------------------------------------------------------------------------------------------------ running


def _play_in_time(test: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    clock: VirtualClock = arguments[_CLOCK]
    clock.run(lambda: test(**arguments))


def _play_seeds(item: pytest.Function, test: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Play a test with one seed after the other, until one fails."""
    from rpcfw.testing.scenario import many_runs

    seeds = _seeds_of(item)
    with many_runs() as tidy:
        for number, seed in enumerate(seeds):
            try:
                _play(item, test, arguments, seed)
            except (pytest.skip.Exception, KeyboardInterrupt):
                raise
            except BaseException as error:
                error.add_note(
                    f"seed {seed}, after {number} that passed; to replay it: {_command(item, seed)}"
                )
                raise
            del item.stash[_played]
            if len(seeds) > 1:
                tidy()


def _play(item: pytest.Function, test: Callable[..., Any], arguments: Mapping[str, Any], seed: int) -> None:
    from rpcfw.testing.simulation import Simulation
    from rpcfw.testing.virtual import steady_garbage

    with steady_garbage():
        simulation = item.stash[_played] = Simulation(seed)
        given = {**arguments, _SIMULATION: simulation}
        if inspect.iscoroutinefunction(test):
            simulation.run(lambda _: test(**given))
            return
        try:
            test(**given)
        finally:
            if not simulation.loop.is_closed():
                simulation.loop.finish()


def _command(item: pytest.Item, seed: int) -> str:
    return f"pytest {shlex.quote(item.nodeid)} --rpcfw-seed {seed}"


# ------------------------------------------------------------------------------------------------ reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the seed and the timeline to the report of a failure."""
    report = yield
    played = item.stash.get(_played, None)
    if call.when == "call" and report.failed and played is not None:
        from rpcfw.testing.timeline import as_text

        told = f"seed {played.seed}; to replay it: {_command(item, played.seed)}\n\n"
        faults = played.faults()
        if faults:
            told += f"faults:\n{faults}\n\n"
        report.sections.append(("rpcfw simulation", told + as_text(played.trace, last=TIMELINE_LINES)))
    if call.when == "teardown" and played is not None:
        del item.stash[_played]
    return report
