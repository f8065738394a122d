"""A client of etcd's JSON gateway: requests and one kind of stream over plain HTTP, several addresses tried in turn.

Sizes are bounded, and whatever goes wrong is an `Away` that says where and why. What the answers mean is for others.
Needs aiohttp. Source: etcd's documentation, "gRPC gateway" (3.4), whose numbers come as strings and keys as base64.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import aiohttp
import msgspec

from rpcfw.registry.remote import Away

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""The longest answer, and the longest message of a stream, that is read."""
NOT_FOUND = 5
_TRIED_ELSEWHERE = frozenset({1, 4, 8, 13, 14})
"""gRPC codes that another member may not give: cancelled, deadline, exhausted, internal, unavailable."""

T = TypeVar("T")


class Refused(Away):
    """etcd answered with an error that no other member would spare us. `code` is gRPC's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Head(msgspec.Struct, frozen=True):
    """The head of each answer. etcd leaves out what is zero."""

    cluster_id: str = ""
    revision: int = 0
    raft_term: int = 0


class KeyValue(msgspec.Struct, frozen=True):
    """A key and its value, both in base64, as the gateway has them."""

    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class Event(msgspec.Struct, frozen=True):
    """A change: a put, whose type is left out, or ``DELETE``."""

    kv: KeyValue
    type: str = "PUT"


class Granted(msgspec.Struct, frozen=True):
    """A lease: its number, and its time to live in seconds; that is 0 when there is no such lease."""

    ID: int = 0
    TTL: int = 0


class Kept(msgspec.Struct, frozen=True):
    """The answer to a keepalive, which is a stream of one message."""

    result: Granted


class Ranged(msgspec.Struct, frozen=True):
    """The answer to a range."""

    header: Head = Head()
    kvs: list[KeyValue] = []


class _Response(msgspec.Struct, frozen=True):
    response_range: Ranged = Ranged()


class Done(msgspec.Struct, frozen=True):
    """The answer to a transaction, or to anything of which only the head matters."""

    header: Head = Head()
    responses: list[_Response] = []


class Watched(msgspec.Struct, frozen=True):
    """A message of a watch."""

    header: Head = Head()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = []


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: int = 0
    grpc_code: int = 0


class _Message(msgspec.Struct, frozen=True):
    result: Watched | None = None
    error: _Error | None = None


def base64_of(data: bytes | str) -> str:
    """As the gateway wants keys and values."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


class Gateway:
    """etcd at one or several addresses, of which one is used until it fails. Opened by the first request.

    Args:
        urls: ``http://host:port`` of each member.
        timeout_s: for one request to one member.
        tls: for ``https``.
    """

    def __init__(self, urls: Sequence[str], *, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        self._urls = tuple(urls)
        self._current = 0
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def ask(self, path: str, body: dict[str, Any], answer: type[T]) -> T:
        """One request and its answer. Raises `Away` when no member answers, `Refused` when one says no."""
        problems = []
        for _ in self._urls:
            url = self._urls[self._current]
            try:
                return await self._ask(url, path, body, answer)
            except Refused:
                raise
            except Away as away:
                problems.append(str(away))
                self.leave(url)
        raise Away("; ".join(problems))

    async def _ask(self, url: str, path: str, body: dict[str, Any], answer: type[T]) -> T:
        async with (
            _translated(url),
            asyncio.timeout(self._timeout_s),
            self._opened().post(f"{url}/v3/{path}", json=body, ssl=self._tls or True) as response,
        ):
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    raise Away(f"etcd at {url} answers {path} with more than {MAX_ANSWER_BYTES:,} bytes")
            if response.status != 200:
                raise _refusal(url, response.status, bytes(data))
            return msgspec.json.decode(data, type=answer, strict=False)

    @contextlib.asynccontextmanager
    async def watch(self, create: dict[str, Any]) -> AsyncIterator[Stream]:
        """A watch at the current member. What its `Stream` raises, moves on to the next member."""
        url = self._urls[self._current]
        endless = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s)
        request = {"create_request": create}
        try:
            async with _translated(url):
                async with asyncio.timeout(self._timeout_s):
                    response = await self._opened().post(
                        f"{url}/v3/watch", json=request, ssl=self._tls or True, timeout=endless
                    )
                async with response:
                    if response.status != 200:
                        raise _refusal(url, response.status, await response.content.read(4096))
                    yield Stream(url, response.content)
        except Away:
            self.leave(url)
            raise

    def leave(self, url: str = "") -> None:
        """Use the next member from now on, unless that is done already."""
        if not url or self._urls[self._current] == url:
            self._current = (self._current + 1) % len(self._urls)

    async def close(self) -> None:
        """Give up all connections. May be called again."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Away("the registry is closed")
        if self._session is None:
            # Every watch has a connection of its own: no limit here, their number is that of the services watched.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session


class Stream:
    """The messages of one watch."""

    def __init__(self, url: str, content: aiohttp.StreamReader) -> None:
        self._url = url
        self._content = content
        self._decoder = msgspec.json.Decoder(_Message, strict=False)
        self._buffer = bytearray()
        self._searched = 0

    async def next(self) -> Watched:
        """The next message. Cancelling loses none. Raises `Away` when the stream breaks or ends."""
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._searched = 0
                message = self._decoder.decode(line)
                if message.error is not None:
                    raise Away(f"etcd at {self._url} ends the watch: {message.error.message}")
                if message.result is not None:
                    return message.result
                continue
            self._searched = len(self._buffer)
            if self._searched > MAX_ANSWER_BYTES:
                raise Away(f"etcd at {self._url} sends a message of more than {MAX_ANSWER_BYTES:,} bytes")
            chunk = await self._content.readany()
            if not chunk:
                raise Away(f"etcd at {self._url} has ended the watch")
            self._buffer += chunk


def _refusal(url: str, status: int, body: bytes) -> Away:
    try:
        error = msgspec.json.decode(body, type=_Error, strict=False)
    except msgspec.MsgspecError:
        error = _Error(message=body[:200].decode(errors="replace"))
    text = f"etcd at {url} answers {status}: {error.message or 'without a reason'}"
    code = error.code or error.grpc_code
    elsewhere = code in _TRIED_ELSEWHERE or (not code and status >= 500)
    return Away(text) if elsewhere else Refused(text, code)


def _trouble(error: Exception) -> str:
    """Why, and the mend; aiohttp's own words name the address once more."""
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        number = error.os_error.errno
        said = os.strerror(number).lower() if number > 0 else error.os_error.strerror
        return f"{said}; check that etcd runs and listens exactly there"
    said = (getattr(error, "message", "") or str(error) or type(error).__name__).splitlines()[0].rstrip(":")
    return f"{said}; is it etcd 3.4 or later, with TLS (ca=) or not?"


@contextlib.asynccontextmanager
async def _translated(url: str) -> AsyncIterator[None]:
    """What aiohttp, the system and a wrong answer raise, as `Away`."""
    try:
        yield
    except TimeoutError:
        raise Away(f"etcd at {url} does not answer in time") from None
    except (aiohttp.ClientError, OSError, EOFError) as error:
        raise Away(f"etcd at {url} cannot be reached: {_trouble(error)}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Away(f"etcd at {url} answers what is not etcd's: {error}; is it etcd 3.4 or later?") from error
