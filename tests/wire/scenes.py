"""Conversations between a real client and a real server, played on a clock that stands still: always the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import rpcfw
from rpcfw.wire.handshake import Settings
from tests.calls.virtual import VirtualLoop
from tests.wire.ends import Ends, serve
from tests.wire.links import split, turn
from tests.wire.recordings import Said
from tests.wire.shop import Order, Orders, OutOfStock

SMALL = Settings(max_frame_bytes=16_384, max_message_bytes=50_000, window_bytes=300)
Scene = Callable[[Ends, Orders], Awaitable[Any]]


async def _orders(count: int) -> AsyncIterator[Order]:
    for number in range(count):
        yield Order(number, "pen")


async def unary(ends: Ends, orders: Orders) -> None:
    assert await orders.get(7) == Order(7, "pen")


async def options(ends: Ends, orders: Orders) -> None:
    """A deadline, metadata both ways, a one-way call."""
    seen: dict[str, str | bytes] = {}
    stub: Any = orders
    await stub.with_options(timeout_s=0.5, metadata={"trace": b"\x01\x02"}, reply_metadata=seen).get(7)
    assert seen == {"cache": "miss"}
    await orders.forget(7)
    await turn(3)


async def errors(ends: Ends, orders: Orders) -> None:
    """A declared error, an RpcError with details, and refusals: of arguments, of a method that is not there."""
    for order in (Order(1, "moon"), Order(2, "")):
        with contextlib.suppress(OutOfStock, rpcfw.RpcError):
            await orders.place(order)
    with contextlib.suppress(rpcfw.RpcError):
        await orders.get("seven")  # type: ignore[arg-type]  # refused by the server
    by_name = ends.client._methods
    for spec, (_, codec) in list(by_name.items()):
        by_name[spec] = (999, codec)
    with contextlib.suppress(rpcfw.RpcError):
        await orders.get(7)


async def streams(ends: Ends, orders: Orders) -> None:
    """All that stream, through a window of 300 bytes, so that the first waits for credit."""
    assert [order.id async for order in orders.watch(5, 70)] == [*range(5, 75)]
    assert await orders.total(_orders(9)) == 36
    assert [order.paid async for order in orders.pay(_orders(6))] == [True] * 6


async def chunks(ends: Ends, orders: Orders) -> None:
    """A message above the frame limit both ways, and a small call that overtakes it."""
    scan = asyncio.create_task(orders.scan(bytes(40_000)))
    await turn()
    assert await orders.get(1) == Order(1, "pen")
    assert await scan == bytes(40_000)


async def endings(ends: Ends, orders: Orders) -> None:
    """A call given up, a message given up half-way, a ping, a drain."""
    waiting = asyncio.create_task(orders.wait())
    await turn(3)
    waiting.cancel()
    await turn(3)
    ends.near.limit = 0  # so that the first chunk stays the only one
    scan = asyncio.create_task(orders.scan(bytes(40_000)))
    await turn(3)
    scan.cancel()
    await turn(3)
    ends.near.limit = None
    ends.near.relieve()
    await asyncio.wait([waiting, scan])
    await ends.client.session.ping()
    for connection in ends.server._connections:
        connection.send_away("the server is shutting down")
    await turn(3)


SCENES: dict[str, Scene] = {
    "unary": unary,
    "options": options,
    "errors": errors,
    "streams": streams,
    "chunks": chunks,
    "endings": endings,
}


def play(name: str) -> list[Said]:
    """What is said in a scene, in the order of the writes."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_play(name))


async def _play(name: str) -> list[Said]:
    settings = Settings() if name in ("unary", "options", "errors") else SMALL
    limits = rpcfw.Limits(block_threshold_s=None, keepalive_s=None, connection=settings)
    server = serve(Orders(), limits=limits)
    server.instance = "0123456789abcdef"  # drawn by chance otherwise
    ends = await Ends(server, settings).open()
    await SCENES[name](ends, ends.stub(Orders))
    said = [(who, frame) for who, data in ends.writes for frame in split(data)]
    await ends.close()
    await server.close()
    return said


__all__ = ["SCENES", "play"]
