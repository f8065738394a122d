"""What the demo shows while it runs: a live table on a terminal; elsewhere a line for each thing as it happens.

Layout only. Nothing that makes a terminal move is written to what is none.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples.search.fleet import Fleet, Row
from examples.search.timeline import Entry, Kind, Timeline
from examples.search.traffic import Traffic

_REDRAW_S = 0.2
_LAST_ENTRIES = 8
_WIDE = 96
"""From so many columns on there is room for whole addresses."""
_STYLES = {"up": "green", "closed": "green", "-": "dim", "draining": "yellow", "half-open": "yellow"}
_KIND_STYLES = {Kind.PART: "bold", Kind.DEED: "", Kind.NOTICE: "dim"}


@contextlib.asynccontextmanager
async def screen(console: Console, timeline: Timeline, fleet: Fleet, traffic: Traffic) -> AsyncIterator[None]:
    """Show how all goes until leaving; the last picture stays."""
    if not console.is_terminal or console.is_dumb_terminal:
        timeline.on_entry(lambda entry: console.print(_line(entry), soft_wrap=True))
        yield
        return
    with Live(console=console, auto_refresh=False) as live:

        def redraw() -> None:
            live.update(_picture(console.width, timeline, fleet.rows(traffic), traffic), refresh=True)

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


def _picture(width: int, timeline: Timeline, rows: Sequence[Row], traffic: Traffic) -> Group:
    heading = Text.assemble((f"{timeline.elapsed_s:6.1f} s  ", "dim"), (timeline.part, "bold"))
    answered = sum(row.calls for row in rows)
    counts = Text.assemble(
        f"  {traffic.calls:,} calls, {answered:,} in the last second; asked again by the caller: "
        f"{traffic.asked_again:,}; ",
        (f"failed: {traffic.failed:,}", "bold red" if traffic.failed else "bold green"),
    )
    last = [entry for entry in timeline.entries if entry.kind is not Kind.PART][-_LAST_ENTRIES:]
    lines = [_line(entry) for entry in last] + [Text() for _ in range(_LAST_ENTRIES - len(last))]
    for line in (heading, counts, *lines):
        line.truncate(width, overflow="ellipsis")
        line.no_wrap = True
    return Group(Text(), heading, Text(), _table(width, rows), Text(), counts, Text(), *lines)


def _table(width: int, rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "pid", "address" if width >= _WIDE else "port", "state", "breaker"):
        table.add_column(heading, no_wrap=True)
    for heading in ("in\nflight", "calls\n/s", "share\n%", "latency\nms", "run-\nning", "lag\nms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        address = row.address if width >= _WIDE else row.address.rpartition(":")[2]
        table.add_row(
            row.name,
            str(row.pid),
            Text(f"{address or '-':<{21 if width >= _WIDE else 5}}"),
            Text(f"{row.state:<8}", _STYLES.get(row.state, "red")),
            Text(f"{row.breaker:<9}", _STYLES.get(row.breaker, "red")),
            str(row.in_flight),
            str(row.calls),
            f"{row.share * 100:.0f}",
            _ms(row.latency_ms),
            "-" if row.running is None else str(row.running),
            "-" if row.lag_ms is None else _ms(row.lag_ms),
        )
    return table


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _line(entry: Entry) -> Text:
    if entry.kind is Kind.PART:
        return Text(f"\n{entry.at_s:6.1f} s  {entry.text}", _KIND_STYLES[entry.kind])
    sign = "." if entry.kind is Kind.NOTICE else ">"
    return Text(f"{entry.at_s:6.1f} s  {sign} {entry.text}", _KIND_STYLES[entry.kind])
