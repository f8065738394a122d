"""The call that is measured: an order of five items, some 230 bytes on the wire, as dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import rpcfw


@dataclasses.dataclass
class Item:
    """A line of an order."""

    sku: str
    qty: int
    price: float


@dataclasses.dataclass
class Order:
    """An order."""

    id: int
    user: str
    items: list[Item]
    note: str


@rpcfw.service("bench.Orders")
class Orders(Protocol):
    """The service under measurement."""

    @rpcfw.idempotent
    async def get_order(self, order_id: int) -> Order:
        """One order by its number."""
        ...


class OrderBook(Orders):
    """Gives orders out of its memory."""

    def __init__(self) -> None:
        items = [Item(f"sku-{number}", number, 1.25 * number) for number in range(5)]
        self._orders = {number: Order(number, "ada", items, "n" * 64) for number in range(1000)}

    async def get_order(self, order_id: int) -> Order:
        return self._orders[order_id]
