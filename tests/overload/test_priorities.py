"""Priorities: what matters less is refused first, and a call's class holds for all that is called on its behalf."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import rpcfw
from rpcfw import Call, Middleware
from rpcfw.call import pack_metadata
from rpcfw.limiter import PRIORITY, Gradient, Priority, priority_of
from rpcfw.middleware.adaptive import AdaptiveLimit
from rpcfw.middleware.bulkhead import Bulkhead
from rpcfw.middleware.concurrency import ConcurrencyLimit
from rpcfw.middleware.priority import CarryPriority
from tests.calls.place import Place
from tests.calls.virtual import virtual_time
from tests.overload.shop import Scene, Shop, cancel, refusal_of

METHOD = rpcfw.spec_of(Shop).methods["wait"]


def of(scene: Scene, priority: Priority) -> Shop:
    return rpcfw.with_options(scene.shop, metadata=priority.metadata)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConcurrencyLimit(10),
        lambda: Bulkhead(10, share=1.0),
        lambda: AdaptiveLimit(Gradient(10, min_limit=10, max_limit=10)),
    ],
    ids=["concurrency", "bulkhead", "adaptive"],
)
def test_a_high_class_passes_while_a_low_one_is_refused(make: Callable[[], Middleware]) -> None:
    @virtual_time
    async def scenario() -> None:
        async with Scene(make()) as scene:
            tasks = await scene.fill(8)
            await refusal_of(of(scene, Priority.SHEDDABLE).wait())
            tasks += await scene.fill(1)
            critical = asyncio.ensure_future(of(scene, Priority.CRITICAL).wait("high"))
            await asyncio.sleep(0.01)
            assert scene.service.began[-1] == "high"
            await refusal_of(of(scene, Priority.SHEDDABLE).wait())
            await refusal_of(scene.shop.wait())
            await refusal_of(of(scene, Priority.CRITICAL).wait())
            tasks.pop().cancel()
            await asyncio.sleep(0.01)
            await refusal_of(scene.shop.wait())  # the last tenth is for critical ones now
            tasks.append(asyncio.ensure_future(of(scene, Priority.CRITICAL).wait()))
            await asyncio.sleep(0.01)
            scene.service.gate.set()
            await asyncio.gather(critical, *tasks)

    scenario()


@virtual_time
async def test_a_refusal_says_what_is_kept_from_whom() -> None:
    async with Scene(ConcurrencyLimit(10)) as scene:
        tasks = await scene.fill(8)
        error = await refusal_of(of(scene, Priority.SHEDDABLE).wait())
        assert "8 of 10 calls run, 8 are for sheddable ones" in error.message
        await cancel(tasks)
        await scene.place.settle()


@rpcfw.service("tests.Relay")
class Relay:
    """Says what priority a call came with, at the last of a number of hops."""

    def __init__(self) -> None:
        self.next: Relay | None = None

    async def hop(self, hops: int) -> str:
        if hops:
            assert self.next is not None
            return await self.next.hop(hops - 1)
        return str(rpcfw.current_call().metadata.get(PRIORITY, "none"))


@virtual_time
async def test_a_priority_holds_from_hop_to_hop() -> None:
    place, relay = Place("mem"), Relay()
    server = await place.serve(relay)
    relay.next = place.connect(server, middleware=[CarryPriority()]).stub(Relay)
    first = place.connect(server, middleware=[CarryPriority(Priority.SHEDDABLE)]).stub(Relay)
    plain = place.connect(server, middleware=[]).stub(Relay)
    for hops in (0, 1, 3):
        assert await first.hop(hops) == "sheddable"
        assert await plain.hop(hops) == "none"
        critical = rpcfw.with_options(first, metadata={**Priority.CRITICAL.metadata, "who": "ada"})
        assert await critical.hop(hops) == "critical"
        named = rpcfw.with_options(first, metadata={"who": "ada"})
        assert await named.hop(hops) == "sheddable"
    await place.close()


@virtual_time
async def test_other_metadata_stay_beside_the_priority() -> None:
    seen: list[rpcfw.Metadata] = []

    async def look(call: Call) -> None:
        seen.append(call.metadata)

    carry = CarryPriority(Priority.CRITICAL)(look)
    await carry(Call(METHOD, ("",)))
    await carry(Call(METHOD, ("",), metadata_bytes=pack_metadata({"who": "ada"})))
    await carry(Call(METHOD, ("",), metadata_bytes=pack_metadata({"who": "ada", PRIORITY: "sheddable"})))
    assert seen == [
        {PRIORITY: "critical"},
        {"who": "ada", PRIORITY: "critical"},
        {"who": "ada", PRIORITY: "sheddable"},
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pack_metadata({"who": ":priority"}),
        pack_metadata({PRIORITY: "utmost"}),
        pack_metadata({PRIORITY: b"\xff"}),
        b"\xff:priority",
        b":priority",
    ],
)
def test_what_says_nothing_that_is_known_is_normal(data: bytes) -> None:
    assert priority_of(Call(METHOD, ("",), metadata_bytes=data)) is Priority.NORMAL


@pytest.mark.parametrize("priority", list(Priority))
def test_what_is_said_is_read(priority: Priority) -> None:
    data = pack_metadata({"who": "ada", **priority.metadata})
    assert priority_of(Call(METHOD, ("",), metadata_bytes=data)) is priority
