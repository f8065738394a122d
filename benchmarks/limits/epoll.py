"""Two C programs around epoll: what the machine can do with no interpreter. Compiled on the spot, in some 0.2 s."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.drive import MAX_LATENCIES, WARM_UP_S, Meter, thinned
from benchmarks.raw import ECHO, ORDER
from benchmarks.subject import Sample, Subject, Task, Workload

_SOURCE = Path(__file__).with_name("epoll.c")
_SIZES = {Workload.GET_ORDER: ORDER, Workload.ECHO: ECHO}


class Epoll(Subject):
    """Server and client in C, each in a process of its own."""

    name = "C epoll"
    workloads = frozenset(_SIZES)
    setting = "cc -O2, fixed sizes, all that one read brought answered by one write"

    def serve(self, ready: Callable[[str], None]) -> None:
        library = compiled()
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in _SIZES]
        ports = {
            workload: listener.getsockname()[1] for workload, listener in zip(_SIZES, sockets, strict=True)
        }
        count = len(sockets)
        ready(json.dumps(ports))
        library.serve(
            (ctypes.c_int * count)(*(listener.fileno() for listener in sockets)),
            (ctypes.c_long * count)(*(sizes.request for sizes in _SIZES.values())),
            (ctypes.c_long * count)(*(sizes.reply for sizes in _SIZES.values())),
            count,
        )
        raise OSError("epoll_create1 or epoll_ctl failed")

    def measure(self, address: str, task: Task) -> Sample:
        library, sizes = compiled(), _SIZES[task.workload]
        latencies = (ctypes.c_double * (MAX_LATENCIES * 100))()
        found, elapsed = ctypes.c_long(), ctypes.c_double()
        with socket.create_connection(("127.0.0.1", json.loads(address)[task.workload])) as connection:

            def drive(seconds: float) -> int:
                count: int = library.measure(
                    connection.fileno(),
                    sizes.request,
                    sizes.reply,
                    task.in_flight,
                    ctypes.c_double(seconds),
                    latencies,
                    len(latencies),
                    ctypes.byref(found),
                    ctypes.byref(elapsed),
                )
                if count < 0:
                    raise OSError("the C client lost its connection, or has no epoll")
                return count

            drive(WARM_UP_S)
            meter = Meter()
            sample = meter.sample(drive(task.seconds))
        sample.latencies_us = thinned(latencies[: found.value])
        return sample


def compiled() -> ctypes.CDLL:
    """The library. Raises FileNotFoundError where there is no C compiler, CalledProcessError where it fails."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError(
            "no C compiler (cc, gcc or clang) is on the PATH; Debian: apt-get install gcc"
        )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "epoll.so"
        command = [*compiler.split(), "-O2", "-shared", "-fPIC", "-o", str(target), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        library = ctypes.CDLL(str(target))
    library.serve.restype = ctypes.c_int
    library.measure.restype = ctypes.c_long
    library.measure.argtypes = [
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_double,
        ctypes.POINTER(ctypes.c_double),
        ctypes.c_long,
        ctypes.POINTER(ctypes.c_long),
        ctypes.POINTER(ctypes.c_double),
    ]
    return library


SUBJECT = Epoll()
