"""A small durable key-value store on a simulated disk: a log that is synced before an answer, read back after a crash.

One process, one log, no compaction: as little as a crash can find a fault in.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

import rpcfw
from rpcfw.testing.disk import Disk

SYNC_S = 0.01
"""What a sync takes on a disk that is not the fastest."""
LOG = "log"


@rpcfw.service("planted.Store")
class Store(Protocol):
    """Whole numbers by key."""

    async def read(self, key: str) -> int | None: ...

    async def write(self, key: str, value: int) -> None: ...


class LoggedStore(Store):
    """Keeps what it has acknowledged."""

    def __init__(self, disk: Disk) -> None:
        self._values: dict[str, int] = {}
        self._log = disk.open(LOG)
        disk.fsync_dir()
        self._turn = asyncio.Lock()
        self._recover()

    async def read(self, key: str) -> int | None:
        return self._values.get(key)

    async def write(self, key: str, value: int) -> None:
        async with self._turn:
            self._log.append(json.dumps([key, value]).encode() + b"\n")
            await self.sync()
            self._values[key] = value

    async def sync(self) -> None:
        """Bring the log to the disk."""
        await asyncio.sleep(SYNC_S)
        self._log.fsync()

    def _recover(self) -> None:
        """Read the log, and cut off what a crash has left of its last record."""
        whole = 0
        for line in self._log.read().splitlines(keepends=True):
            try:
                key, value = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self._values[key] = value
            whole += len(line)
        self._log.truncate(whole)
        self._log.fsync()
