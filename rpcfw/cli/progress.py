"""A line on stderr that says how far a command is: rewritten in a terminal, else repeated now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rpcfw.cli.output import say

LOG_S = 10.0
"""How often it is told to a file, which keeps every line."""


class ProgressLine:
    """Where progress is shown.

    Args:
        every_s: how often a terminal's line is rewritten at most.
        began_s: by the clock; now unless given.
        clock: seconds, never going back.
    """

    def __init__(
        self, every_s: float, began_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self.every_s = every_s if self._terminal else LOG_S
        self._told_s = clock() if began_s is None else began_s
        self._shown = 0

    def due(self) -> bool:
        """Whether it is time for a new line; then the next one is due later."""
        now_s = self._clock()
        if now_s - self._told_s < self.every_s:
            return False
        self._told_s = now_s
        return True

    def show(self, line: str) -> None:
        """Show this in the place of what was shown before."""
        if self._terminal:
            print(f"\r{line:<{self._shown}}", end="", file=sys.stderr, flush=True)
            self._shown = len(line)
        else:
            say(line)

    def clear(self) -> None:
        """Wipe the line away, before something else is said."""
        if self._shown:
            print(f"\r{'':<{self._shown}}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0
