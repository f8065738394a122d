"""What every registry must do, as checks that anybody can run over a registry of their own.

A check is an async function that is given a *place*: one store, and a way to reach it. It raises AssertionError that
says what is wrong. Run them with whatever runs your tests; with pytest that is::

    @pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
    async def test_contract(check, place):
        await check(place)

Waiting is bounded by the place's `patience_s`, in the time of the running loop, so that a store in memory can be
checked in virtual time. Nothing here knows any kind of registry.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code
from rpcfw.testing.registry_expectations import (
    Watch,
    ended,
    ensure,
    enter,
    opened,
    refused,
    soon,
    soon_services,
    watching,
)
from rpcfw.testing.registry_failures import LEASES, OUTAGES
from rpcfw.testing.registry_places import (
    ORDERS,
    STOCK,
    Check,
    Leases,
    Offers,
    Outages,
    Place,
    Store,
    registration,
)

__all__ = [
    "ALL",
    "LEASES",
    "ORDERS",
    "OUTAGES",
    "REGISTERING",
    "STOCK",
    "WATCHING",
    "Check",
    "Leases",
    "Offers",
    "Outages",
    "Place",
    "Store",
    "name_of",
    "registration",
]

_TURNS = 12


def name_of(check: Callable[..., Any]) -> str:
    """A check's name, for the ``ids`` of a parametrized test."""
    return check.__name__


# ------------------------------------------------------------------------------------------------ watching


async def a_watch_shows_what_is_offered(place: Offers) -> None:
    """At once, with its weight."""
    one, two = _plain(7001, 100), _plain(7002, 7)
    await place.offer(ORDERS, [one, two])
    async with watching(place) as (registry, watch):
        await watch.until_endpoints(one, two)
        ensure(not registry.problem, f"problem is {registry.problem!r} although all is well")


async def a_watch_shows_each_change(place: Offers) -> None:
    """One more, one less, another weight, in full snapshots."""
    one, two = _plain(7001, 100), _plain(7002, 7)
    await place.offer(ORDERS, [one])
    async with watching(place) as (_, watch):
        await watch.until_endpoints(one)
        await place.offer(ORDERS, [one, two])
        await watch.until_endpoints(one, two)
        await place.offer(ORDERS, [two])
        await watch.until_endpoints(two)
        await place.offer(ORDERS, [_plain(7002, 30)])
        await watch.until_endpoints(_plain(7002, 30))


async def what_is_offered_is_of_its_service(place: Offers) -> None:
    """Two services do not mix."""
    one, two = _plain(7001, 100), _plain(7002, 100)
    await place.offer(ORDERS, [one])
    await place.offer(STOCK, [two])
    async with watching(place) as (_, orders), watching(place, STOCK) as (_, stock):
        await orders.until_endpoints(one)
        await stock.until_endpoints(two)


async def a_reader_refuses_registrations(place: Offers) -> None:
    """With FAILED_PRECONDITION and a message."""
    async with opened(place) as registry:
        await refused(place, enter(registry, registration()), Code.FAILED_PRECONDITION)


async def closing_a_reader_ends_its_watches(place: Offers) -> None:
    """Those that have begun and those to come."""
    await place.offer(ORDERS, [_plain(7001, 100)])
    await _closing_ends_watches(place, 1)


def _plain(port: int, weight: int) -> Endpoint:
    return Endpoint.parse(f"tcp://127.0.0.1:{port}?weight={weight}")


# ------------------------------------------------------------------------------------------------ registering


async def a_watch_before_any_registration_shows_nobody(place: Place) -> None:
    """The store answers, and knows of none: an empty snapshot, not silence."""
    async with watching(place) as (registry, watch):
        await watch.until()
        ensure(not registry.problem, f"problem is {registry.problem!r} although all is well")


async def a_registration_is_seen_and_goes_on_leaving(place: Place) -> None:
    """All of it: labels, weight, version, instance, start."""
    entry = registration(weight=30)
    async with watching(place) as (registry, watch):
        await watch.until()
        async with registry.register(entry):
            await watch.until(entry)
        await watch.until()


async def another_process_sees_a_registration(place: Place) -> None:
    """And one that comes later sees it at once."""
    entry = registration()
    async with opened(place) as server, watching(place) as (_, early):
        await early.until()
        async with server.register(entry):
            await early.until(entry)
            async with watching(place) as (_, late):
                await late.until(entry)
        await early.until()


async def two_servers_of_a_service_are_both_shown(place: Place) -> None:
    """Each snapshot is full, and one server's leaving does not touch the other."""
    one, two = registration(7001), registration(7002, zone="b")
    async with opened(place) as first, opened(place) as second, watching(place) as (_, watch):
        await watch.until()
        async with first.register(one):
            await watch.until(one)
            async with second.register(two):
                await watch.until(one, two)
            await watch.until(one)


async def two_services_do_not_mix(place: Place) -> None:
    """Not even at one endpoint."""
    order, stock = registration(7001), registration(7001, service=STOCK)
    async with (
        opened(place) as server,
        watching(place) as (_, orders),
        watching(place, STOCK) as (_, stocks),
        server.register(stock),
    ):
        await stocks.until(stock)
        async with server.register(order):
            await orders.until(order)
        await orders.until()
        await soon_services(place, server, STOCK)


async def another_weight_or_label_is_a_change(place: Place) -> None:
    """A server that registers its endpoint anew replaces what it had said; leaving the older block changes nothing."""
    async with opened(place) as server, watching(place) as (_, watch):
        before, after = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        async with after, before:
            await before.enter_async_context(server.register(registration(weight=100)))
            await watch.until(registration(weight=100))
            await after.enter_async_context(server.register(registration(weight=10)))
            await watch.until(registration(weight=10))
            await after.enter_async_context(server.register(registration(weight=10, zone="b")))
            await watch.until(registration(weight=10, zone="b"))
            await before.aclose()
            async with server.register(registration(7002)):  # whatever leaving did is done before this
                last = registration(weight=10, zone="b")
                await watch.until(last, registration(7002), always=last)
        await watch.until()


async def leaving_takes_back_only_ones_own(place: Place) -> None:
    """Not what the next process has registered for the same endpoint in the meantime."""
    old, new = registration(weight=100), registration(weight=10)
    async with opened(place) as first, opened(place) as second, watching(place) as (_, watch):
        leaving = contextlib.AsyncExitStack()
        await leaving.enter_async_context(first.register(old))
        await watch.until(old)
        async with second.register(new):
            await watch.until(new)
            await leaving.aclose()
            async with first.register(registration(7002)):  # whatever leaving did is done before this
                await watch.until(new, registration(7002), always=new)
        await watch.until()


async def a_slow_watcher_sees_the_last_state(place: Place) -> None:
    """Whatever happened while it was busy: at most a few snapshots, and the last one is true."""
    last = registration(7002)
    async with opened(place) as server, watching(place) as (_, slow), watching(place) as (_, quick):
        await slow.until()
        for weight in range(1, 6):
            async with server.register(registration(weight=weight)):
                await quick.until(registration(weight=weight))
            await quick.until()
        async with server.register(last):
            await quick.until(last)
            await slow.until(last)


async def two_watchers_see_the_same(place: Place) -> None:
    """Of one registry object; the end of one is not the end of the other."""
    entry = registration()
    async with watching(place) as (registry, one):
        other = Watch(place, registry)
        await one.until()
        await other.until()
        async with registry.register(entry):
            await one.until(entry)
            await other.close()
        await one.until()


async def services_lists_what_is_offered(place: Place) -> None:
    """Each once, and none any more."""
    async with opened(place) as server, opened(place) as reader:
        await soon_services(place, reader)
        async with server.register(registration(7001)), server.register(registration(7002)):
            async with server.register(registration(7003, service=STOCK)):
                await soon_services(place, reader, ORDERS, STOCK)
            await soon_services(place, reader, ORDERS)
        await soon_services(place, reader)


async def a_block_that_raises_takes_back_as_well(place: Place) -> None:
    """And its error arrives as itself."""
    entry = registration()
    async with watching(place) as (registry, watch):
        try:
            async with registry.register(entry):
                await watch.until(entry)
                raise KeyError("the server's own")
        except KeyError:
            pass
        await watch.until()


async def cancelling_while_registering_leaves_nothing(place: Place) -> None:
    """Wherever registering waits at that moment."""
    marker = registration(7999)
    async with opened(place) as server, watching(place) as (_, watch):

        async def hold(port: int) -> None:
            async with server.register(registration(port)):
                await asyncio.get_running_loop().create_future()

        for turns in range(_TURNS):
            task = asyncio.create_task(hold(7100 + turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            ensure(task.cancelled(), f"cancelled after {turns} turns, it ended with {task!r}")
        async with server.register(marker):
            await watch.until(marker)
        await watch.until()


async def closing_ends_watches_and_leaves_no_task(place: Place) -> None:
    """Those that wait, those that have begun, and those to come."""
    async with opened(place) as server, server.register(registration()):
        await _closing_ends_watches(place, 1)


async def closing_takes_back_what_is_registered(place: Place) -> None:
    """And leaving the block afterwards raises nothing."""
    async with watching(place) as (_, watch):
        server = place.open()
        async with server.register(registration()):
            await watch.until(registration())
            await server.close()
            await watch.until()
        await server.close()


async def _closing_ends_watches(place: Place, size: int) -> None:
    before = asyncio.all_tasks()
    registry = place.open()
    waiting, idle = Watch(place, registry), Watch(place, registry)
    await waiting.until_true(lambda snapshot: len(snapshot) == size, f"{size} registration(s)")
    await idle.until_true(lambda snapshot: len(snapshot) == size, f"{size} registration(s)")
    waiter = asyncio.create_task(ended(waiting))
    await asyncio.sleep(0)
    await registry.close()
    await registry.close()
    done, _ = await asyncio.wait([waiter], timeout=place.patience_s)
    if not done:
        waiter.cancel()
        await asyncio.wait([waiter])
        raise AssertionError("a watch goes on although its registry is closed")
    await waiter
    await ended(idle)
    await ended(Watch(place, registry))
    await soon(place, lambda: not asyncio.all_tasks() - before, "the end of all tasks of a closed registry")


# ------------------------------------------------------------------------------------------------ all of it

WATCHING: tuple[Check[Offers], ...] = (
    a_watch_shows_what_is_offered,
    a_watch_shows_each_change,
    what_is_offered_is_of_its_service,
    a_reader_refuses_registrations,
    closing_a_reader_ends_its_watches,
)
"""For registries that only read."""

REGISTERING: tuple[Check[Place], ...] = (
    a_watch_before_any_registration_shows_nobody,
    a_registration_is_seen_and_goes_on_leaving,
    another_process_sees_a_registration,
    two_servers_of_a_service_are_both_shown,
    two_services_do_not_mix,
    another_weight_or_label_is_a_change,
    leaving_takes_back_only_ones_own,
    a_slow_watcher_sees_the_last_state,
    two_watchers_see_the_same,
    services_lists_what_is_offered,
    a_block_that_raises_takes_back_as_well,
    cancelling_while_registering_leaves_nothing,
    closing_ends_watches_and_leaves_no_task,
    closing_takes_back_what_is_registered,
)
"""For registries that servers register at."""

ALL: tuple[Check[Store], ...] = (*REGISTERING, *LEASES, *OUTAGES)
"""For those with all of it."""
