"""What every test gets: a choice of event loops, a guard against hangs, a check that no task is left behind.

Only what is true of the whole suite lives here; a fixture of one area belongs to that area's own conftest.
The check for left tasks is trio's nursery rule, applied from outside: what a test starts ends before it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import hypothesis
import pytest
import pytest_asyncio
import uvloop

TESTS = Path(__file__).parent
BOTH_LOOPS = frozenset({"calls"})
"""Folders of tests/ whose async tests run on asyncio and on uvloop without being marked."""
TIME_LIMIT_S = 60.0
"""A test that takes longer hangs. Generous: it must not fail a slow machine, only end what would not end."""
GRACE_S = 30.0
"""What a hung test gets on top to end in, before the run does: C code that hangs is beyond an exception's reach."""
TURNS_TO_SETTLE = 10
"""Turns of the loop that cancelled tasks and collected generators get to finish in."""

# The time of a property test depends on the machine: no deadline. A failure prints how to replay it.
hypothesis.settings.register_profile("rpcfw", deadline=None, print_blob=True)
hypothesis.settings.load_profile("rpcfw")

real_stderr = pytest.StashKey[int]()
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The loops an async test runs on: uvloop's too when it is marked, or in a folder of `BOTH_LOOPS`."""
    in_folder = item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).parts[0] in BOTH_LOOPS
    marked = item.get_closest_marker("both_loops") is not None
    if (marked or in_folder) and item.get_closest_marker("one_loop") is None:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    """Keep a descriptor that capturing does not reach, for the last words of a run that hangs."""
    config.stash[real_stderr] = os.dup(2)
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in the background of a shell; processes inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    os.close(config.stash[real_stderr])


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Guard the teardown of a test that failed: pytest has just called off every faulthandler timer, for a debugger."""
    if isinstance(node, pytest.Item):
        faulthandler.dump_traceback_later(GRACE_S, file=node.config.stash[real_stderr], exit=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fail a test that hangs, with the stacks of its threads and tasks, and go on with the next one."""
    marker = item.get_closest_marker("time_limit")
    limit_s = float(marker.args[0]) if marker is not None else TIME_LIMIT_S
    stderr = item.config.stash[real_stderr]
    cancelled = False

    def end_it(signum: int, frame: FrameType | None) -> None:
        nonlocal cancelled
        message = f"hung: not over after {limit_s:g} s"
        faulthandler.dump_traceback(file=2, all_threads=True)  # captured, so shown with the test
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or (cancelled and asyncio.current_task() is not None):
            pytest.fail(message)  # plain code, or a task that blocks and so cannot be cancelled
        # Raised while a loop turns, an exception may be lost in its machinery; cancelling is not.
        for task in asyncio.all_tasks(loop):
            task.print_stack()
            task.cancel(message)
        loop.call_soon_threadsafe(lambda: None)
        cancelled = True

    before = signal.signal(signal.SIGALRM, end_it)
    # Again every five seconds: a task may block, or swallow its cancellation, and a fixture may hang after the test.
    signal.setitimer(signal.ITIMER_REAL, limit_s, 5.0)
    faulthandler.dump_traceback_later(limit_s + GRACE_S, file=stderr, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def leave_no_task_behind(request: pytest.FixtureRequest) -> None:
    """Check each async test's loop once the test and its own fixtures are over."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_loop_left_empty")  # set up first, so torn down last


@pytest_asyncio.fixture
async def _loop_left_empty() -> AsyncIterator[None]:
    yield
    turns = 0
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        if turns == TURNS_TO_SETTLE:
            names = "\n".join(f"  {task!r}" for task in left)
            pytest.fail(
                f"{len(left)} task(s) left behind; cancel and await, or close, their owners:\n{names}"
            )
        turns += 1
        await asyncio.sleep(0)
