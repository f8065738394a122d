"""Unix sockets: the loop's own transports, and the care a socket's file needs.

A file that nobody listens on is removed and a live one respected; asyncio by itself would take the place of
either.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from contextlib import suppress

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport.failure import unlistenable, unreachable
from rpcfw.transport.link import Link, Listener, ReceiverFactory
from rpcfw.transport.listener import SocketListener
from rpcfw.transport.opening import open_link

MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path of a socket file (unix(7): sun_path, less the zero that closes it)."""


class UnixTransport:
    """Links over Unix sockets, between processes of one host."""

    def __init__(
        self, *, mode: int | None = None, backlog: int = 1024, connect_timeout_s: float = 3.0
    ) -> None:
        """Set what every link shares.

        Args:
            mode: permissions of the socket's file, such as 0o660; None leaves them to the umask. They hold
                before the first link can arrive. An endpoint's label ``mode=660`` (octal) goes first.
            backlog: links the system keeps ready until they are accepted.
            connect_timeout_s: seconds for a connect.
        """
        self._mode = mode
        self._backlog = backlog
        self._connect_timeout_s = connect_timeout_s

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Open a link to the socket file."""
        if too_long := _too_long(endpoint):
            raise RpcError(Code.INVALID_ARGUMENT, too_long, origin=Origin.LOCAL, executed=False)
        loop = asyncio.get_running_loop()
        link = await open_link(
            endpoint,
            self._connect_timeout_s,
            receiver,
            lambda factory: loop.create_unix_connection(factory, endpoint.path),
        )
        if not link.get_extra_info("peername"):
            # A full backlog is EAGAIN on Unix sockets, which asyncio takes for a connect that went through.
            link.abort()
            raise unreachable(endpoint, BlockingIOError(errno.EAGAIN, "the backlog is full"))
        return link

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Make the socket file and accept links; `Listener.close` removes the file."""
        if too_long := _too_long(endpoint):
            raise OSError(errno.ENAMETOOLONG, too_long)
        mode = _mode(endpoint, self._mode)
        await _make_room(endpoint)
        try:
            return await self._serve(endpoint, receiver, mode)
        except OSError as error:
            raise unlistenable(endpoint, error) from error

    async def _serve(self, endpoint: Endpoint, receiver: ReceiverFactory, mode: int | None) -> SocketListener:
        loop, path = asyncio.get_running_loop(), endpoint.path
        # Bound and not yet listening, it refuses links: nobody slips in before chmod.
        server = await loop.create_unix_server(receiver, path, backlog=self._backlog, start_serving=False)
        file = _file_at(path)
        try:
            if mode is not None:
                os.chmod(path, mode)
            await server.start_serving()
        except BaseException:
            _remove(path, file)
            server.close()
            raise
        return SocketListener(endpoint, [server], before_close=lambda: _remove(path, file))


async def _make_room(endpoint: Endpoint) -> None:
    """Remove the file that a dead server left. Raises OSError when the path is taken."""
    path = endpoint.path
    try:
        found = os.stat(path)
        is_socket = stat.S_ISSOCK(found.st_mode)
        is_stale = is_socket and not await _is_listened_on(path)
        if is_stale:
            _remove(path, (found.st_dev, found.st_ino))
    except FileNotFoundError:
        return
    except OSError as error:
        raise unlistenable(endpoint, error) from error
    if not is_socket:
        check = "what lies there is not a socket: choose another path, or move it away"
        raise unlistenable(endpoint, FileExistsError(errno.EEXIST, "not a socket"), check)
    if not is_stale:
        raise unlistenable(endpoint, OSError(errno.EADDRINUSE, "a server listens there"))


async def _is_listened_on(path: str) -> bool:
    try:
        link, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, path)
    except ConnectionRefusedError:
        return False
    link.abort()
    return True


def _too_long(endpoint: Endpoint) -> str | None:
    size = len(os.fsencode(endpoint.path))
    if size <= MAX_PATH_BYTES:
        return None
    return (
        f"{endpoint.address}: the path of a Unix socket has at most {MAX_PATH_BYTES} bytes here, "
        f"this one {size}; choose a shorter one, under /run or /tmp"
    )


def _mode(endpoint: Endpoint, default: int | None) -> int | None:
    label = endpoint.labels.get("mode")
    if label is None:
        return default
    try:
        mode = int(label, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{endpoint}: mode={label!r} must be permissions in octal, such as 660")
    return mode


def _file_at(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _remove(path: str, file: tuple[int, int]) -> None:
    """Unlink that very file, and not one that somebody put in its place."""
    with suppress(FileNotFoundError):
        if _file_at(path) == file:
            os.unlink(path)
