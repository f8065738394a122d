"""The demo's server processes: started, watched, stopped, killed, started again, and ended whatever happens.

Processes and what they print, nothing of calls. Every process is ended by its own id, never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from examples.search.trouble import Word

PROJECT = Path(__file__).parents[2]
_PROGRESS = re.compile(r"indexed (\d+) of (\d+) files").match
_SERVING = re.compile(r"serving at (\S+)").match
_PATIENCE_S = 5.0
_LINES_KEPT = 15


class ServerFailed(RuntimeError):
    """A server process ended that nobody told to. The message has its last lines."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What all servers of a demo have in common.

    Attributes:
        registry: the URL of the registry in which they are.
        index_file: where they share their index.
        max_files: how many files are indexed; None for all.
    """

    registry: str
    index_file: Path
    max_files: int | None


class ServerProcess:
    """One `examples.search.server`, at whatever port the system gives it each time it is started.

    Attributes:
        node: its name.
        weight: in the registry.
        address: where it listens, as it says; empty before.
        indexed: files it has indexed so far,
        files: of how many; 0 while not yet known.
    """

    def __init__(self, node: str, weight: int, setting: Setting) -> None:
        self.node = node
        self.weight = weight
        self.address = ""
        self.indexed = self.files = 0
        self._options = ["--node", node, "--weight", str(weight), "--registry", setting.registry]
        self._options += ["--index", str(setting.index_file), "--attached"]
        if setting.max_files is not None:
            self._options += ["--files", str(setting.max_files)]
        self._process: Process | None = None
        self._listening = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def pid(self) -> int:
        """Of the process started last."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; `served` tells when it takes calls."""
        self.address, self.indexed, self.files = "", 0, 0
        self._listening.clear()
        self._last_lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.search.server", *self._options,
            cwd=PROJECT, stdin=PIPE, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process))

    async def served(self) -> None:
        """Wait until it takes calls and is registered. Raises ServerFailed if it ends before."""
        assert self._reader is not None
        listening = asyncio.create_task(self._listening.wait())
        try:
            await asyncio.wait([listening, self._reader], return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        await self.check()

    async def check(self) -> None:
        """Raise ServerFailed if the process has ended."""
        assert self._process is not None
        if self._reader is not None and self._reader.done():
            code = await self._process.wait()
            said = "".join(f"\n    {line}" for line in self._last_lines) or " nothing"
            raise ServerFailed(f"server {self.node} (pid {self.pid}) ended with {code}; it said last:{said}")

    def look(self) -> tuple[float, float | None, str]:
        """Files indexed, of how many, and what there is to say."""
        if self._listening.is_set():
            return 1, 1, f"registered, at {self.address}"
        if not self.files:
            return 0, None, "waits for the index" if not self.running else "starts"
        return self.indexed, self.files, f"{self.indexed:,} of {self.files:,} files"

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, unless it has ended."""
        if self._process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def tell(self, word: Word) -> None:
        """Tell the server how to be, unless it has ended."""
        if self._process is not None and self._process.stdin is not None and self.running:
            self._process.stdin.write(f"{word.value}\n".encode())

    def terminate(self) -> None:
        """Have it end in good order, also if it is stopped at present."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until the process has ended and all its lines have been read."""
        if self._process is not None and self._reader is not None:
            await self._process.wait()
            await self._reader

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for data in process.stdout:
            line = data.decode(errors="replace").rstrip()
            progress = _PROGRESS(line)
            if progress:
                self.indexed, self.files = int(progress[1]), int(progress[2])
                continue
            self._last_lines.append(line)
            serving = _SERVING(line)
            if serving:
                self.address = serving[1]
                self._listening.set()


@contextlib.asynccontextmanager
async def running(weights: Mapping[str, int], setting: Setting) -> AsyncIterator[list[ServerProcess]]:
    """A process per name, not yet started; none is left on leaving, however that comes about."""
    servers = [ServerProcess(node, weight, setting) for node, weight in weights.items()]
    try:
        yield servers
    finally:
        try:
            for server in servers:
                server.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await asyncio.gather(*(server.gone() for server in servers))
        finally:
            for server in servers:
                server.kill()


async def start_all(servers: list[ServerProcess]) -> None:
    """Start the first, which makes the index, and then the others, which read it; until all take calls."""
    first, *others = servers
    await first.start()
    await first.served()
    for server in others:
        await server.start()
    await asyncio.gather(*(server.served() for server in others))


@contextlib.asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[Process]:
    """A process of the ``rpcfw`` command, whose stdout can be read; it is ended on leaving."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rpcfw", *arguments), cwd=PROJECT, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
    )
    try:
        yield process
    finally:
        for end in (process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                end()
                async with asyncio.timeout(_PATIENCE_S):
                    await process.communicate()
