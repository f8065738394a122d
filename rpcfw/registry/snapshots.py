"""What a registry's watchers are shown: the last known registrations of each service, handed out as full snapshots.

A `Board` is the half that every kind of registry needs alike; how the registrations get here is not its business, and
it does no I/O. The registry calls ``publish(service, registrations)`` with all there is, as often as it likes, and
returns ``board.watch(service)`` from its own `watch`. The board conflates for slow watchers, repeats nothing, bounds
what it keeps, and ends all watches with ``close()``. A registry that reads only what somebody watches is told by
``first(service)`` and ``last(service)``, both plain functions called on the loop: the usual first starts a task, the
usual last cancels it and calls ``forget(service)``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable

from rpcfw.registry.registration import Registration

log = logging.getLogger("rpcfw.registry")

MAX_REGISTRATIONS = 4096
"""The most registrations of one service that are kept, unless a board is told otherwise."""


class Board:
    """The last known registrations of each service, and who waits for news of them. One object serves one loop.

    Args:
        first: called with a service when its first watcher begins.
        last: called with a service when its last watcher has ended, by closing or cancelling or because the board
            was closed.
        limit: the most registrations kept of one service. Of more, those whose keys come first are kept, so that all
            clients keep the same ones, and a warning is logged.
    """

    def __init__(
        self,
        *,
        first: Callable[[str], None] | None = None,
        last: Callable[[str], None] | None = None,
        limit: int = MAX_REGISTRATIONS,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit} would keep no registration: give at least 1")
        self._first = first
        self._last = last
        self._limit = limit
        self._known: dict[str, frozenset[Registration]] = {}
        self._watchers: dict[str, int] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._too_many: set[str] = set()
        self.closed = False

    # ------------------------------------------------------------------------------------ for the registry

    def publish(self, service: str, registrations: Iterable[Registration]) -> None:
        """Say what is registered for a service now: everything, not only what is new. None at all is a fact as well.

        Publishing what is known already wakes nobody. After `close` it does nothing.
        """
        if self.closed:
            return
        snapshot = self._bounded(service, frozenset(registrations))
        if self._known.get(service) == snapshot:
            return
        self._known[service] = snapshot
        self._wake(service)

    def known(self, service: str) -> frozenset[Registration] | None:
        """What was published last for a service; None before the first time, which is not the same as nothing."""
        return self._known.get(service)

    def services(self) -> frozenset[str]:
        """The services that are known to have a registration."""
        return frozenset(service for service, snapshot in self._known.items() if snapshot)

    def watched(self) -> tuple[str, ...]:
        """The services that somebody watches now, those that were watched first before the others."""
        return tuple(self._watchers)

    def forget(self, service: str) -> None:
        """Drop what is known of a service: its next watcher waits for the next `publish`."""
        self._known.pop(service, None)
        self._too_many.discard(service)

    def close(self) -> None:
        """End all watches, those to come as well. May be called again."""
        self.closed = True
        for service in [*self._waiting]:
            self._wake(service)
        self._known.clear()

    # ------------------------------------------------------------------------------------ for the watchers

    async def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """Every change of a service, as `Registry.watch` has it: what is known at once, then each time it differs."""
        if self.closed:
            return
        self._watchers[service] = self._watchers.get(service, 0) + 1
        seen: frozenset[Registration] | None = None
        try:
            if self._watchers[service] == 1 and self._first is not None:
                self._first(service)
            while not self.closed:
                known = self._known.get(service)
                if known is None or known == seen:
                    await self._news(service)
                    continue
                seen = known
                yield known
        finally:
            self._watchers[service] -= 1
            if not self._watchers[service]:
                del self._watchers[service]
                if self._last is not None:
                    self._last(service)

    async def _news(self, service: str) -> None:
        """Wait until a service is published anew, or the board is closed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(service, []).append(waiter)
        try:
            await waiter
        finally:
            others = self._waiting.get(service, [])
            if waiter in others:  # cancelled, not woken
                others.remove(waiter)
                if not others:
                    del self._waiting[service]

    def _wake(self, service: str) -> None:
        for waiter in self._waiting.pop(service, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _bounded(self, service: str, snapshot: frozenset[Registration]) -> frozenset[Registration]:
        if len(snapshot) <= self._limit:
            self._too_many.discard(service)
            return snapshot
        if service not in self._too_many:
            self._too_many.add(service)
            log.warning(
                "%s has %d registrations, more than %d: the others are left out",
                service,
                len(snapshot),
                self._limit,
            )
        by_key = sorted(snapshot, key=lambda registration: (registration.key, str(registration.endpoint)))
        return frozenset(by_key[: self._limit])
