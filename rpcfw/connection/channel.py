"""One endpoint as a client uses it: connections opened when needed, kept, replaced, and given up when idle or old.

A channel carries its own handler. Which of several endpoints takes a call is decided above, in `cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

from rpcfw.call import Attempter, Call, Recover
from rpcfw.connection.client import ClientConnection, make_call
from rpcfw.connection.resources import Resources
from rpcfw.connection.spin import DEFAULT_TURNS, Spin
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport import Transport
from rpcfw.wire.handshake import Settings
from rpcfw.wire.reader import Budget


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How a client keeps its connections. Times in seconds, None for never.

    Attributes:
        handshake_timeout_s: for the server's first answer, after the transport has connected.
        attempt_s: for an attempt to connect as a whole, beside what the transport and the handshake are given.
        keepalive_s: a silent connection is pinged after this time.
        keepalive_timeout_s: it is given up when the ping stays unanswered this long.
        idle_s: a connection without calls is closed after this time.
        max_age_s: a connection is replaced at this age, give or take a tenth; calls in progress end on the old one.
        first_backoff_s: wait after a failed connect; grows by 1.6 up to `max_backoff_s`, with a jitter of a fifth.
        max_backoff_s: the longest wait between two attempts to connect.
        pool_size: connections to each endpoint; one is enough but for very large or TLS traffic.
        settings: sizes this client accepts.
        max_memory_bytes: for large messages on their way to this client.
        spin_turns: how many turns of the loop a reply is looked out for before the loop sleeps, where that pays; a turn
            takes some 1.5 microseconds. 0: sleep at once.
    """

    handshake_timeout_s: float = 5.0
    attempt_s: float | None = None
    keepalive_s: float | None = 15.0
    keepalive_timeout_s: float = 5.0
    idle_s: float | None = 300.0
    max_age_s: float | None = None
    first_backoff_s: float = 0.1
    max_backoff_s: float = 10.0
    pool_size: int = 1
    settings: Settings = dataclasses.field(default_factory=Settings)
    max_memory_bytes: int = 512 * 1024 * 1024
    spin_turns: int = DEFAULT_TURNS


class Shared:
    """What the channels of one client share: options, resources, the source of jitter."""

    def __init__(self, options: ConnectionOptions, rng: random.Random) -> None:
        self.options = options
        self.rng = rng
        self.resources = Resources(Budget(options.max_memory_bytes), Spin(options.spin_turns))


class Channel(Attempter):
    """The connections to one endpoint.

    Connecting happens at the first call and after a loss, one attempt at a time, which all waiting calls share.
    After a failure, calls fail at once until the backoff is over.

    Attributes:
        last_end: why the connection that went last takes no more calls.
        sole: the connection of a pool of one, while it takes calls.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        shared: Shared,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Connect to nothing yet; `on_change` is called when a connection has come or takes no more calls."""
        self.endpoint = endpoint
        self._on_change = on_change
        self._transport = transport
        self._shared = shared
        self._pool_size = shared.options.pool_size
        self._ready: list[ClientConnection] = []
        self.sole: ClientConnection | None = None
        self._draining: set[ClientConnection] = set()
        self._connecting: asyncio.Task[ClientConnection] | None = None
        self._failures = 0
        self._retry_at = -math.inf
        self._last_failure = ""
        self.last_end = ""
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self._linked = False
        self._turn = 0

    @property
    def retry_at(self) -> float:
        """Before this time of the loop's clock nothing is tried after a failure; it may lie in the past."""
        return self._retry_at

    @property
    def in_flight(self) -> int:
        """Calls in progress."""
        return sum(connection.pending for connection in (*self._ready, *self._draining))

    @property
    def connections(self) -> tuple[ClientConnection, ...]:
        """Those that take calls."""
        return tuple(self._ready)

    def attempt(self, call: Call, recover: Recover | None = None) -> Awaitable[Any]:
        """Make a call on a connection of this endpoint; what `recover` makes of a failure is the outcome."""
        if self.sole is not None:
            return make_call(self.sole, call, recover)
        ready = self._ready
        if len(ready) < self._pool_size:
            return self._call_when_connected(call, recover)
        self._turn += 1
        return ready[self._turn % len(ready)].call(call, recover)

    handler = attempt

    async def connected(self) -> ClientConnection:
        """A connection that takes calls. Raises RpcError UNAVAILABLE when there is none to be had."""
        if self._closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        if len(self._ready) < self._pool_size and self._connecting is None:
            if loop.time() >= self._retry_at:
                # in a context of its own: a connection outlives the call that happened to be first
                self._connecting = loop.create_task(self._connect(), context=contextvars.Context())
                self._connecting.add_done_callback(self._connect_ended)
            elif not self._ready:
                wait_s = self._retry_at - loop.time()
                raise self._unavailable(
                    f"{self._last_failure} (next attempt in {wait_s:.1f} s)", {"retry_after_s": wait_s}
                )
        if self._ready:
            return self._ready[0]
        attempt = self._connecting
        assert attempt is not None
        try:
            return await asyncio.shield(attempt)
        except RpcError as error:  # one of its own for each call that waits
            raise RpcError(
                error.code, error.message, error.details, origin=error.origin, executed=error.executed
            ) from error.__cause__
        except asyncio.CancelledError:
            if attempt.cancelled() and self._closed:  # not this call is cancelled, but what it waits for
                raise self._unavailable("this client was closed") from None
            raise

    async def drain(self) -> None:
        """Take no new calls, and wait until those in progress have ended and the connections are closed."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in tuple(self._ready):
            self._replace(connection)
        await asyncio.gather(*(connection.session.wait_closed() for connection in tuple(self._draining)))
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls in progress fail with UNAVAILABLE."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        sessions = [connection.session for connection in (*self._ready, *self._draining)]
        self._ready.clear()
        self.sole = None
        self._draining.clear()
        for session in sessions:
            session.close("this client was closed")
        await asyncio.gather(*(session.wait_closed() for session in sessions))

    async def _call_when_connected(self, call: Call, recover: Recover | None) -> Any:
        began = asyncio.get_running_loop().time()
        try:
            connection = await self._connected_in_time(call)
        except RpcError as error:
            if recover is None:
                raise
            failure = error
        else:
            return await connection.call(call, recover)
        try:
            return await recover(call, began, failure)
        finally:
            del failure  # whose traceback has this frame: a circle

    async def _connected_in_time(self, call: Call) -> ClientConnection:
        if call.deadline == math.inf:
            return await self.connected()
        try:
            async with asyncio.timeout_at(call.deadline):
                return await self.connected()
        except TimeoutError:
            message = f"{call.method.path}: no connection to {self.endpoint.address} before the deadline"
            if self._linked:
                message += "; it is connected, but does not answer: is it an rpcfw server, with TLS or not?"
            raise RpcError(Code.DEADLINE_EXCEEDED, message, executed=False) from None

    async def _connect(self) -> ClientConnection:
        shared, options = self._shared, self._shared.options
        connection = ClientConnection(
            self.endpoint.address,
            shared.resources,
            options.settings,
            lambda: self._retire(connection),
        )
        try:
            async with asyncio.timeout(options.attempt_s):
                await self._transport.connect(self.endpoint, lambda: connection.session)
                self._linked = True
                await connection.opened(options.handshake_timeout_s)
            if not connection.usable:
                raise self._unavailable(f"{self.endpoint.address} takes no calls: {connection.farewell}")
        except TimeoutError:
            error = self._unavailable(
                f"{self.endpoint.address} did not answer within {options.attempt_s:g} s"
            )
            raise self._failed(error) from None
        except RpcError as error:
            self._failed(error)
            raise
        finally:
            self._linked = False
        self._failures, self._last_failure = 0, ""
        connection.session.keep_alive(options.keepalive_s, options.keepalive_timeout_s)
        self._ready.append(connection)
        self.sole = connection if self._pool_size == 1 else None
        self._schedule_reaping(connection)
        if self._on_change is not None:
            self._on_change()
        return connection

    def _failed(self, error: RpcError) -> RpcError:
        """An attempt to connect has failed: when the next one may be made."""
        options = self._shared.options
        wait_s = min(options.max_backoff_s, options.first_backoff_s * 1.6 ** min(self._failures, 64))
        self._failures += 1
        jitter = self._shared.rng.uniform(0.8, 1.2)
        self._retry_at = asyncio.get_running_loop().time() + wait_s * jitter
        self._last_failure = error.message  # not the error, which keeps the frames of its callers
        return error

    def _retire(self, connection: ClientConnection) -> None:
        """A connection takes no more calls, or is gone."""
        if self.sole is connection:
            self.sole = None
        with contextlib.suppress(ValueError):
            self._ready.remove(connection)
        self.last_end = connection.farewell or connection.session.reason
        if connection.session.closed:
            self._draining.discard(connection)
        else:
            self._draining.add(connection)
        if self._on_change is not None and not self._closed:
            self._on_change()

    def _schedule_reaping(self, connection: ClientConnection) -> None:
        options, loop = self._shared.options, asyncio.get_running_loop()
        if options.max_age_s is not None:
            loop.call_later(options.max_age_s * self._shared.rng.uniform(0.9, 1.1), self._replace, connection)
        if options.idle_s is not None and self._reaper is None:
            self._reaper = loop.call_later(options.idle_s, self._reap)

    def _replace(self, connection: ClientConnection) -> None:
        if not connection.session.closed:
            self._retire(connection)
            connection.drain()

    def _reap(self) -> None:
        """Close what nobody uses."""
        self._reaper = None
        idle_s = self._shared.options.idle_s
        assert idle_s is not None
        for connection in list(self._ready):
            if connection.idle_s >= idle_s:
                self._replace(connection)
        if self._ready and not self._closed:
            nearest = min(idle_s - connection.idle_s for connection in self._ready)
            self._reaper = asyncio.get_running_loop().call_later(max(nearest, idle_s / 100), self._reap)

    def _connect_ended(self, attempt: asyncio.Task[ClientConnection]) -> None:
        """Know of a failure for which no call waits; the next call tells it."""
        if self._connecting is attempt:
            self._connecting = None
        if not attempt.cancelled():
            attempt.exception()

    @staticmethod
    def _unavailable(message: str, details: dict[str, Any] | None = None) -> RpcError:
        return RpcError(Code.UNAVAILABLE, message, details, origin=Origin.CONNECTION, executed=False)

    @staticmethod
    def _closed_error() -> RpcError:
        message = "this client is closed; make a new one"
        return RpcError(Code.FAILED_PRECONDITION, message, executed=False)
