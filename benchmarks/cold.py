"""Fresh interpreters: how long an import takes, how soon a new server answers, how much memory it has then."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.subject import Sample, resident_bytes

_IMPORTS = 5
_CALLS = 1_000
_MIB = 1 << 20
_IMPORT = """
import time
started = time.perf_counter()
import {module}
print((time.perf_counter() - started) * 1e3)
"""


def import_ms(module: str) -> float:
    """Milliseconds that ``import module`` takes in a fresh interpreter, its compiled files being there; a median."""
    command = [sys.executable, "-c", _IMPORT.format(module=module)]
    found = [
        float(subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout)
        for _ in range(1 + _IMPORTS)
    ]
    return statistics.median(found[1:])  # the first one may have had to compile


def _environment() -> dict[str, str]:
    """This process's, but for what keeps compiled files from being written: they are there on any machine in use."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server in a fresh interpreter, which says ``... at URL ...`` when it serves: the URL, and its process id."""
    server = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if " at " in line:
                yield line.split(" at ")[1].split()[0], server.pid
                return
        raise RuntimeError(f"{' '.join(arguments)} ended with {server.wait()}")
    finally:
        server.kill()
        server.wait()


def cold_start(
    module: str,
    server: Sequence[str],
    caller: Callable[[str], contextlib.AbstractContextManager[Callable[[], object]]],
) -> Sample:
    """The figures of one library.

    Args:
        module: what is imported.
        server: arguments of the interpreter that serves.
        caller: opens a connection to a URL and gives a call over it.
    """
    import_time_ms = import_ms(module)  # before the server, whose modules are compiled then
    began = time.perf_counter()
    with started(server) as (url, pid), caller(url) as call:
        call()
        first_ms = (time.perf_counter() - began) * 1e3
        for _ in range(_CALLS):
            call()
        resident = resident_bytes(pid)
    figures = {
        "import_ms": import_time_ms,
        "first_reply_ms": first_ms,
        "server_mib": resident / _MIB,
    }
    return Sample(1, first_ms / 1e3, figures=figures)
