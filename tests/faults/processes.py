"""Server processes of a fault run: started, told to go, killed; each ended by its own pid, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
_LINES_KEPT = 20


class Died(RuntimeError):
    """A process ended that nobody told to; the message has what it said last."""


class Server:
    """One process and its successors.

    Args:
        command: arguments of the interpreter.
        ready: what a line contains once the process is ready.
    """

    def __init__(self, command: Sequence[str], ready: str) -> None:
        self._command = command
        self._ready = ready
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._is_ready = asyncio.Event()
        self.ready_line = ""

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start a process and wait until it is ready. Raises Died when it ends first."""
        self._is_ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._command, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        self._reader = asyncio.create_task(self._read(self._process))
        ready = asyncio.create_task(self._is_ready.wait())
        try:
            await asyncio.wait([ready, self._reader], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._is_ready.is_set():
            raise Died(f"{' '.join(self._command)} is not ready; it said:\n" + "\n".join(self._said))

    async def leave(self) -> int:
        """SIGTERM, and wait for its end."""
        assert self._process is not None
        self._process.terminate()
        return await self._ended(self._process)

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        await self._ended(self._process)

    def check(self) -> None:
        """Raise Died if it has ended by itself."""
        if self._process is not None and self._process.returncode not in (None, 0):
            raise Died(f"pid {self.pid} ended with {self._process.returncode}:\n" + "\n".join(self._said))

    def destroy(self) -> None:
        """SIGKILL, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _ended(self, process: Process) -> int:
        async with asyncio.timeout(PATIENCE_S):
            code = await process.wait()
            if self._reader is not None:
                await self._reader
        return code

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for data in process.stdout:
            line = data.decode(errors="replace").rstrip()
            self._said.append(line)
            if self._ready in line:
                self.ready_line = line
                self._is_ready.set()


@contextlib.asynccontextmanager
async def running(servers: Sequence[Server]) -> AsyncIterator[None]:
    """All of them, started; none is left on leaving, however that comes about."""
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield
    finally:
        for server in servers:
            server.destroy()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(server._process.wait() for server in servers if server._process))
