"""Overload: what comes of calls when a server is offered up to three times what it can do.

    python -m benchmarks.overload [--seconds S] [--json]

The server computes some 300 microseconds for each call, on its loop. A closed loop finds its capacity; then calls are
made at given rates whether earlier ones have been answered or not (open loop), and each is timed from the moment at
which it was due. The client repeats nothing, so that what the server does is what is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import uvloop

import rpcfw
from benchmarks.drive import keep_in_flight, thinned
from benchmarks.subject import CLIENT_CORE, SERVER_CORE, pin, resident_bytes
from rpcfw.middleware import AdaptiveLimit

WORK_S = 300e-6
"""Processor time that each call costs the server."""
IN_FLIGHT = 8
"""Calls in progress while the capacity is measured."""
RATES = (0.5, 0.9, 1.5, 3.0)
"""Offered, as shares of the capacity."""
TIMEOUT_S = 1.0
_TICK_S = 0.001
"""Calls that have become due are made so often."""
_SETTLING_S = 0.5
"""From the start of a load on, not counted."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a server is protected."""

    middleware: Callable[[], Sequence[rpcfw.Middleware]] = list
    max_running: int = rpcfw.Limits().max_running


SETTINGS = {
    "nothing": Setting(),
    "AdaptiveLimit()": Setting(lambda: [AdaptiveLimit()]),
    "max_running=50": Setting(max_running=50),
}
"""As an ordinary user would protect a server, with the defaults; by what tables call it."""


@rpcfw.service("bench.Search")
class Search(Protocol):
    """The service under load."""

    async def find(self, text: str) -> int:
        """Compute for a while."""
        ...


class Engine(Search):
    """Computes so many rounds for each call."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    async def find(self, text: str) -> int:
        return self._compute()

    def _compute(self) -> int:
        digest = b"tea"
        for _ in range(self._rounds):
            digest = hashlib.sha256(digest).digest()
        return digest[0]

    @classmethod
    def rounds(cls) -> int:
        """How many take `WORK_S` of processor time here."""
        engine, took_s = cls(1000), []
        for _ in range(20):
            started = time.process_time()
            engine._compute()
            took_s.append(time.process_time() - started)
        return round(1000 * WORK_S / min(took_s))


@dataclasses.dataclass
class Outcome:
    """What came of a load.

    Attributes:
        offered_per_s: calls made,
        good_per_s: those that were answered,
        refused_per_s: refused with RESOURCE_EXHAUSTED,
        failed_per_s: or failed otherwise, mostly by their deadline.
        latencies_us: of the answered, from when each was due; an even selection of at most 10,000.
        refusals_us: the same of the refused.
        server_bytes: what the server has resident at the end.
        server_share: of a core, that the server had; well below 1 under overload, others were at work on it.
    """

    offered_per_s: float
    good_per_s: float
    refused_per_s: float
    failed_per_s: float
    latencies_us: list[float]
    refusals_us: list[float]
    server_bytes: int
    server_share: float


async def _serve(setting: str, rounds: int) -> None:
    engine = Engine(rounds)
    gc.collect()
    gc.freeze()
    chosen = SETTINGS[setting]
    # without the watchdog, since a loop that is late is what is to be seen here
    limits = rpcfw.Limits(block_threshold_s=None, max_running=chosen.max_running)
    middleware = chosen.middleware()
    async with rpcfw.serve(
        engine, listen="tcp://127.0.0.1:0", middleware=middleware, limits=limits
    ) as server:
        print(json.dumps({"address": str(server.endpoint), "pid": os.getpid()}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


@contextlib.contextmanager
def server(setting: str, rounds: int) -> Iterator[tuple[str, int]]:
    """A server process, on its own core; its address and process id."""
    command = [sys.executable, "-m", "benchmarks.overload", "--serve", setting, "--rounds", str(rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield told["address"], told["pid"]
        finally:
            process.stdin.close()
            process.kill()


async def capacity(address: str, seconds: float) -> float:
    """Calls a second that are answered when there are always some in progress, and none too many."""
    async with rpcfw.connect(address, middleware=[]) as client:
        search = client.stub(Search)
        sample = await keep_in_flight(lambda: search.find("tea"), IN_FLIGHT, seconds)
        return sample.count / sample.elapsed_s


async def offer(address: str, pid: int, per_s: float, seconds: float) -> Outcome:
    """So many calls a second for so long, whatever becomes of them."""
    good: list[float] = []
    refused: list[float] = []
    failed = made = 0
    clock = time.perf_counter

    async def call(due: float, counts: bool) -> None:
        nonlocal failed
        ended = None
        try:
            await search.find("tea")
            ended = good
        except rpcfw.RpcError as error:
            if error.code is rpcfw.Code.RESOURCE_EXHAUSTED:
                ended = refused
        if not counts:
            return
        if ended is None:
            failed += 1
        else:
            ended.append((clock() - due) * 1e6)

    async with rpcfw.connect(address, middleware=[], timeout_s=TIMEOUT_S) as client:
        search = client.stub(Search)
        await client.ready(Search)
        calls: set[asyncio.Task[None]] = set()
        used_s, started, number = cpu_s(pid), clock(), 0
        until = started + _SETTLING_S + seconds
        while (now := clock()) < until:
            while number < (now - started) * per_s:
                due = started + number / per_s
                number += 1
                counts = due >= started + _SETTLING_S
                made += counts
                task = asyncio.ensure_future(call(due, counts))
                calls.add(task)
                task.add_done_callback(calls.discard)
            await asyncio.sleep(_TICK_S)
        used_s, resident = cpu_s(pid) - used_s, resident_bytes(pid)
        if calls:
            await asyncio.wait(calls)
    return Outcome(
        made / seconds,
        len(good) / seconds,
        len(refused) / seconds,
        failed / seconds,
        thinned(good),
        thinned(refused),
        resident,
        used_s / (seconds + _SETTLING_S),
    )


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(latencies_us: Sequence[float], share: float) -> float:
    """In milliseconds; of a sorted list, not a number where it is empty."""
    if not latencies_us:
        return float("nan")
    return latencies_us[min(len(latencies_us) - 1, int(len(latencies_us) * share))] / 1000


def run(seconds: float, settings: Sequence[str], rates: Sequence[float]) -> dict[str, dict[str, object]]:
    """Each setting in a server of its own, which is offered one rate after the other."""
    results: dict[str, dict[str, object]] = {}
    pin(CLIENT_CORE)
    rounds = Engine.rounds()
    for setting in settings:
        with server(setting, rounds) as (address, pid):
            peak = uvloop.run(capacity(address, seconds))
            outcomes = {}
            for rate in rates:
                print(f"\r{setting}: {rate:g} times its capacity  ", end="", file=sys.stderr, flush=True)
                outcomes[f"{rate:g}"] = uvloop.run(offer(address, pid, peak * rate, seconds))
            results[setting] = {"capacity_per_s": peak, "outcomes": outcomes}
    print(file=sys.stderr)
    return results


def show(results: dict[str, dict[str, object]]) -> None:
    """The figures as a table; the rates as shares of the capacity."""
    print(
        f"{'server protected by':22}{'offered':>9}{'answered':>10}{'refused':>9}{'failed':>8}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'refusal p99 ms':>16}{'server MB':>11}{'of a core':>11}"
    )
    for setting, result in results.items():
        peak, outcomes = result["capacity_per_s"], result["outcomes"]
        assert isinstance(peak, float)
        assert isinstance(outcomes, dict)
        for outcome in outcomes.values():
            print(
                f"{setting:22}{outcome.offered_per_s / peak:9.2f}{outcome.good_per_s / peak:10.2f}"
                f"{outcome.refused_per_s / peak:9.2f}{outcome.failed_per_s / peak:8.2f}"
                f"{percentile(outcome.latencies_us, 0.5):9.1f}{percentile(outcome.latencies_us, 0.99):9.1f}"
                f"{percentile(outcome.refusals_us, 0.99):16.1f}{outcome.server_bytes / 1e6:11.0f}"
                f"{outcome.server_share:11.2f}"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (default 3)")
    parser.add_argument(
        "--setting", action="append", choices=list(SETTINGS), help="only this one; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--serve", choices=list(SETTINGS), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        pin(SERVER_CORE)
        uvloop.run(_serve(arguments.serve, arguments.rounds))
        return
    results = run(arguments.seconds, arguments.setting or list(SETTINGS), RATES)
    if arguments.json:
        print(json.dumps(results, indent=2, default=dataclasses.asdict))
    else:
        show(results)


if __name__ == "__main__":
    main()
