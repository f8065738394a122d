"""How far a run is, on standard error: a bar with what runs and the time left, or a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import rich.console
import rich.progress

_LINE_EVERY_S = 10.0


class Bar:
    """Drawn between the samples only, so that it takes no time from what is measured."""

    def __init__(self) -> None:
        self._console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.description}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._total = self._done = 0.0
        self._started = time.monotonic()
        self._told = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def plan(self, seconds: float) -> None:
        """About how long all takes."""
        self._total = seconds
        self._bar.update(self._task, total=seconds)

    def show(self, what: str) -> None:
        """What runs now."""
        elapsed = time.monotonic() - self._started
        pace = elapsed / self._done if self._done else 1.0  # the plan is an estimate, mended as it goes
        left = max(0.0, self._total - self._done) * pace
        text = f"{int(left // 60)}:{int(left % 60):02d} left  {what}"
        if self._console.is_terminal:
            self._bar.update(self._task, description=text, refresh=True)
        elif elapsed - self._told >= _LINE_EVERY_S or not self._told:
            self._told = elapsed or _LINE_EVERY_S
            share = self._done / self._total if self._total else 0.0
            print(f"{share:4.0%}  {text}", file=sys.stderr, flush=True)

    def advance(self, seconds: float) -> None:
        """So much of the plan is done."""
        self._done += seconds
        self._bar.update(self._task, completed=self._done)
