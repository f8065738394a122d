"""The two processes of a subject: started, asked, ended with all that they started themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from benchmarks.catalog import Entry
from benchmarks.subject import SERVER_PID, Sample, Task, Workload, resident_bytes

ROOT = Path(__file__).resolve().parents[1]
_START_S = 60.0
_PATIENCE_S = 60.0
"""Beyond what a task is to take: slow peers finish a stream that they began."""
_PARTING_S = 2.0
_POLL_S = 0.1


class SubjectFailed(Exception):
    """A subject could not be started, or not measured; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What a subject says of itself."""

    name: str
    workloads: frozenset[str]
    depths: tuple[int, ...]
    setting: str
    versions: dict[str, str]


class RunningSubject:
    """A subject whose server runs; its client is started by the first task.

    Between tasks its processes stand still, so that timers and threads of one do not disturb the measuring of another.

    Args:
        entry: which one.
        folder: for its temporary files and for what its processes say; the caller removes it.
        environment: what its processes have in theirs beside this one's.
    """

    def __init__(
        self, entry: Entry, folder: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.entry = entry
        self._environment = environment
        self._folder = folder
        self._processes: list[Process] = []
        self._client: Process | None = None
        self._server = self._start("serve")

    def described(self) -> Description:
        """Wait until it serves. Raises SubjectFailed."""
        said = self._server.answer(_START_S)
        self._address, self._pid = said["address"], said["pid"]
        self._server.pause()
        return Description(
            said["name"],
            frozenset(said["workloads"]),
            tuple(said["depths"]),
            said["setting"],
            said["versions"],
        )

    def measure(self, task: Task) -> Sample:
        """Do a task. Raises SubjectFailed."""
        for process in self._processes:
            process.go_on()
        try:
            return self._measure(task)
        finally:
            for process in self._processes:
                process.pause()

    def _measure(self, task: Task) -> Sample:
        if self._client is None:
            self._client = self._start("measure", self._address)
        client = self._client
        client.ask(dataclasses.asdict(task))
        patience_s = task.seconds * 4 + _PATIENCE_S
        if task.workload is not Workload.IDLE:
            return Sample(**client.answer(patience_s))
        before, most = resident_bytes(self._pid), 0
        deadline = time.monotonic() + patience_s
        while not client.has_answer(_POLL_S):
            most = max(most, resident_bytes(self._pid))
            if time.monotonic() > deadline:
                break
        sample = Sample(**client.answer(_POLL_S))
        if sample.server_bytes is None:  # the subject could not tell, so what was seen from here
            sample.server_bytes = most - before
        return sample

    @property
    def process_ids(self) -> list[int]:
        """Of its server, and of its client if that has been started."""
        return [process.id for process in self._processes]

    def close(self) -> None:
        """End its processes."""
        for process in reversed(self._processes):
            process.close()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, *role: str) -> Process:
        environment = {
            **os.environ,
            **self._environment,
            "TMPDIR": str(self._folder),
            "PYTHONUNBUFFERED": "1",
        }
        if role[0] == "measure":
            environment[SERVER_PID] = str(self._pid)
        log = self._folder / f"{self.entry.module.replace(':', '.')}.{role[0]}.log"
        process = Process(
            [sys.executable, "-m", "benchmarks.subject", self.entry.module, *role], environment, log
        )
        self._processes.append(process)
        return process


class Process:
    """A process that says one line of JSON for each that it is asked. It leads a group of its own.

    Args:
        command: what to run.
        environment: all of its environment.
        log: where its standard error goes; the last line of it is told when it fails.
    """

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.id = self._process.pid
        self._buffer = b""

    def ask(self, asked: dict[str, Any]) -> None:
        """Write a line. Raises SubjectFailed when the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SubjectFailed(self._reason()) from None

    def answer(self, patience_s: float) -> dict[str, Any]:
        """The next object it says. Raises SubjectFailed when it does not, or has ended."""
        deadline = time.monotonic() + patience_s
        while True:
            if not self.has_answer(deadline - time.monotonic()):
                raise SubjectFailed(f"no answer within {patience_s:g} s")
            line, _, self._buffer = self._buffer.partition(b"\n")
            try:
                said = json.loads(line)
            except ValueError:
                if line.startswith(b'{"'):
                    raise SubjectFailed(f"an answer of {len(line):,} bytes is cut off or not JSON") from None
                continue  # a peer's library may print, too
            if isinstance(said, dict):
                return said

    def has_answer(self, patience_s: float) -> bool:
        """Wait for a line. Raises SubjectFailed when the process has ended."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + patience_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return False
            data = os.read(descriptor, 1 << 20)
            if not data:
                raise SubjectFailed(self._reason())
            self._buffer += data
        return True

    def pause(self) -> None:
        """Let the process and its group stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End the process and its group."""
        self.go_on()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PARTING_S)
        self._signal(signal.SIGKILL)  # what it started, or itself
        self._process.wait()

    def _reason(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PARTING_S)
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"ended with {self._process.returncode} and said nothing"
