"""The part of the registries' contract that is about failure: servers that die, and a store that is away."""

from __future__ import annotations

import asyncio
import contextlib

from rpcfw.errors import Code
from rpcfw.testing.registry_expectations import (
    Watch,
    ended,
    ensure,
    enter,
    opened,
    refused,
    settle,
    soon,
    watching,
)
from rpcfw.testing.registry_places import STOCK, Check, Leases, Outages, registration

# ------------------------------------------------------------------------------------------------ leases


async def a_dead_servers_registration_goes(place: Leases) -> None:
    """By itself, while that of one that lives stays."""
    alive, dead = registration(7001), registration(7002)
    async with opened(place) as server, watching(place) as (_, watch):
        dying = place.open()
        ended = contextlib.AsyncExitStack()
        await ended.enter_async_context(dying.register(dead))
        async with server.register(alive):
            await watch.until(alive, dead)
            await place.crash(dying)
            await watch.until(alive)
            await ended.aclose()
            await dying.close()


async def the_next_run_of_a_dead_server_replaces_it(place: Leases) -> None:
    """Without waiting for the lease to end, and the end of that lease does not touch it."""
    old, new, other = registration(weight=100), registration(weight=10), registration(7002)
    async with opened(place) as server, watching(place) as (_, watch):
        dying, witness = place.open(), place.open()
        ended = contextlib.AsyncExitStack()
        await ended.enter_async_context(dying.register(old))
        await ended.enter_async_context(witness.register(other))
        await watch.until(old, other)
        await place.crash(dying)
        async with server.register(new):
            await watch.until(new, other)
            await place.crash(witness)  # its lease is the younger one
            await watch.until(new)
            await ended.aclose()
        await dying.close()
        await witness.close()


# ------------------------------------------------------------------------------------------------ outages


async def an_outage_changes_nothing_for_a_watcher(place: Outages) -> None:
    """What was known stays known, `problem` says what is wrong, and all is well again afterwards."""
    one, two = registration(7001), registration(7002)
    async with opened(place) as server, watching(place) as (client, watch), server.register(one):
        await watch.until(one)
        more = asyncio.create_task(watch.next())
        await place.stop_backend()
        try:
            await soon(place, lambda: bool(client.problem), "a `problem` of the watching registry")
            await settle()
            ensure(not more.done(), f"the watch went on during the outage: {more!r}")
        finally:
            await place.start_backend()
            more.cancel()
            await asyncio.wait([more])
        again = Watch(place, client)
        await soon(place, lambda: not server.problem, "the end of the `problem` of the server's registry")
        async with server.register(two):
            await again.until(one, two)
        await soon(place, lambda: not client.problem, "the end of the `problem`")
        await again.close()


async def a_watch_goes_on_after_an_outage(place: Outages) -> None:
    """The very watch that was there before."""
    one, two = registration(7001), registration(7002)
    async with opened(place) as server, watching(place) as (client, watch):
        async with server.register(one):
            await watch.until(one)
            await place.stop_backend()
            await soon(place, lambda: bool(client.problem), "a `problem` of the watching registry")
            await place.start_backend()
            await soon(place, lambda: not server.problem, "the end of the `problem` of the server's registry")
            async with server.register(two):
                await watch.until(one, two)
            await watch.until(one)
        await watch.until()


async def registrations_are_made_again_after_an_outage(place: Outages) -> None:
    """By themselves, although the store may have forgotten them; one who was not there before sees it."""
    one, two = registration(7001), registration(7002, service=STOCK)
    async with opened(place) as server, server.register(one), server.register(two):
        await place.stop_backend()
        await soon(
            place, lambda: bool(server.problem), "a `problem` of the registry that keeps registrations"
        )
        await place.start_backend()
        async with watching(place) as (_, watch), watching(place, STOCK) as (_, stocks):
            await watch.until(one)
            await stocks.until(two)


async def what_is_left_during_an_outage_does_not_come_back(place: Outages) -> None:
    """Leaving raises nothing, takes bounded time, and is meant."""
    one, two = registration(7001), registration(7002)
    async with opened(place) as server, server.register(one):
        leaving = contextlib.AsyncExitStack()
        await leaving.enter_async_context(server.register(two))
        await place.stop_backend()
        async with asyncio.timeout(place.patience_s):
            await leaving.aclose()
        await place.start_backend()
        async with watching(place) as (_, watch):
            await watch.until(one)


async def registering_during_an_outage_is_unavailable(place: Outages) -> None:
    """In bounded time; and it is not done later, when nobody wants it any more."""
    unwanted, one, two = registration(7001), registration(7002), registration(7003)
    async with opened(place) as server:
        await place.stop_backend()
        try:
            await refused(place, enter(server, unwanted), Code.UNAVAILABLE)
        finally:
            await place.start_backend()
        async with watching(place) as (other, watch), other.register(one):
            again = Watch(place, server)
            await again.until(
                one, never=unwanted
            )  # it reaches the store again, and could do what it has put off
            await settle()
            async with other.register(two):
                await watch.until(one, two, never=unwanted)
            await again.close()


async def listing_services_during_an_outage_is_unavailable(place: Outages) -> None:
    """In bounded time."""
    async with opened(place) as reader:
        await place.stop_backend()
        try:
            await refused(place, reader.services(), Code.UNAVAILABLE, Code.UNIMPLEMENTED)
        finally:
            await place.start_backend()


async def a_watch_that_begins_during_an_outage_waits_for_its_end(place: Outages) -> None:
    """It raises nothing, and shows no state that nobody knows."""
    entry = registration()
    async with opened(place) as server:
        await place.stop_backend()
        async with watching(place) as (client, watch):
            first = asyncio.create_task(watch.next())
            try:
                await soon(place, lambda: bool(client.problem), "a `problem` of the watching registry")
                await settle()
                ensure(not first.done(), f"a watch begun in an outage gave {first!r}")
            finally:
                await place.start_backend()
            await asyncio.wait([first], timeout=place.patience_s)
            ensure(first.done(), "a watch begun in an outage shows nothing after it")
            await first
            async with server.register(entry):
                await watch.until(entry)


async def closing_during_an_outage_takes_bounded_time(place: Outages) -> None:
    """And leaves no task."""
    before = asyncio.all_tasks()
    registry = place.open()
    watch = Watch(place, registry)
    async with registry.register(registration()):
        await watch.until(registration())
        await place.stop_backend()
        async with asyncio.timeout(place.patience_s):
            await registry.close()
    await ended(watch)
    await soon(place, lambda: not asyncio.all_tasks() - before, "the end of all tasks of a closed registry")
    await place.start_backend()


# ------------------------------------------------------------------------------------------------ all of it

LEASES: tuple[Check[Leases], ...] = (
    a_dead_servers_registration_goes,
    the_next_run_of_a_dead_server_replaces_it,
)
"""For those that notice that a server is dead."""

OUTAGES: tuple[Check[Outages], ...] = (
    an_outage_changes_nothing_for_a_watcher,
    a_watch_goes_on_after_an_outage,
    registrations_are_made_again_after_an_outage,
    what_is_left_during_an_outage_does_not_come_back,
    registering_during_an_outage_is_unavailable,
    listing_services_during_an_outage_is_unavailable,
    a_watch_that_begins_during_an_outage_waits_for_its_end,
    closing_during_an_outage_takes_bounded_time,
)
"""For those whose store can be away."""
