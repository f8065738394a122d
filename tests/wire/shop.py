"""The small service whose conversations are recorded; docs/wire.md shows one of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import rpcfw


@dataclasses.dataclass
class Order:
    id: int
    item: str
    paid: bool = False


class OutOfStock(rpcfw.ServiceError):
    item: str
    left: int = 0


@rpcfw.service("shop.Orders", version="1.0")
class Orders:
    """Orders of a shop."""

    async def get(self, order_id: int) -> Order:
        rpcfw.set_reply_metadata({"cache": "miss"})
        return Order(order_id, "pen")

    @rpcfw.method(raises=[OutOfStock])
    async def place(self, order: Order) -> Order:
        if order.item == "moon":
            raise OutOfStock("moon")
        if order.item == "":
            raise rpcfw.RpcError(rpcfw.Code.INVALID_ARGUMENT, "an order needs an item", {"field": "item"})
        return order

    @rpcfw.method(oneway=True)
    async def forget(self, order_id: int) -> None:
        pass

    async def watch(self, first: int, count: int = 3) -> AsyncIterator[Order]:
        for order_id in range(first, first + count):
            yield Order(order_id, "ink")

    async def total(self, orders: AsyncIterator[Order]) -> int:
        return sum([order.id async for order in orders])

    async def pay(self, orders: AsyncIterator[Order], currency: str = "EUR") -> AsyncIterator[Order]:
        async for order in orders:
            yield dataclasses.replace(order, paid=True)

    async def scan(self, picture: bytes) -> bytes:
        return picture

    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()
