"""rpcfw.Health, served by every server: asked, watched, set, and over at the drain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import rpcfw
from rpcfw.connection.channel import Channel
from rpcfw.generic import services_of
from rpcfw.health import MAX_WATCHES, Health, Status
from tests.calls.place import Place, until
from tests.calls.virtual import now, virtual_time


@rpcfw.service("shop.Orders")
class Orders:
    async def get(self) -> int:
        return 1


@rpcfw.service("shop.Stock")
class Stock:
    async def left(self) -> int:
        return 3


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place("mem")
    yield place
    await place.close()


async def watching(health: Health, service: str) -> tuple[AsyncIterator[Status], list[Status]]:
    """A watch, with what it says first."""
    items = health.watch(service)
    return items, [await anext(items)]


async def test_every_server_says_how_its_services_and_all_of_them_together_do(place: Place) -> None:
    server = await place.serve(Orders(), Stock())
    health = place.connect(server).stub(Health)
    assert await health.check() is Status.SERVING
    server.health.set("shop.Stock", Status.NOT_SERVING)
    assert await health.check("shop.Stock") is Status.NOT_SERVING
    assert await health.check("shop.Orders") is Status.SERVING
    assert await health.check() is Status.NOT_SERVING
    server.health.set("", Status.SERVING)
    assert await health.check() is Status.SERVING


async def test_a_server_without_services_is_well(place: Place) -> None:
    server = await place.serve()
    assert await place.connect(server).stub(Health).check() is Status.SERVING


async def test_asking_about_a_service_that_is_not_there_names_those_that_are(place: Place) -> None:
    server = await place.serve(Orders(), Stock())
    with pytest.raises(
        rpcfw.RpcError, match=r"no service 'shop\.Tea' here; there are shop\.Orders, shop\.Stock"
    ):
        await place.connect(server).stub(Health).check("shop.Tea")
    with pytest.raises(rpcfw.RpcError) as caught:
        await place.connect(server).stub(Health).check("rpcfw.Health")
    assert caught.value.code is rpcfw.Code.NOT_FOUND


async def test_what_is_set_must_be_a_service_and_a_status_of_its_own() -> None:
    health = Health(["shop.Orders"])
    with pytest.raises(KeyError, match=r"no service 'shop\.Tea' on this server; there are shop\.Orders"):
        health.set("shop.Tea", Status.SERVING)
    with pytest.raises(ValueError, match=r"must be Status\.SERVING or Status\.NOT_SERVING"):
        health.set("shop.Orders", Status.SERVICE_UNKNOWN)
    assert health.unhealthy() == []


async def test_a_watch_says_how_it_is_and_each_change_once(place: Place) -> None:
    server = await place.serve(Orders(), Stock())
    watch, seen = await watching(place.connect(server).stub(Health), "shop.Orders")
    server.health.set("shop.Stock", Status.NOT_SERVING)  # not about this one
    server.health.set("shop.Orders", Status.SERVING)  # no change
    for status in (Status.NOT_SERVING, Status.SERVING):
        server.health.set("shop.Orders", status)
        seen.append(await anext(watch))
    assert seen == [Status.SERVING, Status.NOT_SERVING, Status.SERVING]
    await contextlib.aclosing(watch).__aexit__(None, None, None)  # type: ignore[type-var]  # a generator


async def test_a_watch_of_an_unknown_service_says_so_and_goes_on(place: Place) -> None:
    server = await place.serve(Orders())
    watch, seen = await watching(place.connect(server).stub(Health), "shop.Tea")
    assert seen == [Status.SERVICE_UNKNOWN]
    await server.drain(5.0)
    assert [status async for status in watch] == []


@virtual_time
async def test_a_drain_ends_watches_and_does_not_wait_for_them() -> None:
    place = Place("mem")
    server = await place.serve(Orders(), grace_s=30.0)
    client = place.connect(server)
    watches = [await watching(client.stub(Health), service) for service in ("", "shop.Orders", "shop.Tea")]
    begun = now()
    await server.drain()
    assert now() - begun < 1.0
    rest = [[status async for status in watch] for watch, _ in watches]
    assert rest == [[Status.NOT_SERVING], [Status.NOT_SERVING], []]
    await place.close()


async def test_more_watches_than_the_limit_are_refused_and_ended_ones_make_room() -> None:
    health = Health(["shop.Orders"])
    watches = [await watching(health, "") for _ in range(MAX_WATCHES)]
    with pytest.raises(rpcfw.RpcError, match="1,000 watches are open here; use check instead") as caught:
        await watching(health, "")
    assert caught.value.code is rpcfw.Code.RESOURCE_EXHAUSTED
    await contextlib.aclosing(watches.pop()[0]).__aexit__(None, None, None)  # type: ignore[type-var]  # a generator
    watches.append(await watching(health, ""))
    health.end()
    for watch, _ in watches:
        assert [status async for status in watch] == [Status.NOT_SERVING]


async def test_a_watch_whose_reader_goes_away_is_over_at_the_server_too(place: Place) -> None:
    server = await place.serve(Orders())
    client = place.connect(server)

    async def watch_on() -> None:
        async for _ in client.stub(Health).watch():
            pass

    watcher = asyncio.create_task(watch_on())
    await until(lambda: server.health._waiting)
    watcher.cancel()
    await asyncio.wait([watcher])
    await until(lambda: server.running == 0)
    assert server.health._watches == 0
    assert not server.health._waiting


async def test_heartbeats_tell_the_services_that_do_badly(place: Place) -> None:
    server = await place.serve(Orders(), Stock())
    client = place.connect(server)
    (channel,) = client.nodes
    assert isinstance(channel, Channel)
    session = (await channel.connected()).session
    await session.ping()
    assert "unhealthy" not in session.peer_load
    server.health.set("shop.Stock", Status.NOT_SERVING)
    await session.ping()
    assert session.peer_load["unhealthy"] == ["shop.Stock"]


async def test_a_server_lists_its_own_services_and_not_those_every_server_has(place: Place) -> None:
    server = await place.serve(Orders())
    assert [service.name for service in await services_of(place.connect(server))] == ["shop.Orders"]
