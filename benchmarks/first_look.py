"""A first look at speed: the typed Order call against bare uvloop, in one run, as ratios.

Server and client run in processes of their own, each on a core of its own where there are two. Rounds of both
subjects alternate, so that a change of the machine's speed meets both; medians are reported.

    python -m benchmarks.first_look [--seconds 1.5] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import uvloop

import rpcfw
from benchmarks.orders import OrderBook, Orders
from benchmarks.raw import AwaitedClient, RawClient, RawServer

IN_FLIGHT = 64
_ROWS = {
    "rpcfw": "rpcfw, typed Order call",
    "awaited": "bare uvloop, one write per call, awaited",
    "callbacks": "bare uvloop, one write per call, callbacks",
    "rpcfw_to_awaited": "rpcfw / bare, awaited",
    "rpcfw_to_callbacks": "rpcfw / bare, callbacks",
}
Sample = tuple[float, float]
"""Calls per second with `IN_FLIGHT` in flight, and the median round trip in microseconds with one."""


def pin(core: int) -> None:
    """Keep this process on one core, where the system allows it."""
    with contextlib.suppress(OSError, AttributeError):
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {core})


def serve_both(pipe: Connection) -> None:
    """The server process: rpcfw and the bare echo side by side; tells their ports and the CPU time it used."""
    pin(0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        raw = await loop.create_server(RawServer, "127.0.0.1", 0)
        book = OrderBook()
        gc.collect()
        gc.freeze()  # as `rpcfw run` does
        async with rpcfw.serve(book, listen="tcp://127.0.0.1:0") as server:
            pipe.send((server.endpoint.port, raw.sockets[0].getsockname()[1]))
            while await loop.run_in_executor(None, pipe.recv) == "cpu":
                pipe.send(time.process_time())

    uvloop.run(main())


async def measure_rpcfw(port: int, seconds: float, cpu: Callable[[], float]) -> tuple[Sample, float]:
    """The typed call through a stub, all defaults on. Also returns the server's CPU microseconds per call."""
    async with rpcfw.connect(f"tcp://127.0.0.1:{port}") as client:
        orders = client.stub(Orders)
        latency = await _latency(lambda: orders.get_order(7), seconds / 2)
        used = cpu()
        calls, elapsed = await _throughput(lambda: orders.get_order(7), seconds)
        return (calls / elapsed, latency), (cpu() - used) / calls * 1e6


async def measure_awaited(port: int, seconds: float) -> Sample:
    """The bare echo, its calls awaited by tasks as those of any client are."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(AwaitedClient, "127.0.0.1", port)
    latency = await _latency(client.call, seconds / 2)
    calls, elapsed = await _throughput(client.call, seconds)
    client.close()
    return calls / elapsed, latency


async def measure_raw(port: int, seconds: float) -> Sample:
    """The bare echo, driven by callbacks alone."""
    loop = asyncio.get_running_loop()
    latency = await _raw_latency(port, seconds / 2)
    deadline = time.perf_counter() + seconds
    calls, left, done = 0, IN_FLIGHT, loop.create_future()

    def on_reply() -> bool:
        nonlocal calls, left
        calls += 1
        if time.perf_counter() < deadline:
            return True
        left -= 1
        if left == 0:
            done.set_result(None)
        return False

    transport, client = await loop.create_connection(lambda: RawClient(on_reply), "127.0.0.1", port)
    started = time.perf_counter()
    for _ in range(IN_FLIGHT):
        client.send()
    await done
    elapsed = time.perf_counter() - started
    transport.close()
    return calls / elapsed, latency


async def _latency(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    for _ in range(500):
        await call()
    times, deadline = [], time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


async def _throughput(call: Callable[[], Awaitable[object]], seconds: float) -> tuple[int, float]:
    started = time.perf_counter()
    deadline, calls = started + seconds, 0

    async def caller() -> None:
        nonlocal calls
        while time.perf_counter() < deadline:
            await call()
            calls += 1

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return calls, time.perf_counter() - started


async def _raw_latency(port: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    deadline, done, started = time.perf_counter() + seconds, loop.create_future(), 0.0

    def on_reply() -> bool:
        nonlocal started
        now = time.perf_counter()
        times.append(now - started)
        started = now
        if now >= deadline:
            done.set_result(None)
            return False
        return True

    transport, client = await loop.create_connection(lambda: RawClient(on_reply), "127.0.0.1", port)
    started = time.perf_counter()
    client.send()
    await done
    transport.close()
    return statistics.median(times) * 1e6


def run(rounds: int, seconds: float) -> dict[str, Any]:
    """All rounds; returns medians and ratios."""
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=serve_both, args=(far,))
    process.start()
    rpcfw_port, raw_port = pipe.recv()
    pin(1)

    def cpu() -> float:
        pipe.send("cpu")
        return float(pipe.recv())

    samples: dict[str, list[Sample]] = {"rpcfw": [], "awaited": [], "callbacks": []}
    cpus: list[float] = []
    try:
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            samples["callbacks"].append(uvloop.run(measure_raw(raw_port, seconds)))
            samples["awaited"].append(uvloop.run(measure_awaited(raw_port, seconds)))
            sample, used = uvloop.run(measure_rpcfw(rpcfw_port, seconds, cpu))
            samples["rpcfw"].append(sample)
            cpus.append(used)
    finally:
        pipe.send("stop")
        process.join()
        print(file=sys.stderr)
    return {
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "cores": os.cpu_count(),
        "server_cpu_us": round(statistics.median(cpus), 2),
        **{name: _medians(found) for name, found in samples.items()},
        "rpcfw_to_awaited": _ratios(samples["rpcfw"], samples["awaited"]),
        "rpcfw_to_callbacks": _ratios(samples["rpcfw"], samples["callbacks"]),
        "samples": samples,
    }


def _medians(samples: list[Sample]) -> dict[str, float]:
    calls, latencies = zip(*samples, strict=True)
    return {"calls_per_s": round(statistics.median(calls)), "p50_us": round(statistics.median(latencies), 1)}


def _ratios(ours: list[Sample], theirs: list[Sample]) -> dict[str, float]:
    """Round by round, so that a change of the machine's speed cancels out; then the median."""
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "calls_per_s": round(statistics.median(a[0] / b[0] for a, b in pairs), 2),
        "p50_us": round(statistics.median(a[1] / b[1] for a, b in pairs), 2),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each measurement (default 1.5)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both are measured (default 5)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    result = run(arguments.rounds, arguments.seconds)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"Python {result['python']}, uvloop {result['uvloop']}, {result['cores']} cores; "
        f"medians of {arguments.rounds} rounds\n"
    )
    print(f"{'':44}{'calls/s at 64':>15}{'p50 at 1, us':>15}")
    for name, label in _ROWS.items():
        row = result[name]
        calls, p50 = row["calls_per_s"], row["p50_us"]
        print(f"{label:44}{calls:>15,}{p50:>15}")
    print(f"\nserver: {result['server_cpu_us']} us of CPU per call")


if __name__ == "__main__":
    main()
