"""The registry in Redis, at a real one: the contract, and what Redis does that others do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from rpcfw.errors import Code, RpcError
from rpcfw.registry import Registry, redis_store, redis_watch, upkeep
from rpcfw.registry.redis import RedisRegistry
from rpcfw.testing import registry_contract
from rpcfw.testing.registry_expectations import Watch, opened
from rpcfw.testing.registry_places import Check, Store, registration
from tests.registry.servers import Dying, Redis, ServerPlace, owned


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with owned(Redis()) as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the keys of one test, so that all can share a server."""
    return f"test-{abs(hash(request.node.name))}"


@pytest.fixture(autouse=True)
def short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LEAVING_S", 0.3)


@pytest.fixture
async def place(redis: Redis, prefix: str) -> AsyncIterator[ServerPlace]:
    def make(port: int) -> Registry:
        return RedisRegistry.from_url(f"redis://127.0.0.1:{port}/0?lease_s=0.3&timeout_s=0.5&prefix={prefix}")

    async with ServerPlace(redis, make, forgets=True) as place:
        yield place


def command(*words: str | bytes) -> bytes:
    """As Redis wants it on the wire."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


@pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
async def test_contract(check: Check[Store], place: ServerPlace) -> None:
    await check(place)


# ------------------------------------------------------------------------------------------------ leases


async def test_a_killed_process_is_forgotten_when_its_lease_ends(
    place: ServerPlace, redis: Redis, prefix: str
) -> None:
    async with opened(place) as registry:
        watch = Watch(place, registry)
        async with Dying(f"redis://127.0.0.1:{redis.port}/0?lease_s=0.3&prefix={prefix}") as process:
            await watch.until(registration())
            await process.kill()
            await watch.until()
        await watch.close()


async def test_nothing_of_dead_servers_stays_in_redis(place: ServerPlace, redis: Redis, prefix: str) -> None:
    async with opened(place) as registry, registry.register(registration()):
        await place.crash(registry)
        assert prefix.encode() in await redis.ask(command("KEYS", f"{prefix}*"))
        async with asyncio.timeout(place.patience_s):
            while await redis.ask(command("KEYS", f"{prefix}*")) != b"*0\r\n":
                await asyncio.sleep(0.05)


async def test_what_another_registered_at_the_same_endpoint_is_left_alone(place: ServerPlace) -> None:
    old, new = registration(weight=100), registration(weight=10)
    async with opened(place) as first, opened(place) as second, opened(place) as client:
        watch = Watch(place, client)
        async with first.register(old):
            await watch.until(old)
            async with second.register(new):
                await watch.until(new)
                more = asyncio.create_task(watch.next())
                await asyncio.wait([more], timeout=0.4)  # while the first renews, several times
                assert not more.done()
            await more
            await watch.until(old)  # made again, now that nobody else is there
        await watch.close()


async def test_who_leaves_is_gone_long_before_the_lease_is_over(
    place: ServerPlace, redis: Redis, prefix: str
) -> None:
    registry = RedisRegistry(f"redis://127.0.0.1:{redis.port}/0", prefix=prefix, lease_s=3600.0)
    watch = Watch(place, registry)
    async with registry.register(registration()):
        await watch.until(registration())
    await watch.until()
    await watch.close()
    await registry.close()


async def test_a_flushed_redis_costs_nobody_a_server(place: ServerPlace, redis: Redis) -> None:
    one, new = registration(7001), registration(7002)
    async with opened(place) as server, opened(place) as other, opened(place) as client:
        watch = Watch(place, client)
        async with server.register(one):
            await watch.until(one)
            await place.relay_of(server).cut()  # so that it is not made again before it is missed
            assert await redis.ask(command("FLUSHALL")) == b"+OK\r\n"
            async with other.register(new):
                assert await watch.next() == {one, new}
                await place.relay_of(server).open()
                async with opened(place) as late:
                    later = Watch(place, late)
                    await later.until(one, new)
                    await later.close()
        await watch.close()


async def test_a_restarted_redis_costs_nobody_a_server(place: ServerPlace) -> None:
    one, new = registration(7001), registration(7002)
    async with opened(place) as server, opened(place) as other, opened(place) as client:
        watch = Watch(place, client)
        async with server.register(one):
            await watch.until(one)
            await place.relay_of(server).cut()
            await place.stop_backend()
            more = asyncio.create_task(watch.next())
            await asyncio.wait(
                [more], timeout=0.4
            )  # longer than the lease, whose end no clock of ours may tell
            assert not more.done()
            await place.start_backend()
            async with other.register(new):
                assert await more == {one, new}
                await place.relay_of(server).open()
        await watch.close()


# ------------------------------------------------------------------------------------------------ the watch


async def test_without_its_channel_a_watch_is_slower_and_no_less_true(
    place: ServerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(self: redis_store.Changes) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(redis_store.Changes, "next", silent)
    monkeypatch.setattr(redis_watch, "READ_S", 0.1)
    async with opened(place) as registry:
        watch = Watch(place, registry)
        await watch.until()
        async with registry.register(registration()):
            await watch.until(registration())
        await watch.until()
        await watch.close()


async def test_a_silent_channel_is_asked_for_a_sign_of_life(
    place: ServerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels: list[None] = []
    changes = redis_store.Server.changes

    def counted(self: redis_store.Server) -> AbstractAsyncContextManager[redis_store.Changes]:
        channels.append(None)
        return changes(self)

    monkeypatch.setattr(redis_store.Server, "changes", counted)
    monkeypatch.setattr(redis_store, "SILENCE_S", 0.05)
    monkeypatch.setattr(redis_watch, "READ_S", 600.0)
    async with opened(place) as registry:
        watch = Watch(place, registry)
        await watch.until()
        more = asyncio.create_task(watch.next())
        await asyncio.wait([more], timeout=0.3)
        assert not more.done()
        async with registry.register(registration()):
            await more
            await watch.until(registration())
        await watch.until()
        await watch.close()
    assert len(channels) == 1


async def test_entries_that_are_none_are_left_out_and_told_once(
    place: ServerPlace, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "tcp://1.2.3.4:1": b"nobody \xff",
        "unix:///run/x": b'nobody {"service": "shop.Orders", "endpoint": "unix:///run/x"}',
        "tcp://1.2.3.4:5": b"nobody " + registration(7009).to_json(),
        "tcp://1.2.3.4:6": b"nobody " + b"x" * 1_000_000,
    }
    with caplog.at_level(logging.WARNING, logger="rpcfw.registry"):
        async with opened(place) as registry, registry.register(registration()):
            watch = Watch(place, registry)
            for address, value in bad.items():
                await redis.ask(command("HSET", f"{prefix}:entries:shop.Orders", address, value))
                await redis.ask(command("ZADD", f"{prefix}:expiries:shop.Orders", "9000000000000", address))
            await watch.until(registration())
            async with registry.register(registration(7009)):
                await watch.until(registration(), registration(7009))
            await watch.close()
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 3, told  # the fourth does not even cross the network


# ------------------------------------------------------------------------------------------------ URLs


async def test_a_password_is_never_told(place: ServerPlace, redis: Redis) -> None:
    registry = RedisRegistry.from_url(f"redis://ada:secret@127.0.0.1:{redis.port}/0?timeout_s=0.3")
    with pytest.raises(RpcError) as caught:
        async with registry.register(registration()):
            pass
    assert caught.value.code is Code.UNAVAILABLE
    assert f"127.0.0.1:{redis.port}" in caught.value.message
    assert "secret" not in caught.value.message
    await registry.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1/0?ttl=3", "unknown option ttl"),
        ("redis://127.0.0.1/shop", "the path is the number of a database"),
        ("redis://127.0.0.1/0?lease_s=-1", "lease_s='-1' must be a number of seconds"),
        ("redis://127.0.0.1/0?ca=ca.pem", "ca is for TLS"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RedisRegistry.from_url(url)


async def test_a_redis_that_is_away_or_is_none_is_told_with_the_mend() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.close()

    away = RedisRegistry("redis://127.0.0.1:1")
    with pytest.raises(
        RpcError, match=r"redis at 127\.0\.0\.1:1 cannot be reached: connection refused; check that"
    ):
        await away.services()
    await away.close()
    other = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    registry = RedisRegistry(f"redis://127.0.0.1:{port}")
    with pytest.raises(RpcError, match="is it a Redis server, with TLS"):
        await registry.services()
    await registry.close()
    other.close()
