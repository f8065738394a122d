"""An event loop on which waiting takes no time: when nothing is ready, its clock jumps to the next timer.

For tests of deadlines, keepalive, idle and age limits and backoff, over ``mem://``; sockets have no place here, for
the clock does not wait for them. After trio's MockClock with autojump, and the simulation loop of FoundationDB.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")

START_S = 1_000.0
"""Where the clock begins. Not zero: zero hides who forgets to ask for the time."""
LIMIT_S = 86_400.0
"""A test whose clock runs longer waits for something that never happens, with a periodic timer beside it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop with another clock. `turns` counts how often it has turned."""

    def __init__(self) -> None:
        self._now = START_S
        self.turns = 0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass at once. Raises RuntimeError when it has passed for too long."""
        self._now += seconds
        if self._now > START_S + LIMIT_S:
            raise RuntimeError(
                f"{LIMIT_S:.0f} s of virtual time have passed: the test waits for what never happens"
            )


class _Jumping(selectors.DefaultSelector):
    """Looks for what is ready, and instead of waiting lets the loop's clock jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turns += 1
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise RuntimeError("every task waits and there is no timer: nothing will ever happen")
        self._loop.jump(timeout)
        return ready


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of virtual time, and check that it leaves no task behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_and_nothing_left(test(*args, **kwargs)))

    return run


async def _and_nothing_left(test: Coroutine[Any, Any, None]) -> None:
    await test
    for _ in range(10):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


def turns() -> int:
    """How often the running loop has turned. Raises TypeError on a loop of real time."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError(f"{loop!r} does not count its turns; mark the test with @virtual_time")
    return loop.turns


def now() -> float:
    """Seconds of virtual time since the test began."""
    return asyncio.get_running_loop().time() - START_S
