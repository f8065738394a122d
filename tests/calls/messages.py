"""Every sort of value that may travel, each with a method that gives it back."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic

import rpcfw

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True)
class Line:
    sku: str
    count: int = 1
    price: Decimal = Decimal("0.10")


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Line]
    at: datetime
    colour: Colour = Colour.RED
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    parent: Order | None = None


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    next: str | None = None


class Person(pydantic.BaseModel):
    name: str
    born: date
    tags: set[str] = pydantic.Field(default_factory=set)
    home: Address | None = None


class Address(pydantic.BaseModel):
    street: str
    at: UUID | None = None


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float
    around: Circle | None = None


class Pair(msgspec.Struct, Generic[T], array_like=True):
    left: T
    right: T


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Options(TypedDict, total=False):
    depth: int
    names: list[str]


class Place(NamedTuple):
    x: float
    y: float
    name: str = "here"


@rpcfw.service("tests.Messages")
class Messages:
    """Gives everything back."""

    async def dataclass(self, value: Order) -> Order:
        return value

    async def model(self, value: Person) -> Person:
        return value

    async def models(self, value: Cat | Dog) -> Cat | Dog:
        return value

    async def struct(self, value: Square) -> Square:
        return value

    async def union(self, value: Circle | Square | None) -> Circle | Square | None:
        return value

    async def generic(self, value: Page[Line]) -> Page[Line]:
        return value

    async def generic_struct(self, value: Pair[Level]) -> Pair[Level]:
        return value

    async def typed_dict(self, value: Options) -> Options:
        return value

    async def named_tuple(self, value: Place) -> Place:
        return value

    async def enums(self, value: dict[Colour, Level]) -> dict[Colour, Level]:
        return value

    async def literal(self, value: Literal["a", "b", 3]) -> Literal["a", "b", 3]:
        return value

    async def times(
        self, value: tuple[datetime, date, time, timedelta]
    ) -> tuple[datetime, date, time, timedelta]:
        return value

    async def numbers(self, value: tuple[int, float, Decimal, bool]) -> tuple[int, float, Decimal, bool]:
        return value

    async def text(self, value: str) -> str:
        return value

    async def uuid(self, value: UUID) -> UUID:
        return value

    async def binary(self, value: bytes) -> bytes:
        return value

    async def optional(self, value: int | None) -> int | None:
        return value

    async def scalars(self, value: int | str | None) -> int | str | None:
        return value

    async def sets(self, value: tuple[set[int], frozenset[str]]) -> tuple[set[int], frozenset[str]]:
        return value

    async def tuples(self, value: tuple[int, ...]) -> tuple[int, ...]:
        return value

    async def maps(self, value: dict[int, list[dict[str, Place]]]) -> dict[int, list[dict[str, Place]]]:
        return value

    async def anything(self, value: Any) -> Any:
        return value

    async def stream(self, values: AsyncIterator[Order]) -> AsyncIterator[Order]:
        async for value in values:
            yield value


ORDER = Order(
    7,
    [Line("pen"), Line("ink", 2, Decimal("3.141592653589793238462643383279"))],
    datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    Colour.BLUE,
    {"für": "Ada"},
    Order(6, [], datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3)))),
)
PERSON = Person(
    name="Ada", born=date(1815, 12, 10), tags={"a", "b"}, home=Address(street="x", at=UUID(int=5))
)

VALUES: list[tuple[str, Any]] = [
    ("dataclass", ORDER),
    ("model", PERSON),
    ("model", Person(name="", born=date(1, 1, 1))),
    ("models", Cat(lives=8)),
    ("models", Dog(name="Rex")),
    ("struct", Square(2.5, Circle(1.25))),
    ("union", Circle(0.5)),
    ("union", Square(0.5)),
    ("union", None),
    ("generic", Page([Line("pen")], "more")),
    ("generic_struct", Pair(Level.LOW, Level.HIGH)),
    ("typed_dict", {"depth": 3}),
    ("typed_dict", {}),
    ("named_tuple", Place(1.5, -2.0)),
    ("enums", {Colour.RED: Level.LOW, Colour.BLUE: Level.HIGH}),
    ("literal", "b"),
    ("literal", 3),
    (
        "times",
        (datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC), date(2026, 2, 3), time(4, 5, 6, 7), timedelta(-1, 2, 3)),
    ),
    ("times", (datetime(2026, 2, 3, 4, 5, 6), date.max, time.min, timedelta(0))),  # a naive one stays so
    ("numbers", (-(1 << 63), -0.0, Decimal("1E-30"), False)),
    ("numbers", ((1 << 64) - 1, float("inf"), Decimal("123456789.000"), True)),
    ("text", "Größe \U0001f600 \0"),
    ("text", ""),
    ("uuid", UUID("12345678-1234-5678-1234-567812345678")),
    ("binary", bytes(range(256))),
    ("binary", b""),
    ("optional", None),
    ("optional", 0),
    ("scalars", "7"),
    ("scalars", 7),
    ("sets", ({1, 2}, frozenset())),
    ("tuples", ()),
    ("tuples", (1, 2, 3)),
    ("maps", {1: [{"a": Place(0, 0)}, {}], -5: []}),
    ("anything", {"list": [1, 2.5, None, True, "x", b"y", {"deep": []}]}),
]
