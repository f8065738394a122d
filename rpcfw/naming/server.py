"""The registry itself: a `Table` served as `NameService`, with the loop's time, watches, and an end.

It keeps nothing on disk: whoever is alive registers again with the next run, at once. Until the first lease after its
start has passed it says that it may not know all, and clients then drop nothing that they knew. After Eureka's
self-preservation, where a registry that has just started is not believed to know that nobody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from rpcfw.call import serving
from rpcfw.chance import new_rng
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.naming.interface import (
    DEFAULT_PORT,
    LEASE_S,
    Answer,
    Bound,
    Claim,
    Granted,
    NameService,
    Snapshot,
    Terms,
)
from rpcfw.naming.table import MAX_LEASE_CHARACTERS, MAX_NAME, Binding, Bounds, Table, check_words
from rpcfw.registry.registration import Registration, from_network
from rpcfw.server import Limits, Server
from rpcfw.server import serve as serve_service
from rpcfw.transport import Transport

MAX_AT_ONCE = 1000
"""The most registrations, and the most names, of one lease."""
_GAP_S = 0.05
"""The shortest time between two snapshots of one watch: a hundred servers that start at once come in a few."""
_PORT = re.compile(r":\d+(?= \(|$)")


class NameServer(NameService):
    """A registry. One object serves one event loop.

    Args:
        lease_s: how long a registration outlives its server, in seconds, from 0.1 to a day.
        bounds: what it takes upon itself.
        settling_s: how long after its start it may not know all; the length of a lease unless given.

    Attributes:
        run: names this run.
    """

    def __init__(
        self, *, lease_s: float = LEASE_S, bounds: Bounds | None = None, settling_s: float | None = None
    ) -> None:
        if not 0.1 <= lease_s <= 86_400:
            raise ValueError(f"lease_s={lease_s!r} must be from 0.1 to 86400 seconds")
        self.run = f"{new_rng().getrandbits(64):016x}"
        self._lease_s = lease_s
        self._bounds = bounds or Bounds()
        self._table = Table(lease_s, self._bounds, self._wake)
        self._settling_s = lease_s if settling_s is None else settling_s
        self._settled_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._streams: Counter[str] = Counter()
        self._ended = False
        with contextlib.suppress(RuntimeError):  # made where no loop runs: time begins with the first call
            self._begin()

    # ------------------------------------------------------------------------------------------------ leases

    async def register(
        self, lease: str, number: int, registrations: list[str], names: list[Claim]
    ) -> Granted:
        """See `NameService.register`."""
        check_words("lease", [lease], MAX_LEASE_CHARACTERS)
        check_words("name", [claim.name for claim in names], MAX_NAME)
        for what, given in (("registrations", registrations), ("names", names)):
            if len(given) > MAX_AT_ONCE:
                raise RpcError(
                    Code.RESOURCE_EXHAUSTED,
                    f"{len(given):,} {what} under one lease are over {MAX_AT_ONCE:,}; use several leases",
                )
        read = [(text, _read(text)) for text in registrations]
        for claim in names:
            _read(claim.registration)
        refused = self._table.register(self._begin(), _client(), (lease, number), read, names)
        self._set_timer()
        return Granted(self._lease_s, refused)

    async def renew(self, lease: str, number: int) -> Granted | None:
        """See `NameService.renew`."""
        refused = self._table.renew(self._begin(), lease, number)
        return Granted(self._lease_s, refused) if refused is not None else None

    async def withdraw(self, lease: str, number: int) -> None:
        """See `NameService.withdraw`. The lease stays until its end, so that no late request revives it."""
        await self.register(lease, number, [], [])

    # ------------------------------------------------------------------------------------------------ streams

    async def session(self) -> AsyncIterator[Terms]:
        """See `NameService.session`."""
        with self._stream():
            yield Terms(self.run, self._lease_s)
            while not self._ended:
                await self._news("")

    async def watch(self, service: str, run: str = "", revision: int = -1) -> AsyncIterator[Snapshot]:
        """See `NameService.watch`. What changes while a watcher is slow, or within 50 ms, comes as one."""
        check_words("service", [service], MAX_NAME)
        table, known = self._table, revision if run == self.run else -1
        with self._stream():
            greeted = False
            while not self._ended:
                now, current = self._begin(), table.revision(service)
                if greeted and current == known:
                    await self._news(service)
                    continue
                listed = None if current == known else table.listed(service)
                known, greeted = current, True
                yield Snapshot(current, now, self._left_s(now), listed)
                await asyncio.sleep(_GAP_S)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """One more stream of this client. Raises RpcError RESOURCE_EXHAUSTED, or UNAVAILABLE at the end."""
        if self._ended:
            raise RpcError(Code.UNAVAILABLE, "this registry is going; use another one", executed=False)
        client, bounds = _client(), self._bounds
        share = bounds.share(bounds.max_streams)
        if self._streams.total() >= bounds.max_streams or self._streams[client] >= share:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{self._streams[client]:,} watches and sessions of {client} are open here, of "
                f"{self._streams.total():,} in all; the limits are {share:,} and {bounds.max_streams:,}",
                executed=False,
            )
        self._streams[client] += 1
        try:
            yield
        finally:
            self._streams[client] -= 1
            if not self._streams[client]:
                del self._streams[client]

    async def _news(self, service: str) -> None:
        """Wait for a change of a service, or for the end; of no service when its name is empty."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(service, set())
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiting.get(service) is waiters:
                del self._waiting[service]

    def _wake(self, service: str) -> None:
        for waiter in self._waiting.get(service, ()):
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------ asking

    async def services(self) -> list[str]:
        """See `NameService.services`."""
        return self._table.services()

    async def find(self, name: str) -> Answer:
        """See `NameService.find`."""
        now = self._begin()
        binding = self._table.names.get(name)
        return Answer(_bound(name, binding, now) if binding else None, self._left_s(now))

    async def names(self) -> list[Bound]:
        """See `NameService.names`."""
        now = self._begin()
        return [_bound(name, binding, now) for name, binding in sorted(self._table.names.items())]

    async def unbind(self, name: str) -> bool:
        """See `NameService.unbind`."""
        return self._table.unbind(name)

    # ------------------------------------------------------------------------------------------------ its life

    async def end(self) -> None:
        """End all streams, so that a drain need not wait for them. Clients keep what they know."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for service in [*self._waiting]:
            self._wake(service)

    def _begin(self) -> float:
        """The time; the first time it is asked for, the registry has started. Raises RuntimeError without a loop."""
        now = asyncio.get_running_loop().time()
        if self._settled_at is None:
            self._settled_at = now + self._settling_s
        return now

    def _left_s(self, now: float) -> float:
        assert self._settled_at is not None
        return max(0.0, self._settled_at - now)

    def _set_timer(self) -> None:
        ends_at = self._table.next_end()
        if self._timer is None and not self._ended and ends_at < float("inf"):
            self._timer = asyncio.get_running_loop().call_at(ends_at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._table.expire(asyncio.get_running_loop().time())
        self._set_timer()


def serve(
    listen: str | Endpoint | Sequence[str | Endpoint] = f"tcp://127.0.0.1:{DEFAULT_PORT}",
    *,
    lease_s: float = LEASE_S,
    bounds: Bounds | None = None,
    limits: Limits | None = None,
    grace_s: float = 10.0,
    transports: Mapping[str, Transport] | None = None,
) -> Server:
    """A server of a registry, serving while it is entered: what ``rpcfw registry`` runs.

        async with rpcfw.naming.serve("tcp://10.0.0.5:7400") as server:
            await server.wait_closed()

    Args:
        listen: one endpoint or several.
        lease_s: how long a registration outlives its server, in seconds.
        bounds: what it takes upon itself.
        limits: of the server; unless given, such that `bounds` are what refuses.
        grace_s: how long a drain waits for calls in progress; watches end at once.
        transports: by scheme; the standard ones unless given.

    Raises:
        ValueError: at an endpoint or a lease that cannot be used.
    """
    service, bounds = NameServer(lease_s=lease_s, bounds=bounds), bounds or Bounds()
    server = serve_service(
        service,
        listen=listen,
        limits=limits or Limits(max_connections=bounds.max_leases, max_running=bounds.max_streams + 1000),
        grace_s=grace_s,
        transports=transports,
    )
    server.before_drain(service.end)
    return server


def _client() -> str:
    """Who asks: the address of its host, with the subject of its certificate where it has shown one."""
    call = serving()
    return _PORT.sub("", call.peer, count=1) if call is not None else ""


def _read(text: str) -> Registration:
    try:
        registration = from_network(text)
        check_words("service", [registration.service], MAX_NAME)
    except ValueError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
    return registration


def _bound(name: str, binding: Binding, now: float) -> Bound:
    return Bound(name, binding.registration, now - binding.bound_at)
