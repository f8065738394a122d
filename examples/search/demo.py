"""The demo: three search servers, callers that ask them, one server killed and back, and nobody's call lost.

    python -m examples.search.demo [--seconds 15] [--callers 6] [--files N]

Wiring only: the processes are `cluster`'s, the calls `traffic`'s, the events `course`'s, the tables `report`'s.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import rpcfw
from examples.search import report
from examples.search.cluster import ServerFailed, ServerProcess, running
from examples.search.course import Course
from examples.search.progress import bars
from examples.search.stubs import SearchStub
from examples.search.traffic import Attempts, Traffic
from examples.search.workload import Question, questions_about
from rpcfw.middleware import Retry

NODES = ("a", "b", "c")
VICTIM = 1
MAX_BACKOFF_S = 0.5
"""How long a client waits at the most before it knocks at a dead server again; the usual 10 s are long in a demo."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The command line.

    Attributes:
        seconds: how long the callers ask; longer if the killed server takes longer to come back.
        callers: how many ask at a time.
        max_files: how much each server indexes; None for everything.
    """

    seconds: float
    callers: int
    max_files: int | None


async def demonstrate(options: Options, console: Console) -> bool:
    """Run the whole demo and print its tables. True when no call failed."""
    attempts = Attempts()
    async with running(NODES, options.max_files) as servers:
        await index(servers, console)
        questions = await ask_first(servers[0], console)
        async with rpcfw.connect(
            *(server.endpoint for server in servers),
            middleware=[Retry(), attempts],
            options=rpcfw.ConnectionOptions(max_backoff_s=MAX_BACKOFF_S),
        ) as client:
            traffic = Traffic(SearchStub(client), questions, options.callers)
            course = Course(traffic, client, servers[VICTIM])
            report.print_part(
                console,
                "[2/3]",
                f"{options.callers} callers ask {len(questions)} questions of all four kinds, over and over, for "
                f"{options.seconds:g} s; meanwhile server {NODES[VICTIM]} is killed and started again",
            )
            async with bars(console, {"calls": functools.partial(course.look, options.seconds)}):
                await course.run(options.seconds)
        for server in servers:
            await server.check()
    report.print_part(console, "[3/3]", "the servers have been ended; what came of it")
    report.print_calls(console, traffic, attempts.by_method)
    report.print_shares(console, traffic, {server.node: server.endpoint for server in servers})
    report.print_timeline(console, course.events)
    report.print_result(console, traffic)
    return traffic.failed == 0


async def index(servers: Sequence[ServerProcess], console: Console) -> None:
    """Wait until every server has read the standard library and takes calls."""
    report.print_part(
        console,
        "[1/3]",
        f"{len(servers)} servers, a process each, index the source of Python's standard library",
    )
    looks = {f"server {server.node}": server.look for server in servers}
    async with bars(console, looks), asyncio.TaskGroup() as waiting:
        for server in servers:
            waiting.create_task(server.served())


async def ask_first(server: ServerProcess, console: Console) -> list[Question]:
    """The questions, with this server's answers as the truth that all answers are held against."""
    async with rpcfw.connect(server.endpoint) as client:
        stub = SearchStub(client)
        report.print_holding(console, await stub.status())
        return await questions_about(stub)


def commands_to_try() -> list[str]:
    """Command lines that work from here: a server for one shell, and calls for another."""
    beside = Path(sys.executable).parent / "rpcfw"
    if shutil.which("rpcfw") == str(beside) or not beside.exists():
        rpcfw_command = "rpcfw" if beside.exists() else f"{sys.executable} -m rpcfw"
    else:
        rpcfw_command = os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    endpoint = "--endpoint tcp://127.0.0.1:7000"
    return [
        f"{rpcfw_command} run examples.search.server:make --listen tcp://127.0.0.1:7000",
        f"{rpcfw_command} call search.Search.count query=asyncio {endpoint}",
        f"{rpcfw_command} call search.Search.find query='\"async def\"' limit=5 {endpoint}",
        f"{rpcfw_command} describe search.Search {endpoint}",
    ]


async def main_task(options: Options, console: Console) -> bool:
    """The demo as a task that SIGTERM and a closed terminal end as Ctrl-C does: with its servers."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    return await demonstrate(options, console)


def main() -> int:
    """Read the command line, run the demo; 0 when no call failed."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.search.demo",
        description="The search demo: three servers, one of which is killed.",
    )
    parser.add_argument(
        "--seconds", type=float, default=15.0, metavar="S", help="how long to ask (default: %(default)s)"
    )
    parser.add_argument(
        "--callers", type=int, default=6, metavar="N", help="how many ask at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--files", type=int, metavar="N", help="index the first N files only, for a quick look"
    )
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.callers, arguments.files or 1) <= 0:
        parser.error("--seconds, --callers and --files must be more than 0")
    console, code = Console(highlight=False), 0
    try:
        smooth = asyncio.run(
            main_task(Options(arguments.seconds, arguments.callers, arguments.files), console)
        )
        report.print_commands(console, commands_to_try())
        code = 0 if smooth else 1
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except* asyncio.CancelledError:
        code = 128 + signal.SIGTERM
    except* ServerFailed as failed:
        print(*failed.exceptions, sep="\n", file=sys.stderr)
        code = 1
    if code > 1:
        print("interrupted; the servers have been ended too", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
