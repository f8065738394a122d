"""The contract of registries can fail: each check finds a fault that is planted in a registry which has none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.registry import MemoryRegistry, Registration, Registry
from rpcfw.testing import registry_contract, registry_failures
from rpcfw.testing.registry_contract import ALL, Check, Store
from rpcfw.testing.virtual_clock import VirtualClock
from tests.registry.test_memory import MemoryPlace

Watching = AsyncGenerator[frozenset[Registration], None]


class Faulty(MemoryRegistry):
    """A registry in memory, to plant faults in."""


class FaultyPlace(MemoryPlace):
    """A place with such registries."""

    def __init__(self, kind: type[Faulty]) -> None:
        super().__init__(forgets=True)
        self._kind = kind

    def open(self) -> Registry:
        return self._kind(self._store)


# ------------------------------------------------------------------------------------------------- faults


class SilentWhenEmpty(Faulty):
    def _show(self, service: str) -> None:
        if self.store.registrations(service):
            super()._show(service)


class ForgetsLabels(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        endpoint = Endpoint.parse(registration.endpoint.address)
        async with super().register(Registration(registration.service, endpoint, registration.version)):
            yield


class SeesOnlyItself(Faulty):
    def refresh(self, service: str | None = None) -> None:
        for watched in self._board.watched():
            self._board.publish(
                watched, [entry for entry, _ in self._held.values() if entry.service == watched]
            )

    def _show(self, service: str) -> None:
        self.refresh()


class ShowsOnlyWhatIsNew(Faulty):
    def _show(self, service: str) -> None:
        found = self.store.registrations(service) or frozenset()
        self._board.publish(service, found - (self._board.known(service) or frozenset()))


class MixesServices(Faulty):
    def _show(self, service: str) -> None:
        entries = [entry.registration for entry in self.store._entries.values()]
        self._board.publish(service, entries)


class KeepsTheFirst(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        if registration.key in self._held:
            yield
            return
        async with super().register(registration):
            yield


class TakesBackAnybodys(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        async with super().register(registration):
            yield
            entry = self.store._entries.get(registration.key)
            if entry is not None:
                self.store.drop(registration, entry.owner)


class RepeatsItself(Faulty):
    async def watch(self, service: str) -> Watching:
        async for snapshot in super().watch(service):
            yield snapshot
            yield snapshot


class MissesWhileBusy(Faulty):
    async def watch(self, service: str) -> Watching:
        queue: asyncio.Queue[frozenset[Registration]] = asyncio.Queue(3)
        task = asyncio.create_task(self._fill(queue, service))
        try:
            while True:
                yield await queue.get()
        finally:
            task.cancel()

    async def _fill(self, queue: asyncio.Queue[frozenset[Registration]], service: str) -> None:
        async for snapshot in super().watch(service):
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(snapshot)


class OneWatchOnly(Faulty):
    async def watch(self, service: str) -> Watching:
        try:
            async for snapshot in super().watch(service):
                yield snapshot
        finally:
            self._board.close()


class ListsWhatWas(Faulty):
    seen: set[str]

    async def services(self) -> frozenset[str]:
        self.__dict__.setdefault("seen", set()).update(await super().services())
        return frozenset(self.seen)


class KeepsAfterAnError(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        entered = super().register(registration)
        self.__dict__.setdefault("entered", []).append(entered)
        await entered.__aenter__()
        yield
        await entered.__aexit__(None, None, None)


class KeepsWhenCancelledEarly(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        entered = super().register(registration)
        self.__dict__.setdefault("entered", []).append(entered)
        await entered.__aenter__()
        await asyncio.sleep(0)  # cancelled here
        try:
            yield
        finally:
            await entered.__aexit__(None, None, None)


class GoesOnAfterClosing(Faulty):
    async def close(self) -> None:
        self._stop_timer()
        for registration, owner in self._held.values():
            self.store.drop(registration, owner)
        self._held.clear()


class LeavesATask(Faulty):
    async def close(self) -> None:
        self._left = asyncio.create_task(asyncio.sleep(30.0))
        await super().close()


class KeepsAfterClosing(Faulty):
    async def close(self) -> None:
        self._board.close()


class HasNoLeases(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        async with super().register(registration):
            self.store._entries[registration.key].end_lease()
            yield


class TakesALeaseOver(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        before = self.store._entries.get(registration.key)
        timer = None if before is None else before.timer
        if before is not None:
            before.timer = None
        async with super().register(registration):
            after = self.store._entries[registration.key]
            if timer is not None:
                after.end_lease()
                after.timer = timer
            self._stop_timer()
            yield


class EmptyInAnOutage(Faulty):
    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "problem" and value:
            for service in self._board.watched():
                self._board.publish(service, [])


class HidesItsProblem(Faulty):
    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, "" if name == "problem" else value)


class KeepsItsProblem(Faulty):
    def __setattr__(self, name: str, value: object) -> None:
        if name != "problem" or value or "problem" not in self.__dict__:
            super().__setattr__(name, value)


class StopsAtAnOutage(Faulty):
    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "problem" and value:
            self._board.close()


class RegistersOnce(Faulty):
    def renew(self) -> None:
        """Nothing."""


class ComesBack(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        async with super().register(registration):
            yield
        if self.problem:
            self._held[registration.key] = registration, object()


class RaisesOnLeaving(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        async with super().register(registration):
            yield
        if self.problem:
            raise RpcError(Code.UNAVAILABLE, self.problem)


class RegistersLater(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        if self.problem:
            self._held[registration.key] = registration, object()
        async with super().register(registration):
            yield


class WaitsForEver(Faulty):
    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        while self.problem:
            await asyncio.sleep(1.0)
        async with super().register(registration):
            yield


class ListsInAnOutage(Faulty):
    async def services(self) -> frozenset[str]:
        return frozenset() if self.problem else await super().services()


class StartsEmpty(Faulty):
    def _show(self, service: str) -> None:
        if self.problem:
            self._board.publish(service, [])
        super()._show(service)


class ClosesSlowly(Faulty):
    async def close(self) -> None:
        while self.problem:
            await asyncio.sleep(1.0)
        await super().close()


FAULTS: dict[Callable[..., object], list[type[Faulty]]] = {
    registry_contract.a_watch_before_any_registration_shows_nobody: [SilentWhenEmpty],
    registry_contract.a_registration_is_seen_and_goes_on_leaving: [ForgetsLabels, RepeatsItself],
    registry_contract.another_process_sees_a_registration: [SeesOnlyItself],
    registry_contract.two_servers_of_a_service_are_both_shown: [ShowsOnlyWhatIsNew],
    registry_contract.two_services_do_not_mix: [MixesServices],
    registry_contract.another_weight_or_label_is_a_change: [KeepsTheFirst, TakesBackAnybodys],
    registry_contract.leaving_takes_back_only_ones_own: [TakesBackAnybodys],
    registry_contract.a_slow_watcher_sees_the_last_state: [MissesWhileBusy],
    registry_contract.two_watchers_see_the_same: [OneWatchOnly],
    registry_contract.services_lists_what_is_offered: [ListsWhatWas],
    registry_contract.a_block_that_raises_takes_back_as_well: [KeepsAfterAnError],
    registry_contract.cancelling_while_registering_leaves_nothing: [
        KeepsWhenCancelledEarly,
        KeepsAfterAnError,
    ],
    registry_contract.closing_ends_watches_and_leaves_no_task: [GoesOnAfterClosing, LeavesATask],
    registry_contract.closing_takes_back_what_is_registered: [KeepsAfterClosing],
    registry_failures.a_dead_servers_registration_goes: [HasNoLeases],
    registry_failures.the_next_run_of_a_dead_server_replaces_it: [TakesALeaseOver],
    registry_failures.an_outage_changes_nothing_for_a_watcher: [
        EmptyInAnOutage,
        HidesItsProblem,
        KeepsItsProblem,
    ],
    registry_failures.a_watch_goes_on_after_an_outage: [StopsAtAnOutage],
    registry_failures.registrations_are_made_again_after_an_outage: [RegistersOnce],
    registry_failures.what_is_left_during_an_outage_does_not_come_back: [ComesBack, RaisesOnLeaving],
    registry_failures.registering_during_an_outage_is_unavailable: [RegistersLater, WaitsForEver],
    registry_failures.listing_services_during_an_outage_is_unavailable: [ListsInAnOutage],
    registry_failures.a_watch_that_begins_during_an_outage_waits_for_its_end: [StartsEmpty],
    registry_failures.closing_during_an_outage_takes_bounded_time: [ClosesSlowly, LeavesATask],
}
PLANTED = [(check, kind) for check, kinds in FAULTS.items() for kind in kinds]


@pytest.mark.parametrize(
    ("check", "kind"), PLANTED, ids=[f"{kind.__name__}-{check.__name__}" for check, kind in PLANTED]
)
async def test_a_planted_fault_is_found(
    check: Check[Store], kind: type[Faulty], virtual_clock: VirtualClock
) -> None:
    with pytest.raises((AssertionError, TimeoutError, StopAsyncIteration, RpcError)) as caught:
        await check(FaultyPlace(kind))
    print(repr(caught.value))


def test_each_check_has_a_planted_fault() -> None:
    assert set(FAULTS) == set(ALL)
