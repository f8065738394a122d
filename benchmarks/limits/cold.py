"""How soon bare uvloop is there."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from benchmarks.cold import cold_start
from benchmarks.subject import Sample, Subject, Task, Workload

_MESSAGE = b"hello"


class Cold(Subject):
    """Importing uvloop, and with it asyncio, is what no user of either can do without."""

    name = "raw uvloop"
    packages = ("uvloop",)
    workloads = frozenset({Workload.COLD_START})
    setting = "import uvloop; an echo"
    pinned = False

    def serve(self, ready: Callable[[str], None]) -> None:
        ready("none")
        signal.pause()

    def measure(self, address: str, task: Task) -> Sample:
        return cold_start("uvloop", ["-m", "benchmarks.limits.minimal"], _caller)


@contextlib.contextmanager
def _caller(url: str) -> Iterator[Callable[[], object]]:
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as connection:

        def call() -> object:
            connection.sendall(_MESSAGE)
            return connection.recv(len(_MESSAGE))

        yield call


SUBJECT = Cold()
