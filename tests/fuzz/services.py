"""What the fuzzer calls: services of all four kinds, with arguments of every sort, and the calls that a client makes.

A handler here raises nothing but what it declares and `RpcError`, so whatever else is logged is a fault of rpcfw.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic

import rpcfw

T = TypeVar("T")


NOBODY = UUID(int=0)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Node:
    id: int
    at: datetime
    price: Decimal = Decimal(1)
    colour: Colour = Colour.RED
    children: list[Node] = dataclasses.field(default_factory=list)
    labels: dict[str, set[int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    following: str | None = None


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float
    around: Circle | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str
    friends: list[Cat] = []


class Options(TypedDict, total=False):
    depth: int
    names: list[str]


class Place(NamedTuple):
    x: float
    y: float


class Missing(rpcfw.ServiceError):
    key: str
    near: list[str]


class OutOfRange(Exception):
    pass


@rpcfw.service("fuzz.Unary")
class Unary:
    """One message in, one message out."""

    async def node(self, node: Node) -> Node:
        return node

    async def many(
        self,
        a: int,
        b: float = 0.5,
        c: str = "",
        d: bytes = b"",
        e: Options | None = None,
        *,
        f: bool = False,
    ) -> str:
        return c

    async def page(self, page: Page[Place], span: timedelta = timedelta(1)) -> Page[Place]:
        return page

    async def shape(self, shape: Circle | Square | None) -> Circle | Square | None:
        return shape

    async def animal(self, animal: Cat | Dog, key: UUID = NOBODY) -> Cat | Dog:
        return animal

    async def dog(self, dog: Dog) -> list[Dog]:
        return [dog, dog]

    async def anything(self, value: Any = None) -> Any:
        return value

    async def counts(self, values: dict[Colour, tuple[int, ...]]) -> int:
        return len(values)

    async def large(self, data: bytes) -> bytes:
        return data

    async def times(self, size: int) -> bytes:
        return bytes(min(abs(size), 1_000_000))

    @rpcfw.method(raises=[Missing, OutOfRange])
    async def fail(self, key: str, code: int = 5) -> None:
        if code == 0:
            raise OutOfRange(key, code)
        if code == 1:
            raise Missing(key, [key])
        raise rpcfw.RpcError(rpcfw.Code.NOT_FOUND, key, {"key": key})

    async def wait(self, text: str = "") -> None:
        await asyncio.get_running_loop().create_future()

    async def metadata(self, name: str) -> str:
        rpcfw.set_reply_metadata({"seen": b"\xff"})
        return str(rpcfw.current_call().metadata.get(name))

    @rpcfw.method(oneway=True)
    async def note(self, text: str) -> None:
        await asyncio.sleep(0)


@rpcfw.service("fuzz.Streams")
class Streams:
    """Streams out, in, and both ways."""

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(min(to, 500)):
            yield number

    async def chunks(self, size: int, count: int = 3) -> AsyncIterator[bytes]:
        for _ in range(min(count, 5)):
            yield bytes(min(abs(size), 300_000))

    async def total(self, numbers: AsyncIterator[int], start: int = 0) -> int:
        async for number in numbers:
            start += number
        return start % 1000

    async def upload(self, parts: AsyncIterator[bytes]) -> int:
        size = 0
        async for part in parts:
            size += len(part)
        return size

    async def echo(self, nodes: AsyncIterator[Node], limit: int = 1000) -> AsyncIterator[Node]:
        async for node in nodes:
            yield node

    async def zip(self, animals: AsyncIterator[Cat | Dog]) -> AsyncIterator[Page[str]]:
        async for animal in animals:
            yield Page([animal.kind])


NODE = Node(
    7,
    datetime(2026, 1, 2, tzinfo=UTC),
    Decimal("1.5"),
    Colour.BLUE,
    [Node(8, datetime(2026, 1, 1))],
    {"a": {1, 2}},
)


async def _items(*values: T) -> AsyncIterator[T]:
    for value in values:
        yield value


async def _drain(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


Calls = Callable[[Unary, Streams], Awaitable[Any]]

CALLS: dict[str, Calls] = {
    "node": lambda unary, _: unary.node(NODE),
    "many": lambda unary, _: unary.many(1, 2.5, "drei", b"\4", {"depth": 5, "names": ["six"]}, f=True),
    "page": lambda unary, _: unary.page(Page([Place(1, 2), Place(3, 4)], "x"), timedelta(2, 3)),
    "shape": lambda unary, _: unary.shape(Square(1.5, Circle(2))),
    "animal": lambda unary, _: unary.animal(Dog(name="Rex", friends=[Cat()]), UUID(int=77)),
    "dog": lambda unary, _: unary.dog(Dog(name="Rex")),
    "anything": lambda unary, _: unary.anything({"a": [1, None, {"b": b"c"}]}),
    "counts": lambda unary, _: unary.counts({Colour.RED: (1, 2, 3), Colour.BLUE: ()}),
    "large": lambda unary, _: unary.large(bytes(70_000)),
    "huge": lambda unary, _: unary.large(bytes(300_000)),
    "times": lambda unary, _: unary.times(280_000),
    "fail": lambda unary, _: unary.fail("k"),
    "fail as declared": lambda unary, _: unary.fail("k", 1),
    "fail plainly": lambda unary, _: unary.fail("k", 0),
    "metadata": lambda unary, _: unary.metadata("name"),
    "note": lambda unary, _: unary.note("x" * 50),
    "count": lambda _, streams: _drain(streams.count(200)),
    "chunks": lambda _, streams: _drain(streams.chunks(270_000, 2)),
    "total": lambda _, streams: streams.total(_items(*range(150))),
    "upload": lambda _, streams: streams.upload(_items(b"abc", bytes(280_000), b"def")),
    "echo": lambda _, streams: _drain(streams.echo(_items(NODE, NODE, NODE))),
    "zip": lambda _, streams: _drain(streams.zip(_items(Cat(), Dog(name="Rex"), Cat(lives=3)))),
}
"""What a client may do, by name. Those that fail raise what is expected of them."""
EXPECTED = (rpcfw.RpcError, Missing, OutOfRange)
