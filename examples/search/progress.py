"""Bars that move while the demo works, on a terminal; elsewhere nothing, and nothing of what makes a terminal move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

Look = Callable[[], tuple[float, float | None, str]]
"""How far something is: what is done, of how much (None while unknown), and a note to stand beside the bar."""

_REDRAW_S = 0.1


@contextlib.asynccontextmanager
async def bars(console: Console, looks: Mapping[str, Look]) -> AsyncIterator[None]:
    """A bar for each look, kept true until leaving; the bars then stay as they are."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    columns = (TextColumn("  {task.description}"), BarColumn(20), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        tasks = {progress.add_task(name, total=None, note=""): look for name, look in looks.items()}

        def redraw() -> None:
            for task, look in tasks.items():
                done, total, note = look()
                progress.update(task, completed=done, total=total, note=note)

        async def keep_redrawing() -> None:
            while True:
                redraw()
                await asyncio.sleep(_REDRAW_S)

        redrawing = asyncio.create_task(keep_redrawing())
        try:
            yield
        finally:
            redrawing.cancel()
            redraw()
