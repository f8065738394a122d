"""`rpcfw run --workers`: one and two server processes, called by two client processes, all over all cores."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import functools
import json
import signal
import subprocess
import sys
from collections.abc import Callable

import uvloop

import rpcfw
from benchmarks.drive import keep_each_in_flight
from benchmarks.orders import Orders
from benchmarks.subject import Sample, Subject, Task, Workload, say

_CLIENT_PROCESSES = 2
_CONNECTIONS = 8
_IN_FLIGHT = 8
"""On each connection."""
_PR_SET_PDEATHSIG = 1
_TARGET = "benchmarks.orders:OrderBook"
_SETTING = (
    f"{_CLIENT_PROCESSES} client processes with {_CONNECTIONS} connections each, no process kept on a core"
)


class OneWorker(Subject):
    """One server process."""

    name = "rpcfw, 1 worker"
    packages = ("rpcfw", "uvloop")
    workloads = frozenset({Workload.WORKERS})
    setting = f"rpcfw run; {_SETTING}"
    pinned = False
    workers = 1

    def serve(self, ready: Callable[[str], None]) -> None:
        command = [sys.executable, "-m", "rpcfw", "run", _TARGET, "--listen", "tcp://127.0.0.1:0"]
        command += ["--workers", str(self.workers)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_end_with_parent)  # noqa: PLW1509
        assert server.stdout is not None
        endpoints = []
        for line in server.stdout:
            if line.startswith("serving "):
                endpoints.append(line.split(" at ")[1].split(" ")[0].strip())
                if len(endpoints) == self.workers:
                    ready(endpoints[0])
        raise RuntimeError(f"{' '.join(command[1:])} ended with {server.wait()}")

    def measure(self, address: str, task: Task) -> Sample:
        command = [sys.executable, "-m", "benchmarks.ours.workers", address, str(task.seconds)]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_end_with_parent)  # noqa: PLW1509
            for _ in range(_CLIENT_PROCESSES)
        ]
        samples = []
        for client in clients:
            output, _ = client.communicate(timeout=task.seconds * 4 + 30)
            samples.append(Sample(**json.loads(output)))
        return Sample(
            sum(sample.count for sample in samples),
            max(sample.elapsed_s for sample in samples),
            sorted(latency for sample in samples for latency in sample.latencies_us),
            sum(sample.client_cpu_s for sample in samples),
        )


class TwoWorkers(OneWorker):
    """Two server processes on one port."""

    name = "rpcfw, 2 workers"
    setting = f"rpcfw run --workers 2; {_SETTING}"
    workers = 2


def _end_with_parent() -> None:
    """Have the system end this process with its parent, even when that is killed; on Linux."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _client(address: str, seconds: float) -> Sample:
    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for _ in range(_CONNECTIONS):
            stub = (await stack.enter_async_context(rpcfw.connect(address))).stub(Orders)
            calls += [functools.partial(stub.get_order, 7)] * _IN_FLIGHT
        await asyncio.gather(*(call() for call in calls))
        return await keep_each_in_flight(calls, seconds)


SUBJECTS: dict[str, Subject] = {"one": OneWorker(), "two": TwoWorkers()}

if __name__ == "__main__":
    sample = uvloop.run(_client(sys.argv[1], float(sys.argv[2])))
    sample.latencies_us = sample.latencies_us[::10]
    say(dataclasses.asdict(sample))
