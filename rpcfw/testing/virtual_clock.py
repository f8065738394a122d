"""A clock for tests that wait: on its loop a sleep of an hour takes no time, and no timeout fires by accident.

No network and no hosts: what needs these takes a `Simulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rpcfw.testing.clock import START_S
from rpcfw.testing.loop import SimLoop
from rpcfw.testing.virtual import steady_garbage

T = TypeVar("T")


class VirtualClock:
    """Time that passes only by being waited for.

    Args:
        seed: of the chance that rpcfw draws on the loop, such as that of retries.
    """

    def __init__(self, seed: int = 0) -> None:
        self.loop = SimLoop(seed)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the clock was made, all of them virtual."""
        return self.loop.global_time() - START_S

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function in this time. May be called again; time goes on from where it was.

        Raises:
            Stuck: it waits for what never happens.
        """
        with steady_garbage():
            return self.loop.run_until_complete(main())

    def close(self) -> None:
        """End what is left on the loop, and close it."""
        if not self.loop.is_closed():
            self.loop.finish()
