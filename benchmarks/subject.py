"""What is measured: rpcfw in its configurations, its peers, and the limits, all behind one face.

Each subject is run as two processes, so that none shares an interpreter, an import or a collector with another:

    python -m benchmarks.subject MODULE serve            says {"address": ...} when ready, serves until its input ends
    python -m benchmarks.subject MODULE measure ADDRESS  reads a task per line, answers each with a sample

MODULE is below `benchmarks` and holds one `SUBJECT`, such as ``peers.grpc_aio``, or several in `SUBJECTS`, by key, of
which one is meant by ``ours.orders:tls``.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import gc
import glob
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

SMALL_BYTES = 16
"""The body of an echo."""
LARGE_BYTES = 1 << 20
"""The body of an upload or download."""
STREAM_ITEMS = 20_000
"""Items of a stream whose items are small; streams of Orders have a tenth."""

SERVER_CORE, CLIENT_CORE = 0, 1
SERVER_PID = "BENCH_SERVER_PID"
"""In the environment of the process that measures: the id of the one that serves."""
WARM_UP = "BENCH_WARM_UP_S"
"""In the environment: how long calls are made before they count, in seconds."""


class Workload(enum.StrEnum):
    """What is done."""

    GET_ORDER = "get_order"
    """A number goes there, an Order of five items comes back, as objects of the subject's own kind on both sides."""
    ECHO = "echo"
    """`SMALL_BYTES` go there and come back."""
    DOWNLOAD = "download"
    """A number goes there, `LARGE_BYTES` come back."""
    UPLOAD = "upload"
    """`LARGE_BYTES` go there, their length comes back."""
    SERVER_STREAM = "server_stream"
    """One call, `STREAM_ITEMS` small items (two ints, a float, a short text) come back one after the other."""
    CLIENT_STREAM = "client_stream"
    """`STREAM_ITEMS` small items go there, their number comes back."""
    ORDER_STREAM = "order_stream"
    """As SERVER_STREAM, of a tenth as many Orders."""
    IDLE = "idle"
    """So many connections are opened, each used once, and left idle; what the server's memory grew by is the sample."""
    MANY_CLIENTS = "many_clients"
    """GET_ORDER by sixteen tasks, each on a connection of its own with one call in flight."""
    ONEWAY = "oneway"
    """A number goes there and nothing comes back; what arrived there counts."""
    WORKERS = "workers"
    """GET_ORDER by two client processes on many connections, with no process kept on a core."""
    COLD_START = "cold_start"
    """Fresh interpreters: the import, the first reply, the memory of a server."""
    OFFERED_LOAD = "offered_load"
    """GET_ORDER, `Task.rate` times a second whether or not replies come; `in_flight` is the percentage of the peak."""
    OVERLOAD = "overload"
    """Calls that compute, first as many as can be done, then three times as many."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        workload: what is done.
        in_flight: calls in progress at a time; for IDLE the number of connections.
        seconds: how long, after a warm-up that is not counted; a stream is finished first.
        rate: OFFERED_LOAD: calls a second.
    """

    workload: Workload
    in_flight: int = 1
    seconds: float = 1.0
    rate: float = 0.0


@dataclasses.dataclass
class Sample:
    """What came of a task.

    Attributes:
        count: calls completed, or items received, or connections open.
        elapsed_s: in how many seconds.
        latencies_us: the round trips, in microseconds; where there are many, an even selection of at most 10,000.
        client_cpu_s: processor time of the client's process meanwhile.
        server_bytes: IDLE: what the server's memory grew by; None where the subject cannot tell.
        figures: what else a workload finds out, by name with the unit.
        server_cpu_s: processor time of the server's process meanwhile; 0 where it was not looked at.
    """

    count: int
    elapsed_s: float
    latencies_us: list[float] = dataclasses.field(default_factory=list)
    client_cpu_s: float = 0.0
    server_bytes: int | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    server_cpu_s: float = 0.0


class Subject(abc.ABC):
    """Something that answers calls.

    Attributes:
        name: as tables show it.
        packages: distributions whose versions the results tell.
        workloads: which it takes; others are left out with no remark.
        setting: how it is configured, in a few words, for the tables' notes.
        depths: calls in flight at which GET_ORDER and ECHO are measured.
        pinned: whether its processes are kept on a core each.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    workloads: ClassVar[frozenset[Workload]]
    setting: ClassVar[str] = ""
    depths: ClassVar[tuple[int, ...]] = (1, 8, 64, 256)
    pinned: ClassVar[bool] = True

    @abc.abstractmethod
    def serve(self, ready: Callable[[str], None]) -> None:
        """Serve on loopback, on a port the system picks; call `ready` with the address. The process ends it."""

    @abc.abstractmethod
    def measure(self, address: str, task: Task) -> Sample:
        """Do a task against a server, over connections of its own, which are closed before it returns."""

    def versions(self) -> dict[str, str]:
        """Versions of `packages`."""
        return {package: importlib.metadata.version(package) for package in self.packages}


def load(module: str) -> Subject:
    """The subject of a module below `benchmarks`; ``module:key`` for one of several."""
    name, _, key = module.partition(":")
    found = importlib.import_module(f"benchmarks.{name}")
    subject = found.SUBJECTS[key] if key else found.SUBJECT
    assert isinstance(subject, Subject)
    return subject


def pin(core: int) -> None:
    """Keep this process on one core, where there are several and the system allows it."""
    with contextlib.suppress(OSError, AttributeError):
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {core})


def resident_bytes(pid: int | None = None) -> int:
    """Memory that a process, this one unless given, has in use now, by Linux's own account."""
    with open(f"/proc/{pid or os.getpid()}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def server_cpu_s() -> float:
    """Processor time that all threads of the server's process have used, in seconds; 0 where Linux does not tell."""
    total = 0
    for thread in glob.iglob(f"/proc/{os.environ.get(SERVER_PID, '')}/task/*/schedstat"):
        with contextlib.suppress(OSError), open(thread) as file:  # one that has just ended
            total += int(file.read().split()[0])
    return total / 1e9


def say(said: dict[str, Any]) -> None:
    """Write an object to the standard output, as a line, all of it.

    Where that is unbuffered, `print` takes a write for done that the system has cut short, at the 64 KiB of a pipe.
    """
    sys.stdout.flush()
    line = memoryview(json.dumps(said).encode() + b"\n")
    while line:
        line = line[os.write(sys.stdout.fileno(), line) :]


def _end_with_input() -> None:
    """End this process when its standard input is closed, so that none outlives the benchmark."""
    sys.stdin.buffer.read()
    os._exit(0)


def _serve(subject: Subject) -> None:
    if subject.pinned:
        pin(SERVER_CORE)
    threading.Thread(target=_end_with_input, daemon=True).start()
    gc.collect()
    gc.freeze()  # as servers do in production, and every subject alike

    def ready(address: str) -> None:
        say({"address": address, "pid": os.getpid(), **_described(subject)})

    subject.serve(ready)


def _described(subject: Subject) -> dict[str, Any]:
    return {
        "name": subject.name,
        "workloads": sorted(subject.workloads),
        "depths": subject.depths,
        "setting": subject.setting,
        "versions": subject.versions(),
    }


def _measure(subject: Subject, address: str) -> None:
    if subject.pinned:
        pin(CLIENT_CORE)
    for line in sys.stdin:
        asked = json.loads(line)
        task = Task(Workload(asked.pop("workload")), **asked)
        say(dataclasses.asdict(subject.measure(address, task)))


def main(arguments: list[str]) -> None:
    """The command line."""
    module, role, *rest = arguments
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # IDLE opens thousands
    subject = load(module)
    if role == "serve":
        _serve(subject)
    else:
        _measure(subject, rest[0])


if __name__ == "__main__":
    # this module under its own name, so that there is one class Subject and not two
    importlib.import_module("benchmarks.subject").main(sys.argv[1:])
