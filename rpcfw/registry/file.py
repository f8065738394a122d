"""Endpoints from a file that is read again when it changes: TOML or JSON, by its name.

``[services]`` has a list of URLs for each service, or a table of ``version`` and ``endpoints``; ``"*"`` stands for all
services that are not named. What a program writes is best put in place by a rename: a file that is written where it
lies is read when it has been the same for one interval. After Prometheus's file-based discovery.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import os
import re
import stat
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from rpcfw.errors import Code, RpcError
from rpcfw.registry.listing import Listing, ListingError
from rpcfw.registry.refusal import Refused
from rpcfw.registry.registration import Registration
from rpcfw.registry.snapshots import Board
from rpcfw.registry.static import named

log = logging.getLogger("rpcfw.registry")

MAX_FILE_BYTES = 1 << 20
"""The largest file that is read."""
_Stamp = tuple[int, int, int]
"""Inode, size, and time of the last change: what tells one state of a file from another."""


class FileRegistry:
    """Says what a file says, and notices when it changes. It reads the file while somebody watches.

    Args:
        path: of a file whose name ends in ``.toml`` or ``.json``. It need not be there yet.
        interval_s: seconds between two looks at it, above 0. It is read only when size, time or inode have changed.

    Attributes:
        problem: what is wrong with the file, with its line; empty when nothing is. What was read before still holds.
    """

    def __init__(self, path: str | os.PathLike[str], *, interval_s: float = 1.0) -> None:
        self._path = os.fspath(path)
        if not self._path.endswith((".toml", ".json")):
            raise ValueError(f"{self._path!r} is neither a .toml nor a .json file: name it so")
        if not interval_s > 0:
            raise ValueError(f"interval_s={interval_s!r} must be above 0")
        self._interval_s = interval_s
        self._board = Board(first=self._begin, last=self._end)
        self._task: asyncio.Task[None] | None = None
        self._listing: Listing | None = None
        self._seen: _Stamp | None = None
        self._taken: _Stamp | None = None
        self._fault = ""
        self.problem = ""

    @classmethod
    def from_url(cls, url: str) -> FileRegistry:
        """Read ``file:///etc/shop/services.toml?interval_s=1``. Raises ValueError that names the URL and the mend."""
        parts = urlsplit(url)
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(
                f"{url!r}: a file is an absolute path with three slashes: file:///etc/shop/services.toml"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        interval = options.pop("interval_s", "1")
        if options:
            raise ValueError(f"{url!r}: {next(iter(options))!r} is not an option of a file; interval_s is")
        try:
            return cls(unquote(parts.path), interval_s=float(interval))
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from None

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """Refuse: entering raises RpcError FAILED_PRECONDITION."""
        return Refused(
            f"{registration.endpoint.address} cannot be registered: add it to {self._path} under "
            f'"{registration.service}", or use a registry that servers can register at, such as zeroconf://'
        )

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """What the file lists for a service, as `Registry.watch` has it."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """The services listed in the file. Raises RpcError UNAVAILABLE, or UNIMPLEMENTED where some have no name."""
        if self._task is None or self._listing is None:
            self._taken = None
            await self._look()
        if self._listing is None:
            raise RpcError(Code.UNAVAILABLE, self.problem)
        return named(self._listing)

    async def close(self) -> None:
        """End the watches, and look at the file no more. May be called again."""
        self._board.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # ------------------------------------------------------------------------------------------- looking

    def _begin(self, service: str) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"follow {self._path}")
        elif self._listing is not None:
            self._board.publish(service, self._listing.registrations(service))

    def _end(self, service: str) -> None:
        self._board.forget(service)
        if self._task is not None and not self._board.watched():
            self._task.cancel()
            self._task = None

    async def _follow(self) -> None:
        self._taken = None  # whatever happened to it while nobody looked
        while True:
            await self._look()
            if self._listing is not None:
                for service in self._board.watched():
                    self._board.publish(service, self._listing.registrations(service))
            await asyncio.sleep(self._interval_s)

    async def _look(self) -> None:
        """Take what is new in the file, or say what is wrong with it."""
        loop = asyncio.get_running_loop()
        try:
            # In a thread: a file on a network's disk may keep its readers waiting, and a large one takes its time.
            found = await loop.run_in_executor(None, _look_at, self._path, self._taken, self._seen)
        except FileNotFoundError:
            self._say(f"{self._path} does not exist")
            return
        except OSError as error:
            self._say(f"{self._path} cannot be read: {error.strerror or error}")
            return
        self._seen = found.stamp
        if found.read:
            self._taken = found.stamp
            self._listing = found.listing or self._listing
            self._fault = found.fault
        self._say(self._fault)

    def _say(self, problem: str) -> None:
        # who asks once, without a watch, is told it by the error
        if problem and problem != self.problem and (self._task is not None or self._listing is not None):
            log.warning("%s%s", problem, "; what it said before still holds" if self._listing else "")
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """What one look at the file gave; `fault` says why there is no listing."""

    stamp: _Stamp
    read: bool = False
    listing: Listing | None = None
    fault: str = ""


def _look_at(path: str, taken: _Stamp | None, seen: _Stamp | None) -> _Found:
    """Read a file unless it is the one that was taken, or is still being written. Raises OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    with open(path, "rb") as file:
        stamp = _stamp(file.fileno())
        put_in_place = taken is None or stamp[0] != taken[0]
        if stamp == taken or not (put_in_place or stamp == seen):
            return _Found(stamp)
        data = file.read(MAX_FILE_BYTES + 1)
        if (now := _stamp(file.fileno())) != stamp:
            return _Found(now)
    try:
        return _Found(stamp, read=True, listing=_parse(path, data))
    except _Fault as fault:
        return _Found(stamp, read=True, fault=str(fault))


def _stamp(file: int) -> _Stamp:
    status = os.fstat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Fault(Exception):
    """A file cannot be used; the message names it and the line."""


def _parse(path: str, data: bytes) -> Listing:
    """Raises _Fault."""
    if len(data) > MAX_FILE_BYTES:
        raise _Fault(f"{path} is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Fault(f"{path}, line {line}: not UTF-8") from None
    content = _decode(path, text)
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, dict):
        raise _Fault(f"{path}, line 1: lacks the table 'services', which names each service and its URLs")
    for name in content:
        if name != "services":
            raise _Fault(f"{path}, line {_line(text, name)}: {name!r} is not known here; 'services' is")
    try:
        return Listing(services)
    except ListingError as error:
        raise _Fault(f"{path}, line {_line(text, error.service, error.value)}: {error}") from None


def _decode(path: str, text: str) -> Any:
    import tomllib

    try:
        if path.endswith(".json"):
            return json.loads(text)
        return tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise _Fault(f"{path}, line {error.lineno}: {error.msg}") from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        where = re.search(r"line (\d+)", place)
        line = int(where[1]) if where else text.count("\n") + 1
        raise _Fault(f"{path}, line {line}: {message}") from None
    except RecursionError:
        raise _Fault(f"{path}: too many values inside each other") from None


def _line(text: str, *words: str) -> int:
    """The line in which these stand, each after the one before; as far as they are found."""
    at = 0
    for word in words:
        found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, at)
        if found is not None:
            at = found.start()
    return text.count("\n", 0, at) + 1
