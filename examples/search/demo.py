"""The demo: four search servers, found through a registry, under all that happens to servers, and nobody's call lost.

    python -m examples.search.demo [--registry URL] [--seconds 4] [--callers 8] [--files N]

Wiring only: the registry is `discovery`'s, the processes `cluster`'s, the calls `traffic`'s, what happens `course`'s,
the live table `screen`'s, the tables `report`'s.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import rpcfw
from examples.search import report
from examples.search.cluster import ServerFailed, ServerProcess, Setting, running, start_all
from examples.search.contract import Search
from examples.search.course import Course, PartFailed, Stage, Switch
from examples.search.discovery import OWN, Found, meeting_place
from examples.search.fleet import Fleet
from examples.search.progress import bars
from examples.search.screen import screen
from examples.search.stubs import SearchStub
from examples.search.timeline import Timeline
from examples.search.traffic import Attempts, Traffic
from examples.search.workload import questions_about
from rpcfw.breaker import ConsecutiveFailures, Recovery
from rpcfw.middleware import Retry

WEIGHTS = {"a": 300, "b": 100, "c": 100, "d": 100}
"""Names of the servers, and their weights in the registry."""
HEARTBEAT_S = 1.0
MISSES = 2
OPEN_S = 2.0
"""How long a breaker refuses calls; heartbeats and breakers are quicker than usual, so that the demo is short."""
FOUND_WITHIN_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The command line.

    Attributes:
        registry: where servers and client meet; None to find out what this machine can do.
        seconds: how long each balancer has its turn.
        callers: how many ask at a time.
        max_files: how much is indexed; None for everything.
    """

    registry: str | None
    seconds: float
    callers: int
    max_files: int | None


async def demonstrate(options: Options, console: Console) -> Found | None:
    """Run the whole demo and print its tables. The registry that it found; None when a call failed."""
    with tempfile.TemporaryDirectory(prefix="rpcfw-demo-") as folder:
        async with meeting_place(options.registry) as found:
            report.print_part(console, "[1/4]", f"a registry to meet in: {found.url}")
            console.print(f"  {found.why}", markup=False, soft_wrap=True)
            setting = Setting(found.url, Path(folder, "index"), options.max_files)
            async with running(WEIGHTS, setting) as servers:
                await start(servers, console)
                smooth = await ask(options, found.url, servers, console)
    return found if smooth else None


async def start(servers: list[ServerProcess], console: Console) -> None:
    """Wait until every server has the standard library's index, takes calls and is registered."""
    report.print_part(
        console,
        "[2/4]",
        f"{len(servers)} servers, a process each, at ports that the system gives them; the first indexes the source "
        "of Python's standard library, the others read its index",
    )
    async with bars(console, {f"server {server.node}": server.look for server in servers}):
        await start_all(servers)


async def ask(options: Options, url: str, servers: list[ServerProcess], console: Console) -> bool:
    """Ask, and have happen what does, and print what came of it. True when no call failed."""
    attempts, switch, timeline = Attempts(), Switch(), Timeline()
    fleet = Fleet(servers, timeline)
    async with rpcfw.connect(
        url, balancer=switch, middleware=[Retry(), attempts], cluster=cluster_options(fleet)
    ) as client:
        fleet.watch(client)
        await find_all(client, fleet, servers)
        stub = SearchStub(client)
        report.print_holding(console, await stub.status())
        questions = await questions_about(stub)
        attempts.by_method.clear()
        traffic = Traffic(stub, questions, options.callers)
        report.print_part(
            console,
            "[3/4]",
            f"{options.callers} callers ask {len(questions)} questions of all four kinds, over and over; their client "
            "knows no address, only the registry",
        )
        console.print(
            f"  watch them from another shell: {rpcfw_command()} services --watch --registry {shlex.quote(url)}",
            markup=False,
            soft_wrap=True,
        )
        timeline.restart()
        course = Course(Stage(servers, traffic, fleet, timeline, switch), options.seconds, random.Random())
        async with screen(console, timeline, fleet, traffic):
            await course.run()
    for server in servers:
        await server.check()
    report.print_part(console, "[4/4]", "what came of it")
    report.print_timeline(console, timeline.entries)
    report.print_shares(console, course.turns, servers)
    report.print_calls(console, traffic, attempts.by_method)
    report.print_result(console, traffic)
    return traffic.failed == 0


def cluster_options(fleet: Fleet) -> rpcfw.ClusterOptions:
    """How the client watches its servers: more quickly than usual, and whatever it notices is told the fleet."""
    recovery = Recovery(open_s=OPEN_S, max_open_s=OPEN_S)
    return rpcfw.ClusterOptions(
        heartbeat_s=HEARTBEAT_S,
        misses=MISSES,
        breaker=lambda: ConsecutiveFailures(recovery=recovery),
        outlier=None,  # breakers and ejection do much the same; here the breakers are to be seen
        on_event=fleet.heard,
    )


async def find_all(client: rpcfw.Client, fleet: Fleet, servers: Sequence[ServerProcess]) -> None:
    """Wait until the client has found all servers. Raises PartFailed when it does not."""
    found = [fleet.expect(rpcfw.EventKind.UP, server.node) for server in servers]
    client.watch(Search)
    try:
        async with asyncio.timeout(FOUND_WITHIN_S):
            await asyncio.gather(*found)
    except TimeoutError:
        missing = ", ".join(
            server.node for server, up in zip(servers, found, strict=True) if up.cancelled() or not up.done()
        )
        raise PartFailed(f"not found through the registry within {FOUND_WITHIN_S:g} s: {missing}") from None


def commands_to_try(registry: str) -> list[tuple[str, list[str]]]:
    """Command lines that work from here, those of a shell together, under what they are."""
    command, where = rpcfw_command(), shlex.quote(registry)
    serve = f"run examples.search.server:make --register {where} --listen tcp://127.0.0.1:0"
    calls = (
        f"services --registry {where}",
        f"call search.Search.count query=asyncio --endpoint {where}",
        f"call search.Search.find query='\"async def\"' limit=5 --endpoint {where}",
        f"describe search.Search --endpoint {where}",
    )
    shells = [
        ("a server, and more of them in further shells; each indexes for some seconds", [serve]),
        ("and the rest from another shell", list(calls)),
    ]
    if registry.startswith(OWN):
        listen = f"registry --listen tcp://{registry.removeprefix(OWN)}"
        shells.insert(0, ("a registry, in a shell of its own", [listen]))
    return [(what, [f"{command} {line}" for line in lines]) for what, lines in shells]


def rpcfw_command() -> str:
    """How to run ``rpcfw`` from here."""
    beside = Path(sys.executable).parent / "rpcfw"
    if not beside.exists():
        return f"{sys.executable} -m rpcfw"
    if shutil.which("rpcfw") == str(beside):
        return "rpcfw"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def registry_to_try(found: Found) -> str:
    """Where one goes on after the demo, whose own registry and group of names have ended with it."""
    if found.url.startswith(OWN):
        return f"{OWN}127.0.0.1:7400"
    return "zeroconf://" if found.url.startswith("zeroconf://127.0.0.1?") else found.url


async def main_task(options: Options, console: Console) -> Found | None:
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
        description="The search demo: four servers that are found through a registry, stopped, restarted and killed.",
    )
    parser.add_argument(
        "--registry",
        metavar="URL",
        help=f"where to meet; {OWN} starts one of rpcfw's own (default: zeroconf:// on loopback, or {OWN} where "
        "multicast does not work)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="how long each balancer has its turn (default: %(default)s)",
    )
    parser.add_argument(
        "--callers", type=int, default=8, metavar="N", help="how many ask at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--files", type=int, metavar="N", help="index the first N files only, for a quick look"
    )
    given = parser.parse_args()
    if min(given.seconds, given.callers, given.files or 1) <= 0:
        parser.error("--seconds, --callers and --files must be more than 0")
    console, code = Console(highlight=False), 0
    options = Options(given.registry, given.seconds, given.callers, given.files)
    try:
        found = asyncio.run(main_task(options, console))
        if found is not None:
            report.print_commands(console, commands_to_try(registry_to_try(found)))
        code = 0 if found is not None else 1
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except* asyncio.CancelledError:
        code = 128 + signal.SIGTERM
    except* (ServerFailed, PartFailed, rpcfw.RpcError, ValueError) as failed:
        print(*_leaves(failed), sep="\n", file=sys.stderr)
        code = 1
    if code > 1:
        print("interrupted; the servers have been ended too", file=sys.stderr)
    return code


def _leaves(group: BaseExceptionGroup[Exception]) -> list[str]:
    messages: list[str] = []
    for error in group.exceptions:
        messages += _leaves(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return messages


if __name__ == "__main__":
    sys.exit(main())
