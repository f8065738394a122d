"""`rpcfw services`: who provides what, as a table, as one that lives, or as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rpcfw.cli.census import Entry, LiveCensus, census
from rpcfw.cli.output import CommandError, Exit, put, put_table, say, table_of, to_json
from rpcfw.cli.places import shown
from rpcfw.cli.reach import opened
from rpcfw.errors import Code, RpcError
from rpcfw.transport import Transport

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = (
    *(
        "SERVICE",
        "VERSION",
        "ADDRESS",
        "HEALTH",
        "RUNNING",
        "LAG",
        "WEIGHT",
        "LABELS",
        "INSTANCE",
        "UP SINCE",
    ),
    "NOTE",
)
_SPARED = ("INSTANCE", "UP SINCE", "WEIGHT", "LABELS", "VERSION")
"""Left out where the terminal is narrow, in this order."""
_GAP = 3
_NOTE_WIDTH = 40
"""What is kept for reasons, where there are any."""
_LONGEST = 60
"""Characters of a cell; what comes from a network may be of any length."""


def show(
    url: str,
    names: Sequence[str],
    *,
    as_json: bool,
    timeout_s: float,
    transports: Mapping[str, Transport] | None = None,
) -> None:
    """Print who provides what, once."""

    async def take() -> list[Entry]:
        registry = opened(url)
        try:
            return await census(registry, names, timeout_s, shown(url), transports)
        finally:
            await registry.close()

    try:
        entries = asyncio.run(take())
    except RpcError as error:
        raise _named(error, url) from error
    if as_json:
        put(to_json([entry.document() for entry in entries]))
    elif entries:
        put_table(*_table(entries))
    else:
        say(_nothing(url, names))


def watch_on(
    url: str,
    names: Sequence[str],
    *,
    as_json: bool,
    timeout_s: float,
    transports: Mapping[str, Transport] | None = None,
) -> None:
    """Go on printing who provides what, as it changes, until interrupted."""
    try:
        asyncio.run(_watch_on(url, names, as_json, timeout_s, transports))
    except RpcError as error:
        raise _named(error, url) from error


async def _watch_on(
    url: str,
    names: Sequence[str],
    as_json: bool,
    timeout_s: float,
    transports: Mapping[str, Transport] | None,
) -> None:
    registry = opened(url)
    try:
        async with LiveCensus(registry, names, timeout_s, shown(url), transports) as live:
            screen = _json_lines if as_json else _on_terminal if sys.stdout.isatty() else _on_change
            await screen(live, url, names)
    finally:
        await registry.close()


async def _json_lines(live: LiveCensus, url: str, names: Sequence[str]) -> None:
    async for entries in live:
        put(to_json([entry.document() for entry in entries]))


async def _on_change(live: LiveCensus, url: str, names: Sequence[str]) -> None:
    """For a file or a pipe: the table anew when anything but a load has changed."""
    told: object = None
    async for entries in live:
        known = [(entry.registration, entry.health, entry.reason) for entry in entries]
        if (known, live.problem, live.silent) == told:
            continue
        told = known, live.problem, live.silent
        put(f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {_state(live, url)}")
        if entries:
            put_table(*_table(entries))
        elif not live.silent:
            put(_nothing(url, names))


async def _on_terminal(live: LiveCensus, url: str, names: Sequence[str]) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as screen:
        async for entries in live:
            parts: list[RenderableType] = [table_of(*_table(entries))]
            if not entries:
                parts = [Text(_state(live, url) if live.silent else _nothing(url, names))]
            parts.append(Text(_footing(live, url, entries)))
            screen.update(Group(*parts), refresh=True)


def _state(live: LiveCensus, url: str) -> str:
    """The registry, and what keeps it from telling."""
    if live.problem:
        return f"{shown(url)} cannot be asked: {live.problem}"
    return f"{shown(url)} has not answered yet" if live.silent else shown(url)


def _footing(live: LiveCensus, url: str, entries: Sequence[Entry]) -> str:
    servers = len({entry.registration.endpoint.address for entry in entries})
    time = f"{datetime.datetime.now().astimezone():%H:%M:%S}"
    return (
        f"\n{time}  {shown(url)}  {servers} servers{'  ' + live.problem if live.problem else ''}  Ctrl-C ends"
    )


def _table(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, of so many columns as the terminal has room for."""
    columns = [list(column) for column in zip(HEADERS, *(_row(entry) for entry in entries), strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    note = min(_NOTE_WIDTH, max(map(len, columns[-1])))
    for name in _SPARED:
        if sum(max(map(len, column)) + _GAP for column in columns[:-1]) + note <= room:
            break
        columns = [column for column in columns if column[0] != name]
    headers, *rows = map(list, zip(*columns, strict=True))
    return headers, rows


def _row(entry: Entry) -> tuple[str, ...]:
    said, endpoint = entry.registration, entry.registration.endpoint
    labels = ",".join(f"{name}={value}" for name, value in sorted(endpoint.labels.items()))
    cells = (
        said.service,
        said.version,
        endpoint.address,
        entry.health,
        "-" if entry.running is None else str(entry.running),
        "-" if entry.lag_ms is None else f"{entry.lag_ms:.1f} ms",
        str(endpoint.weight),
        labels or "-",
        said.instance[:8] or "-",
        _since(said.started_at),
    )
    return (*(_fit(cell, _LONGEST) for cell in cells), _fit(entry.reason, 4 * _LONGEST))


def _since(seconds: float) -> str:
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if seconds:
            return f"{datetime.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}"
    return "-"


def _fit(text: str, longest: int) -> str:
    """Text of a stranger as a terminal may have it: one line, no control characters, and not too long."""
    plain = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."


def _nothing(url: str, names: Sequence[str]) -> str:
    what = f"no server of {', '.join(names)}" if names else "no service"
    return f"{what} is registered at {shown(url)}"


def _named(error: RpcError, url: str) -> Exception:
    """A registry that does not list names is told with the mend."""
    if error.code is not Code.UNIMPLEMENTED:
        return error
    return CommandError(
        f"{shown(url)} does not list its services; name those you mean: rpcfw services SERVICE --registry URL",
        Exit.USAGE,
    )
