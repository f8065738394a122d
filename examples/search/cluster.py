"""The demo's server processes: started, watched, killed, started again, and ended whatever happens.

Processes and what they print, nothing of calls. Every process is ended by its own id, never by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

_PROJECT = Path(__file__).parents[2]
_PROGRESS = re.compile(r"indexed (\d+) of (\d+) files").match
_SERVING = "serving at "
_PORTS = range(20_000, 32_000)
_PATIENCE_S = 5.0
_LINES_KEPT = 15


class ServerFailed(RuntimeError):
    """A server process ended that nobody told to. The message has its last lines."""


class ServerProcess:
    """One `examples.search.server` at a port of its own, which it keeps when it is started again.

    Attributes:
        node: its name.
        endpoint: where it listens once it has indexed.
        indexed: files it has indexed so far,
        files: of how many; 0 while not yet known.
    """

    def __init__(self, node: str, port: int, max_files: int | None) -> None:
        self.node = node
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.indexed = self.files = 0
        self._options = ["--listen", self.endpoint, "--node", node]
        if max_files is not None:
            self._options += ["--files", str(max_files)]
        self._process: Process | None = None
        self._listening = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def pid(self) -> int:
        """Of the process started last."""
        return self._process.pid if self._process is not None else 0

    @property
    def listening(self) -> bool:
        """Whether it has said that it takes calls."""
        return self._listening.is_set()

    async def start(self) -> None:
        """Start the process; `served` tells when it takes calls."""
        self.indexed = self.files = 0
        self._listening.clear()
        self._last_lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.search.server", *self._options,
            cwd=_PROJECT, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process))

    async def served(self) -> None:
        """Wait until it takes calls. Raises ServerFailed if it ends before."""
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
        if not self.files:
            return 0, None, "starts"
        note = f"{self.indexed:,} of {self.files:,} files"
        if self.listening:
            note = f"{self.files:,} files, listens at {self.endpoint}"
        return self.indexed, self.files, note

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

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
            if line.startswith(_SERVING):
                self._listening.set()


@contextlib.asynccontextmanager
async def running(nodes: Sequence[str], max_files: int | None) -> AsyncIterator[list[ServerProcess]]:
    """A process per node, started but not yet serving; none is left on leaving, however that comes about."""
    servers = [
        ServerProcess(node, port, max_files) for node, port in zip(nodes, free_ports(len(nodes)), strict=True)
    ]
    try:
        for server in servers:
            await server.start()
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


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens at.

    They lie below those that systems give to outgoing connections: a client that knocks at a dead server's port may
    otherwise be given that very port as its own, and then nobody can listen there any more.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(
        f"no {count} free ports between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1; end what holds them"
    )
