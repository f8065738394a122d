"""A registry in memory: any number of `MemoryRegistry` objects that share one `MemoryStore`.

For tests, simulated clusters and servers within one process; nothing here does I/O. It keeps all that a registry over a
network keeps, leases and outages included, so that what works with it works with those. After etcd's leases, renewed at
a third of their length.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import itertools
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NoReturn

from rpcfw.errors import Code, RpcError
from rpcfw.registry.registration import Registration
from rpcfw.registry.snapshots import Board

_RENEWALS = 3
"""How often a lease is renewed in its length."""


class MemoryStore:
    """What registries in memory share. One object serves one event loop, as the registries do.

    Args:
        lease_s: how long a registration outlives its server, in seconds, above 0.
    """

    def __init__(self, *, lease_s: float = 10.0) -> None:
        if not lease_s > 0:
            raise ValueError(f"lease_s={lease_s!r} must be above 0: leases would end before they begin")
        self.lease_s = lease_s
        self._stopped = ""
        self._entries: dict[str, _Entry] = {}
        self._next = itertools.count().__next__
        self._registries: weakref.WeakValueDictionary[int, MemoryRegistry] = weakref.WeakValueDictionary()

    # ------------------------------------------------------------------------------------------- outages

    def stop(self, *, forget: bool = False) -> None:
        """Be out of reach until `start`, and with `forget` lose what is registered."""
        self._stopped = "the store in memory is stopped; call its start()"
        for entry in self._entries.values():
            entry.end_lease()
        if forget:
            self._entries.clear()
        for registry in self._registries.values():
            registry.problem = self._stopped

    def start(self) -> None:
        """Be reachable again. What is still known gets a new lease, and what was forgotten is registered again."""
        if not self._stopped:
            return
        self._stopped = ""
        for key in self._entries:
            self._lease(key)
        registries = [*self._registries.values()]
        for registry in registries:
            registry.problem = ""
            registry.soon(registry.renew)
        for registry in registries:  # those that begin anew come first, so that no watcher sees the gap
            registry.soon(registry.refresh)

    # ------------------------------------------------------------------------------------ for registries

    def join(self, registry: MemoryRegistry) -> int:
        """Tell a registry of changes from now on; the number identifies it."""
        number = self._next()
        self._registries[number] = registry
        registry.problem = self._stopped
        return number

    def leave(self, number: int) -> None:
        """Tell it nothing any more."""
        self._registries.pop(number, None)

    def put(self, registration: Registration, owner: object) -> None:
        """Keep a registration, in place of another of its key. Raises RpcError UNAVAILABLE while stopped."""
        if not self._hears():
            self._refuse()
        before = self._entries.get(registration.key)
        if before is not None:
            before.end_lease()
        self._entries[registration.key] = _Entry(registration, owner)
        self._lease(registration.key)
        if before is None or before.registration != registration:
            self._changed(registration.service)

    def renew(self, registration: Registration, owner: object) -> None:
        """Begin its lease anew, or register it again when the store has lost it; another's is left alone."""
        if not self._hears():
            return
        entry = self._entries.get(registration.key)
        if entry is None:
            self.put(registration, owner)
        elif entry.owner is owner:
            self._lease(registration.key)

    def drop(self, registration: Registration, owner: object) -> None:
        """Take it back, unless it is another's by now. While the store is stopped its lease ends it."""
        entry = self._entries.get(registration.key)
        if entry is not None and entry.owner is owner and self._hears():
            self._end(registration.key)

    def registrations(self, service: str) -> frozenset[Registration] | None:
        """All of a service; None while stopped."""
        if not self._hears():
            return None
        return frozenset(
            entry.registration for entry in self._entries.values() if entry.registration.service == service
        )

    def services(self) -> frozenset[str]:
        """All that have a registration. Raises RpcError UNAVAILABLE while stopped."""
        if not self._hears():
            self._refuse()
        return frozenset(entry.registration.service for entry in self._entries.values())

    def _hears(self) -> bool:
        """Whether what is done now arrives: not while stopped, nor from a simulated host that has lost its power."""
        host = getattr(asyncio.get_running_loop(), "host", None)
        return not self._stopped and not getattr(host, "dead", False)

    def _refuse(self) -> NoReturn:
        raise RpcError(Code.UNAVAILABLE, self._stopped or "this host has no power")

    def _lease(self, key: str) -> None:
        entry = self._entries[key]
        entry.end_lease()
        # In a context of its own: under simulation it then belongs to no host, and outlives them all.
        loop = asyncio.get_running_loop()
        entry.timer = contextvars.Context().run(loop.call_later, self.lease_s, self._end, key)

    def _end(self, key: str) -> None:
        entry = self._entries.pop(key)
        entry.end_lease()
        self._changed(entry.registration.service)

    def _changed(self, service: str) -> None:
        for registry in [*self._registries.values()]:
            registry.refresh(service)


@dataclasses.dataclass(slots=True)
class _Entry:
    registration: Registration
    owner: object
    timer: asyncio.Handle | None = None

    def end_lease(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class MemoryRegistry:
    """One process's view of a `MemoryStore`; without one it has a store of its own.

    Attributes:
        store: what it shares with others.
        problem: why the store cannot be reached; empty when it can.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.problem = ""
        self._board = Board(first=self._show, last=self._forget)
        self._held: dict[str, tuple[Registration, object]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._context: contextvars.Context | None = None
        self._number = self.store.join(self)

    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        """Offer a service while the block runs. Raises RpcError UNAVAILABLE at once while the store is stopped."""
        if self._board.closed:
            raise RpcError(Code.FAILED_PRECONDITION, "this registry is closed; make another one")
        self._belong_here()
        owner = object()
        self.store.put(registration, owner)
        self._held[registration.key] = registration, owner
        if self._timer is None:
            self._set_timer()
        try:
            yield
        finally:
            if self._held.get(registration.key, (None, None))[1] is owner:
                del self._held[registration.key]
            self.store.drop(registration, owner)
            if not self._held:
                self._stop_timer()

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """All registrations of a service, as `Registry.watch` has it."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """The names of all services that are offered now. Raises RpcError UNAVAILABLE."""
        return self.store.services()

    async def close(self) -> None:
        """Take back what it has registered, and end its watches. May be called again."""
        self._board.close()
        self._stop_timer()
        for registration, owner in self._held.values():
            self.store.drop(registration, owner)
        self._held.clear()
        self.store.leave(self._number)

    # -------------------------------------------------------------------------------------- for the store

    def soon(self, function: Callable[[], None]) -> None:
        """Call a function in the next turn, as code of the host that uses this registry."""
        asyncio.get_running_loop().call_soon(function, context=self._context)

    def renew(self) -> None:
        """Renew what is registered here, or register it again."""
        for registration, owner in self._held.values():
            self.store.renew(registration, owner)

    def refresh(self, service: str | None = None) -> None:
        """Show the watchers of a service, or of all, what the store knows."""
        for watched in self._board.watched():
            if service is None or watched == service:
                self._show(watched)

    def _forget(self, service: str) -> None:
        self._board.forget(service)

    def _show(self, service: str) -> None:
        self._belong_here()
        found = self.store.registrations(service)
        if found is not None:
            self._board.publish(service, found)

    def _belong_here(self) -> None:
        if self._context is None:
            self._context = contextvars.copy_context()

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.store.lease_s / _RENEWALS, self._on_time)

    def _on_time(self) -> None:
        self._set_timer()
        self.renew()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
