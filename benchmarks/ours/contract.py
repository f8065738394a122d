"""The services under measurement beside `benchmarks.orders`: payloads, streams, one-way calls, other message kinds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
import pydantic

import rpcfw
from benchmarks.orders import Order, OrderBook
from benchmarks.subject import LARGE_BYTES

_SKUS = [f"sku-{number}" for number in range(5)]
_NOTE = "n" * 64
_ORDER_BYTES = 232
"""What an Order takes on the wire."""
_ARRIVAL_S = 0.05


@dataclasses.dataclass
class Tick:
    """The small item of a stream."""

    id: int
    qty: int
    price: float
    name: str


@rpcfw.service("bench.Payloads")
class Payloads(Protocol):
    """Bytes, few and many, and streams."""

    async def echo(self, body: bytes) -> bytes: ...

    async def download(self, number: int) -> bytes: ...

    async def upload(self, body: bytes) -> int: ...

    def ticks(self, count: int) -> AsyncIterator[Tick]: ...

    def orders(self, count: int) -> AsyncIterator[Order]: ...

    async def count(self, ticks: AsyncIterator[Tick]) -> int: ...


class PayloadStore(Payloads):
    """Gives what it has in memory."""

    def __init__(self) -> None:
        self._payload = bytes(LARGE_BYTES)
        self._book = OrderBook()

    async def echo(self, body: bytes) -> bytes:
        return body

    async def download(self, number: int) -> bytes:
        return self._payload

    async def upload(self, body: bytes) -> int:
        return len(body)

    async def ticks(self, count: int) -> AsyncIterator[Tick]:
        tick = Tick(1, 2, 1.25, "sku-1")
        for _ in range(count):
            yield tick

    async def orders(self, count: int) -> AsyncIterator[Order]:
        order = await self._book.get_order(7)
        for _ in range(count):
            yield order

    async def count(self, ticks: AsyncIterator[Tick]) -> int:
        count = 0
        async for _ in ticks:
            count += 1
        return count


@rpcfw.service("bench.Journal")
class Journal:
    """One-way calls, and how many arrived."""

    def __init__(self) -> None:
        self._seen = 0
        self._changed = asyncio.Event()

    @rpcfw.method(oneway=True)
    async def seen(self, order_id: int) -> None:
        self._seen += 1
        self._changed.set()

    async def arrived(self, expected: int) -> int:
        """How many calls of `seen` there were; waits a moment for as many as are expected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ARRIVAL_S):
                while self._seen < expected:
                    self._changed.clear()
                    await self._changed.wait()
        return self._seen


@rpcfw.service("bench.Digest")
class Digest:
    """Calls that compute on the loop."""

    rounds = 220
    """Digests of 1 KiB, a microsecond or two each."""

    async def compute(self, seed: int) -> str:
        data = seed.to_bytes(8, "little") * 128
        digest = b""
        for _ in range(self.rounds):
            digest = hashlib.blake2b(data + digest).digest()
        return digest.hex()


class StructItem(msgspec.Struct):
    """A line of an order, as a Struct."""

    sku: str
    qty: int
    price: float


class StructOrder(msgspec.Struct):
    """An order, as a Struct."""

    id: int
    user: str
    items: list[StructItem]
    note: str


class ModelItem(pydantic.BaseModel):
    """A line of an order, as a model."""

    sku: str
    qty: int
    price: float


class ModelOrder(pydantic.BaseModel):
    """An order, as a model."""

    id: int
    user: str
    items: list[ModelItem]
    note: str


@rpcfw.service("bench.StructOrders")
class StructOrders:
    """Orders as msgspec Structs."""

    def __init__(self) -> None:
        items = [StructItem(sku, number, 1.25 * number) for number, sku in enumerate(_SKUS)]
        self._orders = {number: StructOrder(number, "ada", items, _NOTE) for number in range(1000)}

    @rpcfw.idempotent
    async def get_order(self, order_id: int) -> StructOrder:
        return self._orders[order_id]


@rpcfw.service("bench.ModelOrders")
class ModelOrders:
    """Orders as pydantic models."""

    def __init__(self) -> None:
        items = [ModelItem(sku=sku, qty=number, price=1.25 * number) for number, sku in enumerate(_SKUS)]
        self._orders = {
            number: ModelOrder(id=number, user="ada", items=items, note=_NOTE) for number in range(1000)
        }

    @rpcfw.idempotent
    async def get_order(self, order_id: int) -> ModelOrder:
        return self._orders[order_id]


@rpcfw.service("bench.PlainOrders")
class PlainOrders:
    """Orders as plain dicts."""

    def __init__(self) -> None:
        items = [{"sku": sku, "qty": number, "price": 1.25 * number} for number, sku in enumerate(_SKUS)]
        self._orders = {
            number: {"id": number, "user": "ada", "items": items, "note": _NOTE} for number in range(1000)
        }

    @rpcfw.idempotent
    async def get_order(self, order_id: int) -> dict[str, Any]:
        return self._orders[order_id]


@rpcfw.service("bench.RawOrders")
class RawOrders:
    """As many bytes as an Order has, which nobody looks into."""

    def __init__(self) -> None:
        self._order = bytes(_ORDER_BYTES)

    @rpcfw.idempotent
    async def get_order(self, order_id: int) -> bytes:
        return self._order
