"""How soon rpcfw is there, and how much memory a small server has."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from benchmarks.cold import cold_start
from benchmarks.ours.minimal import Minimal
from benchmarks.subject import Sample, Subject, Task, Workload
from rpcfw.blocking import connect


class Cold(Subject):
    """A program that serves one service, called by a client that is there already."""

    name = "rpcfw, rpcfw.serve"
    packages = ("rpcfw", "uvloop")
    workloads = frozenset({Workload.COLD_START})
    setting = "import rpcfw; a program that calls rpcfw.serve"
    pinned = False
    server: ClassVar[Sequence[str]] = ("-m", "benchmarks.ours.minimal")

    def serve(self, ready: Callable[[str], None]) -> None:
        ready("none")
        signal.pause()

    def measure(self, address: str, task: Task) -> Sample:
        return cold_start("rpcfw", self.server, _caller)


class Run(Cold):
    """The command that most servers are started by."""

    name = "rpcfw, rpcfw run"
    setting = "import rpcfw; the same service by `rpcfw run`"
    server = ("-m", "rpcfw", "run", "benchmarks.ours.minimal:Minimal", "--listen", "tcp://127.0.0.1:0")


@contextlib.contextmanager
def _caller(url: str) -> Iterator[Callable[[], object]]:
    with connect(url) as client:
        minimal = client.stub(Minimal)
        yield lambda: minimal.hello("Ada")


SUBJECTS: dict[str, Subject] = {"serve": Cold(), "run": Run()}
