"""What the demo prints: a line for each of its parts, and at the end tables of the calls, the servers and the time.

Only layout: the numbers are those of `traffic`, the words of the timeline those of `course`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import rpcfw
from examples.search.contract import Search, Status
from examples.search.traffic import Phase, Traffic

_STREAMS = {
    rpcfw.CallKind.UNARY: "none",
    rpcfw.CallKind.SERVER_STREAM: "back",
    rpcfw.CallKind.CLIENT_STREAM: "out",
    rpcfw.CallKind.BIDIRECTIONAL: "both",
}
_NUMBERS = ("calls", "p50\nms", "p99\nms", "MB\nout", "MB\nback", "again:\nrpcfw", "again:\ncaller", "failed")
_AGAIN = (
    "again: made once more, by rpcfw where the contract says that this is safe, by\n"
    "the caller where only it knows: streams that broke, uploads of the same files"
)
_PROBLEMS_SHOWN = 10


def print_part(console: Console, part: str, text: str) -> None:
    """A line that says what begins now."""
    console.print(Text.assemble("\n", (part, "bold"), " ", text))


def print_holding(console: Console, status: Status) -> None:
    """What each server has indexed."""
    size_mb = status.size_bytes / 1e6
    console.print(f"  each holds {status.documents:,} files, {size_mb:.1f} MB, {status.words:,} words")


def print_calls(console: Console, traffic: Traffic, attempts: Counter[str]) -> None:
    """A row per method: calls, latency, bytes of messages, and all that did not go smoothly."""
    table = _table("method", "streams", numbers=_NUMBERS)
    for name, statistics in traffic.by_method.items():
        table.add_row(
            name,
            _STREAMS[rpcfw.spec_of(Search).methods[name].kind],
            f"{statistics.calls:,}",
            f"{statistics.percentile_ms(50):.1f}",
            f"{statistics.percentile_ms(99):.1f}",
            f"{statistics.bytes_out / 1e6:.2f}",
            f"{statistics.bytes_back / 1e6:.2f}",
            f"{attempts[name] - statistics.calls - statistics.asked_again:,}",
            f"{statistics.asked_again:,}",
            f"{statistics.failed:,}",
        )
    _print_table(console, "Calls", table)
    console.print(_AGAIN, style="dim")


def print_shares(console: Console, traffic: Traffic, endpoints: Mapping[str, str]) -> None:
    """A row per server: how many of the calls that began in each phase it answered."""
    table = _table("server", numbers=[phase.value for phase in Phase])
    for node, endpoint in endpoints.items():
        table.add_row(f"{node}  {endpoint}", *(_share(traffic.by_node[phase], node) for phase in Phase))
    _print_table(console, "Who answered the calls that began ...", table)


def print_timeline(console: Console, events: Sequence[tuple[float, str]]) -> None:
    """A row per event, in seconds since the first call."""
    table = _table(numbers=["s"])
    table.add_column("what happened")
    for at_s, text in events:
        table.add_row(f"{at_s:.2f}", text)
    _print_table(console, "Timeline", table)


def print_result(console: Console, traffic: Traffic) -> None:
    """The first failures in their own words, and how many there were."""
    console.print()
    for problem in traffic.problems[:_PROBLEMS_SHOWN]:
        console.print(problem, style="red", markup=False)
    if len(traffic.problems) > _PROBLEMS_SHOWN:
        console.print(f"and {len(traffic.problems) - _PROBLEMS_SHOWN:,} more", style="red")
    console.print(f"failed calls: {traffic.failed}", style="bold red" if traffic.failed else "bold green")


def print_commands(console: Console, commands: Sequence[str]) -> None:
    """Command lines to copy: the first for one shell, the others for a second one. None is broken up."""
    server, *calls = commands
    console.print("\nNow you. A server in one shell, which takes some seconds to index:")
    console.print(f"  {server}", markup=False, soft_wrap=True)
    console.print("and in another shell:")
    for call in calls:
        console.print(f"  {call}", markup=False, soft_wrap=True)


def _share(answered: Counter[str], node: str) -> str:
    percent = 100 * answered[node] / max(1, answered.total())
    return f"{answered[node]:,} ({percent:4.1f} %)"


def _table(*texts: str, numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in texts:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _print_table(console: Console, title: str, table: Table) -> None:
    console.print(f"\n{title}", style="bold")
    console.print(table)
