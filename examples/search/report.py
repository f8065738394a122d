"""What the demo prints before and after: a line for each step, and tables of the calls, the balancers and the time.

Only layout: the numbers are those of `traffic` and `course`, the words of the timeline those of `course`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import rpcfw
from examples.search.cluster import ServerProcess
from examples.search.contract import Search, Status
from examples.search.course import Plan
from examples.search.timeline import Entry, Kind
from examples.search.traffic import Traffic, Turn, percentile

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
            f"{percentile(statistics.latencies_ms, 50):.1f}",
            f"{percentile(statistics.latencies_ms, 99):.1f}",
            f"{statistics.bytes_out / 1e6:.2f}",
            f"{statistics.bytes_back / 1e6:.2f}",
            f"{attempts[name] - statistics.calls - statistics.asked_again:,}",
            f"{statistics.asked_again:,}",
            f"{statistics.failed:,}",
        )
    _print_table(console, "Calls", table)
    console.print(_AGAIN, style="dim")


def print_shares(
    console: Console, turns: Sequence[tuple[Plan, Turn]], servers: Sequence[ServerProcess]
) -> None:
    """A row per server and a column per balancer: its share of the calls; and how it went for the callers."""
    slow = servers[-1].node
    headings = [
        plan.name.replace(" ", "\n", 1) + (f"\n{slow} slow" if plan.slow else "\n") for plan, _ in turns
    ]
    table = _table("server", numbers=["weight", *headings])
    for server in servers:
        shares = (_share(turn.by_node, server.node) for _, turn in turns)
        table.add_row(server.node, f"{server.weight}", *shares)
    table.add_section()
    table.add_row("calls", "", *(f"{turn.by_node.total():,}" for _, turn in turns))
    table.add_row("per s", "", *(f"{turn.by_node.total() / turn.seconds:,.0f}" for _, turn in turns))
    for percent in (50, 99):
        values = (f"{percentile(turn.latencies_ms, percent):,.1f}" for _, turn in turns)
        table.add_row(f"p{percent} ms", "", *values)
    _print_table(console, "Who answered, under each balancer", table)


def print_timeline(console: Console, entries: Sequence[Entry]) -> None:
    """A row per deed of the demo, in seconds since the first call; what the client noticed has been shown."""
    table = _table(numbers=["s"])
    table.add_column("what happened")
    for entry in entries:
        if entry.kind is not Kind.NOTICE:
            style = "bold" if entry.kind is Kind.PART else ""
            indent = "" if entry.kind is Kind.PART else "  "
            table.add_row(f"{entry.at_s:.1f}", Text(indent + entry.text, style))
    _print_table(console, "Timeline", table)


def print_result(console: Console, traffic: Traffic) -> None:
    """The first failures in their own words, and how many there were."""
    console.print()
    for problem in traffic.problems[:_PROBLEMS_SHOWN]:
        console.print(problem, style="red", markup=False)
    if len(traffic.problems) > _PROBLEMS_SHOWN:
        console.print(f"and {len(traffic.problems) - _PROBLEMS_SHOWN:,} more", style="red")
    console.print(f"failed calls: {traffic.failed}", style="bold red" if traffic.failed else "bold green")


def print_commands(console: Console, shells: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Command lines to copy, under what they are. None is broken up."""
    console.print("\nNow you:")
    for what, lines in shells:
        console.print(f"  {what}:", markup=False)
        for line in lines:
            console.print(f"    {line}", markup=False, soft_wrap=True)


def _share(answered: Counter[str], node: str) -> str:
    return f"{100 * answered[node] / max(1, answered.total()):.1f} %"


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
