"""The server: implementations, middleware and listeners wired together, limits, and an end that loses no call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import CodeType, TracebackType
from typing import Any, Self

from rpcfw.call import Middleware
from rpcfw.chance import new_rng
from rpcfw.connection.datagram import DatagramServer
from rpcfw.connection.exchange import Entry, Load, Table
from rpcfw.connection.method import codec_of
from rpcfw.connection.resources import Resources
from rpcfw.connection.server import ServerConnection
from rpcfw.connection.spin import DEFAULT_TURNS, Spin
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, InterfaceError
from rpcfw.health import Health
from rpcfw.interface import spec_of
from rpcfw.limiter.lag import LagMeter
from rpcfw.middleware import Dedupe
from rpcfw.mistakes import check_instance, check_middleware, check_number
from rpcfw.offload import Executors
from rpcfw.reflection import Reflection
from rpcfw.skeleton import handlers_of
from rpcfw.transport import DatagramListener, DatagramTransport, Listener, Transport, default_transports
from rpcfw.watchdog import Watchdog
from rpcfw.wire.handshake import Hello, MethodEntry, Settings
from rpcfw.wire.reader import Budget

logger = logging.getLogger("rpcfw")

_LEAVING_S = 5.0
"""How long a client that was asked to go, and has no call in progress, may take to close its connection."""
_ENDING_S = 1.0
"""How long handlers may take to end once they are cancelled, and links to deliver their last bytes."""
_PARTING_S = 2.0
"""How long a drain waits for registries to take a server off their lists."""
_LAG_INTERVAL_S = 0.5
_MAX_UNHEALTHY = 64
"""So many services a heartbeat names; its reader takes no more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes upon itself; beyond it, it refuses with a reason. Times in seconds, None for never.

    Attributes:
        max_connections: clients connected at a time.
        max_running: handlers running at a time, counted until they have really ended.
        max_memory_bytes: for large messages, arriving or being handled.
        threads: for methods that block (``offload="thread"``).
        processes: for methods that compute (``offload="process"``).
        handshake_timeout_s: a connection that has not said HELLO by then is closed.
        stall_s: a connection whose large message comes to a stand for this long is closed.
        keepalive_s: a silent client is pinged after this time,
        keepalive_timeout_s: and given up when the ping stays unanswered this long.
        min_ping_interval_s: a client that pings more often is sent away.
        idle_s: a connection without calls is closed after this time.
        max_age_s: a connection is asked to reconnect at this age, so that load spreads after a deployment.
        block_threshold_s: a loop turn longer than this is reported with the method and the stack.
        spin_turns: how many turns of the loop the next call is looked out for before the loop sleeps, where that pays;
            a turn takes some 1.5 microseconds. 0: sleep at once.
        connection: limits of each connection: frames, messages, metadata, calls, stream windows.
    """

    max_connections: int = 10_000
    max_running: int = 10_000
    max_memory_bytes: int = 512 * 1024 * 1024
    threads: int = 32
    processes: int = 2
    handshake_timeout_s: float = 5.0
    stall_s: float = 30.0
    keepalive_s: float | None = 60.0
    keepalive_timeout_s: float = 20.0
    min_ping_interval_s: float = 1.0
    idle_s: float | None = 600.0
    max_age_s: float | None = None
    block_threshold_s: float | None = 0.5
    spin_turns: int = DEFAULT_TURNS
    connection: Settings = dataclasses.field(default_factory=Settings)


class Server:
    """Serves implementations at one or more endpoints. Use it as ``async with``: leaving it drains.

    Args:
        implementations: instances of decorated classes or of skeletons.
        listen: endpoints to listen at.
        middleware: wraps every handler, the first outermost.
        limits: what is refused, and when.
        grace_s: how long a drain waits for calls in progress, in seconds.
        dev: send tracebacks of unexpected errors to the caller.
        transports: by scheme; the standard ones unless given.

    Attributes:
        health: how the services do; clients hear of it by heartbeats.
        instance: names this run of the server.

    Raises:
        InterfaceError: an implementation lacks a method, or two serve the same name.
        TypeError: an argument is of the wrong kind; the message says which, and what to write.
    """

    def __init__(
        self,
        *implementations: Any,
        listen: Sequence[str | Endpoint],
        middleware: Sequence[Middleware] = (),
        limits: Limits | None = None,
        grace_s: float = 10.0,
        dev: bool = False,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        if limits is not None:
            check_instance(limits, "limits", Limits, "Limits()")
        check_middleware(middleware)
        check_number(grace_s, "grace_s")
        if isinstance(listen, str | Endpoint):
            raise TypeError(f"listen={str(listen)!r} is one endpoint: write listen=[{str(listen)!r}]")
        self.limits = limits or Limits()
        self.grace_s = grace_s
        self._listen = [Endpoint.parse(endpoint) for endpoint in listen]
        self._transports = dict(transports or default_transports())
        for endpoint in self._listen:
            if endpoint.scheme not in self._transports and endpoint.scheme != "udp":
                raise ValueError(
                    f"{endpoint} needs a transport for {endpoint.scheme}://, and this server has none"
                )
        self._load = Load(self.limits.max_running, dev=dev)
        self._resources = Resources(Budget(self.limits.max_memory_bytes), Spin(self.limits.spin_turns))
        self._executors = Executors(self.limits.threads, self.limits.processes)
        self.specs = [spec_of(implementation) for implementation in implementations]
        self._codes: dict[CodeType, str] = {}
        self.health = Health(spec.name for spec in self.specs)
        self.instance = f"{new_rng().getrandbits(64):016x}"
        own = [Reflection(self.specs), self.health]
        self._table = self._make_table([*implementations, *own], middleware)
        self._lag = LagMeter(_LAG_INTERVAL_S)
        self._started_at = 0.0
        self._before_drain: list[Callable[[], Awaitable[None]]] = []
        self._listeners: list[Listener] = []
        self._datagrams: list[tuple[DatagramListener, DatagramServer]] = []
        self._connections: dict[ServerConnection, float] = {}
        self._leaving: dict[ServerConnection, float] = {}
        self._emptied = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._watchdog: Watchdog | None = None
        self._drained: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()
        self._stopped = False
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        where = ", ".join(endpoint.address for endpoint in self.endpoints) or "nowhere yet"
        return f"<Server of {', '.join(spec.name for spec in self.specs) or 'nothing'} at {where}>"

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the server listens, with the actual ports."""
        streams = [listener.endpoint for listener in self._listeners]
        return (*streams, *(datagrams.endpoint for datagrams, _ in self._datagrams))

    @property
    def endpoint(self) -> Endpoint:
        """The first of the endpoints."""
        return self.endpoints[0]

    @property
    def running(self) -> int:
        """Handlers running now."""
        return self._load.running

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._connections)

    async def start(self) -> Self:
        """Listen. Raises OSError or ValueError when an endpoint cannot be had; nothing stays open then."""
        try:
            for endpoint in self._listen:
                await self._listen_at(endpoint)
        except BaseException:
            for listener in self._listeners:
                listener.close()
            for datagrams, _ in self._datagrams:
                datagrams.close()
            raise
        self._started_at = asyncio.get_running_loop().time()
        self._lag.start()
        self._sweep()
        if self.limits.block_threshold_s is not None:
            self._watchdog = Watchdog(self.limits.block_threshold_s, self._codes)
            self._watchdog.start()
        return self

    def before_drain(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Have something done first when the server begins to drain, such as being taken off a registry's list.

        It is waited for a moment only, and not at all when the server is closed at once.
        """
        self._before_drain.append(leave)

    async def drain(self, grace_s: float | None = None) -> None:
        """Stop without losing a call: listen no more, ask clients to go, let calls end, for at most the grace.

        Calls that arrive from clients which have not yet heard are still served. After the grace, handlers still
        running are cancelled. Cancelling this closes at once. May be called again: all callers wait for the same end.
        """
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_task(
                self._drain(self.grace_s if grace_s is None else grace_s)
            )
        try:
            await asyncio.shield(self._drained)  # a task of its own: whoever is cancelled, the end is reached
        except asyncio.CancelledError:
            self._cut.set()
            raise

    async def close(self) -> None:
        """Stop at once, also amid a drain: running handlers are cancelled, their callers get UNAVAILABLE."""
        self._cut.set()
        await self.drain(0.0)

    async def wait_closed(self) -> None:
        """Wait until the server has been drained or closed."""
        await self._closed.wait()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    def _make_table(self, implementations: Sequence[Any], middleware: Sequence[Middleware]) -> Table:
        entries: list[Entry | None] = [None]
        by_name: dict[str, Entry] = {}
        services: dict[str, tuple[str, dict[str, MethodEntry]]] = {}
        for implementation in implementations:
            spec = spec_of(implementation)
            if spec.name in services:
                raise InterfaceError(
                    f"two implementations serve {spec.name!r}; give one of the services another name"
                )
            methods: dict[str, MethodEntry] = {}
            for method, handler in handlers_of(implementation, self._executors).items():
                entry = Entry(codec_of(method), handler, middleware)
                methods[method.name] = MethodEntry(len(entries), method.fingerprint)
                by_name[method.path] = entry
                entries.append(entry)
                code = getattr(inspect.unwrap(getattr(implementation, method.attribute)), "__code__", None)
                if code is not None:
                    self._codes[code] = method.path
            services[spec.name] = (spec.version, methods)
        memory = next((wrap.memory for wrap in middleware if isinstance(wrap, Dedupe)), "")
        return Table(entries, by_name, Hello(self.limits.connection, services, memory))

    async def _listen_at(self, endpoint: Endpoint) -> None:
        if endpoint.scheme == "udp":
            receiver = DatagramServer(self._table, self._load, self.limits.connection.max_metadata_bytes)
            self._datagrams.append((await DatagramTransport().listen(endpoint, lambda: receiver), receiver))
            return
        self._listeners.append(await self._transports[endpoint.scheme].listen(endpoint, self._accept))

    def _accept(self) -> asyncio.BufferedProtocol:
        limits = self.limits
        connection = ServerConnection(
            self._resources,
            limits.connection,
            self._table,
            self._load,
            on_open=self._opened,
            on_closed=self._gone,
        )
        connection.session.guard_pings(limits.min_ping_interval_s)
        connection.session.wait_for_reader()
        connection.session.load = self._report_load
        return connection.session

    def _opened(self, connection: ServerConnection) -> None:
        if self._stopped:  # it was in the middle of a TLS handshake
            connection.session.abort("the server has shut down")
            return
        limits = self.limits
        self._connections[connection] = asyncio.get_running_loop().time()
        self._emptied.clear()
        connection.session.keep_alive(limits.keepalive_s, limits.keepalive_timeout_s)
        if len(self._connections) > limits.max_connections:
            connection.refuse(
                f"this server has {limits.max_connections:,} connections, which is its limit; call another one"
            )

    def _gone(self, connection: ServerConnection) -> None:
        self._connections.pop(connection, None)
        self._leaving.pop(connection, None)
        if not self._connections:
            self._emptied.set()

    def _report_load(self) -> dict[str, Any]:
        load: dict[str, Any] = {
            "running": self._load.running,
            "draining": self._load.draining,
            "lag_s": round(self._lag.lag_s, 6),
            "uptime_s": round(asyncio.get_running_loop().time() - self._started_at, 3),
            "instance": self.instance,
            "ping_s": self.limits.min_ping_interval_s,
        }
        unhealthy = self.health.unhealthy()[:_MAX_UNHEALTHY]
        if unhealthy:
            load["unhealthy"] = unhealthy
        return load

    def _sweep(self) -> None:
        """Look at every connection about once a second: unfinished handshakes, idle and old ones, those that stay."""
        loop, limits = asyncio.get_running_loop(), self.limits
        now = loop.time()
        for connection, opened_at in list(self._connections.items()):
            age_s = now - opened_at
            if not connection.greeted:
                if age_s >= limits.handshake_timeout_s:
                    connection.session.fail(
                        Code.DEADLINE_EXCEEDED, f"no HELLO within {limits.handshake_timeout_s:g} s"
                    )
            elif connection.session.is_stalled(limits.stall_s):
                reason = f"a message that was arriving came to a stand for {limits.stall_s:g} s"
                connection.session.fail(Code.DEADLINE_EXCEEDED, reason)
            elif connection in self._leaving:
                quiet = connection.running == 0 and not connection.session.receiving
                if quiet and now - self._leaving[connection] >= _LEAVING_S:
                    connection.session.close("the client was asked to go and stayed")
            elif limits.max_age_s is not None and age_s >= limits.max_age_s:
                self._send_away(connection, "the connection has reached its age limit; connect again")
            elif (
                limits.idle_s is not None
                and connection.running == 0
                and not connection.session.receiving
                and now - connection.idle_since >= limits.idle_s
            ):
                self._send_away(connection, "the connection was idle for too long; connect again when needed")
        self._sweeper = loop.call_later(min(1.0, limits.handshake_timeout_s / 2), self._sweep)

    def _send_away(self, connection: ServerConnection, reason: str) -> None:
        self._leaving[connection] = asyncio.get_running_loop().time()
        connection.send_away(reason)

    async def _drain(self, grace_s: float) -> None:
        if self._before_drain and grace_s > 0:
            await self._part(min(grace_s, _PARTING_S))
        self._load.draining = True
        self.health.end()
        for listener in self._listeners:
            listener.close()
        try:
            for connection in list(self._connections):
                connection.send_away("the server is shutting down")
            await self._until_quiet(grace_s)
        finally:
            await self._stop()

    async def _part(self, patience_s: float) -> None:
        """Do what is to be done before a drain, no longer than the patience or the cut."""
        parting = asyncio.gather(*(leave() for leave in self._before_drain), return_exceptions=True)
        cut = asyncio.ensure_future(self._cut.wait())
        either: list[asyncio.Future[Any]] = [parting, cut]
        try:
            await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.cancel()
        if not parting.done():
            parting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await parting
            logger.warning("a registry did not take this server off its list within %g s", patience_s)
            return
        for outcome in parting.result():
            if isinstance(outcome, Exception):
                logger.warning("before the drain: %s", outcome)

    async def _until_quiet(self, grace_s: float) -> None:
        """Wait until clients have left and no one-way call of a datagram runs; no longer than the grace, or the cut."""
        waiting = [asyncio.ensure_future(event) for event in (self._quiet(), self._cut.wait())]
        try:
            await asyncio.wait(waiting, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _quiet(self) -> None:
        while True:
            datagrams = [task for _, receiver in self._datagrams for task in receiver.tasks]
            if self._connections:
                await self._emptied.wait()
            elif datagrams:
                await asyncio.wait(datagrams)
            else:
                return

    async def _stop(self) -> None:
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for datagrams, receiver in self._datagrams:
            datagrams.close()
            for task in receiver.tasks:
                task.cancel()
        cut_off = list(self._connections)
        for connection in cut_off:
            if connection.running:
                logger.warning(
                    "%d calls of %s were cut off at the end of the grace",
                    connection.running,
                    connection.session.peer_name,
                )
            connection.cut_off("the server has shut down")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDING_S):
                    if self._connections:
                        await self._emptied.wait()
                    await asyncio.gather(*(connection.session.wait_closed() for connection in cut_off))
            for listener in self._listeners:
                await listener.wait_closed()
        finally:  # also when the loop is torn down meanwhile
            self._executors.close()
            self._lag.stop()
            if self._watchdog is not None:
                self._watchdog.stop()
            self._closed.set()


def serve(
    *implementations: Any,
    listen: str | Endpoint | Sequence[str | Endpoint] = "tcp://127.0.0.1:0",
    middleware: Sequence[Middleware] = (),
    limits: Limits | None = None,
    grace_s: float = 10.0,
    dev: bool = False,
    transports: Mapping[str, Transport] | None = None,
) -> Server:
    """A server for the given implementations, listening while it is entered.

        async with rpcfw.serve(Shop(), listen="tcp://127.0.0.1:7000") as server:
            await server.wait_closed()

    Args:
        implementations: instances of decorated classes or of skeletons; several services may share a server.
        listen: one endpoint or several; port 0 asks for a free one, told by `server.endpoint`.
        middleware: wraps every handler, the first outermost.
        limits: see `Limits`.
        grace_s: how long leaving the server waits for calls in progress, in seconds.
        dev: send tracebacks of unexpected errors to callers; never in production.
        transports: by scheme; the standard ones unless given.

    Raises:
        InterfaceError: an implementation lacks a method, or two serve the same name.
        OSError: on entering, when an endpoint cannot be listened at.
    """
    endpoints = [listen] if isinstance(listen, str | Endpoint) else listen
    return Server(
        *implementations,
        listen=endpoints,
        middleware=middleware,
        limits=limits,
        grace_s=grace_s,
        dev=dev,
        transports=transports,
    )
