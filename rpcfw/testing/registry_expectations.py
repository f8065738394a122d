"""What the checks of registries are made of: reading a watch, waiting within a place's patience, expecting a refusal.

Every wait ends: with what was waited for, or with an AssertionError that says what came instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry.policy import Registry
from rpcfw.registry.registration import Registration
from rpcfw.testing.registry_places import ORDERS, Place

Snapshot = frozenset[Registration]
_POLL_S = 0.01
_TURNS = 20


def ensure(truth: bool, otherwise: str) -> None:
    """Raise AssertionError, also where ``python -O`` leaves ``assert`` out."""
    if not truth:
        raise AssertionError(otherwise)


class Watch:
    """Reads one watch of a registry and checks what is true of each snapshot, whatever else happens."""

    def __init__(self, place: Place, registry: Registry, service: str = ORDERS) -> None:
        self._place = place
        self._service = service
        self._snapshots = registry.watch(service)
        self._last: Snapshot | None = None

    async def next(self) -> Snapshot:
        """The next snapshot. Raises StopAsyncIteration at the end of the watch."""
        snapshot = await anext(self._snapshots)
        ensure(isinstance(snapshot, frozenset), f"a snapshot is a frozenset, not {snapshot!r}")
        ensure(snapshot != self._last, f"the same snapshot twice: {said(snapshot)}")
        others = {entry.service for entry in snapshot} - {self._service}
        ensure(not others, f"a watch of {self._service} shows {', '.join(sorted(others))} as well")
        self._last = snapshot
        return snapshot

    async def until(
        self, *expected: Registration, always: Registration | None = None, never: Registration | None = None
    ) -> None:
        """Read until a snapshot holds exactly these; those before it must hold `always`, and not `never`."""
        wanted = said(frozenset(expected)) or "nobody"

        def seen(snapshot: Snapshot) -> bool:
            kept = (always is None or always in snapshot) and never not in snapshot
            ensure(kept, f"{wanted} was to come, and {said(snapshot) or 'nobody'} came in between")
            return snapshot == frozenset(expected)

        await self.until_true(seen, wanted)

    async def until_endpoints(self, *expected: Endpoint) -> None:
        """Read until a snapshot holds exactly these endpoints, with these weights."""
        wanted = sorted((endpoint.address, endpoint.weight) for endpoint in expected)
        await self.until_true(
            lambda snapshot: (
                sorted((entry.endpoint.address, entry.endpoint.weight) for entry in snapshot) == wanted
            ),
            str(wanted),
        )

    async def until_true(self, condition: Callable[[Snapshot], bool], wanted: str) -> None:
        """Read until a snapshot fulfils the condition, the last one read included."""
        try:
            async with asyncio.timeout(self._place.patience_s):
                while self._last is None or not condition(self._last):
                    await self.next()
        except TimeoutError:
            seen = "nothing yet" if self._last is None else said(self._last) or "nobody"
            raise AssertionError(
                f"not seen within {self._place.patience_s:g} s: {wanted}; last seen: {seen}"
            ) from None

    async def close(self) -> None:
        """End it."""
        await self._snapshots.aclose()


def said(snapshot: Snapshot) -> str:
    """A snapshot in words."""
    return ", ".join(sorted(f"{entry.service} at {entry.endpoint}" for entry in snapshot))


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Registry]:
    """A registry of the place, closed at the end."""
    registry = place.open()
    try:
        yield registry
    finally:
        await registry.close()


@contextlib.asynccontextmanager
async def watching(place: Place, service: str = ORDERS) -> AsyncIterator[tuple[Registry, Watch]]:
    """A registry of its own with a watch, both closed at the end."""
    async with opened(place) as registry:
        watch = Watch(place, registry, service)
        try:
            yield registry, watch
        finally:
            await watch.close()


async def settle() -> None:
    """Let what is ready run."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def soon(place: Place, condition: Callable[[], bool], wanted: str) -> None:
    """Wait until something is true that nobody is told of."""
    now = asyncio.get_running_loop().time
    ends_at = now() + place.patience_s
    while not condition():
        ensure(now() < ends_at, f"not within {place.patience_s:g} s: {wanted}")
        await asyncio.sleep(_POLL_S)


async def soon_services(place: Place, registry: Registry, *expected: str) -> None:
    """Wait until a registry lists exactly these services."""
    now = asyncio.get_running_loop().time
    ends_at = now() + place.patience_s
    while (found := await registry.services()) != frozenset(expected):
        ensure(now() < ends_at, f"services() gives {sorted(found)} instead of {sorted(expected)}")
        await asyncio.sleep(_POLL_S)


async def refused(place: Place, what: Awaitable[Any], *codes: Code) -> None:
    """Expect an RpcError with one of these codes, in bounded time."""
    refusal: RpcError | None = None
    try:
        async with asyncio.timeout(place.patience_s):
            await what
    except RpcError as error:
        refusal = error
    except TimeoutError:
        raise AssertionError(f"neither done nor refused within {place.patience_s:g} s") from None
    if refusal is None:
        raise AssertionError(f"did not raise {codes[0].name}")
    ensure(refusal.code in codes, f"raised {refusal!r} instead of {codes[0].name}")
    ensure(bool(refusal.message), "an error without a message")


async def enter(registry: Registry, entry: Registration) -> None:
    """Register, and leave at once."""
    async with registry.register(entry):
        pass


async def ended(watch: Watch) -> None:
    """Expect the end of a watch."""
    try:
        snapshot = await watch.next()
    except StopAsyncIteration:
        return
    raise AssertionError(f"a watch of a closed registry goes on, with {said(snapshot) or 'nobody'}")
