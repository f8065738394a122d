"""Types of every sort that the interface lets pass, each with values, and with what lies on the wire for them."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import msgspec
import pydantic

import rpcfw

T = TypeVar("T")
K = TypeVar("K")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


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


@dataclasses.dataclass(slots=True, kw_only=True)
class Slotted(Generic[K, T]):
    key: K
    value: T
    kind: Final[int] = 3


@dataclasses.dataclass
class Tree(Generic[T]):
    value: T
    children: list[Tree[T]] = dataclasses.field(default_factory=list)


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float
    around: Circle | Square | None = None


class Row(msgspec.Struct, array_like=True):
    name: str
    count: int = 5


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    first_name: str
    last_name: str = ""


class Maybe(msgspec.Struct):
    x: int | msgspec.UnsetType = msgspec.UNSET


class Pair(msgspec.Struct, Generic[T], array_like=True):
    left: T
    right: T


class Options(TypedDict):
    depth: int
    names: NotRequired[list[str]]


class Place(NamedTuple):
    x: float
    y: float
    name: str = "here"


class Address(pydantic.BaseModel):
    street: str
    at: UUID | None = None


class Person(pydantic.BaseModel):
    name: str
    born: date
    tags: set[str] = pydantic.Field(default_factory=set)
    home: Address | None = None
    order: Order | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Kennel(pydantic.BaseModel):
    pets: list[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]]


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Link(pydantic.BaseModel):
    value: int
    following: Link | None = None


@dataclasses.dataclass
class Mixed:
    """A dataclass that holds what each engine reads."""

    person: Person
    row: Row
    shape: Circle | Square | None
    numbers: Numbers
    options: Options
    place: Place
    link: Link | None = None


@dataclasses.dataclass
class Owner:
    """A dataclass with a union of models, which is therefore read by pydantic as a whole."""

    pets: list[Cat | Dog]
    order: Order
    place: Place
    favourite: Cat | Dog | None = None


class OutOfStock(rpcfw.ServiceError):
    sku: str
    left: int = 0


Sku = NewType("Sku", str)
Pet = Cat | Dog
AT = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
NAIVE = datetime(2026, 2, 3, 4, 5, 6)
PARIS = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1)))
PERSON = Person(name="Ada", born=date(1815, 12, 10), tags={"a"}, home=Address(street="x", at=UUID(int=5)))
ORDER = Order(
    7, [Line("pen"), Line("ink", 2, Decimal("3.14"))], AT, Colour.BLUE, {"für": "Ada"}, Order(6, [], NAIVE)
)

EXACT: list[tuple[Any, Any, str]] = [
    (type(None), None, "c0"),
    (bool, True, "c3"),
    (int, 7, "07"),
    (int, -(1 << 63), "d3 8000000000000000"),
    (int, (1 << 64) - 1, "cf ffffffffffffffff"),
    (float, 1.5, "cb 3ff8000000000000"),
    (str, "é", "a2 c3a9"),
    (bytes, b"\0\xff", "c4 02 00ff"),
    (bytearray, bytearray(b"x"), "c4 01 78"),
    (datetime, datetime.fromtimestamp(1, UTC), "d6 ff 00000001"),
    (datetime, datetime.fromtimestamp(1.5, UTC), "d7 ff 7735940000000001"),
    (datetime, datetime(1, 1, 1), "b3 303030312d30312d30315430303a30303a3030"),
    (date, date(2026, 2, 3), "aa 323032362d30322d3033"),
    (time, time(4, 5, 6, 7), "af 30343a30353a30362e303030303037"),
    (timedelta, timedelta(seconds=1.5), "a6 50 54 31 2e 35 53"),
    (timedelta, timedelta(days=-1, seconds=60), "a9 2d 50 54 38 36 33 34 30 53"),
    (Decimal, Decimal("1.50"), "a4 312e3530"),
    (UUID, UUID(int=1), "d924" + b"00000000-0000-0000-0000-000000000001".hex()),
    (Colour, Colour.RED, "a3 726564"),
    (Level, Level.HIGH, "02"),
    (Right, Right.READ | Right.WRITE, "03"),
    (list[int], [1, 2], "92 01 02"),
    (tuple[int, str], (1, "a"), "92 01 a161"),
    (set[int], {5}, "91 05"),
    (dict[str, int], {"a": 1}, "81 a161 01"),
    (dict[int, bool], {1: False}, "81 01 c2"),
    (dict[Colour, None], {Colour.RED: None}, "81 a3726564 c0"),
    (Line, Line("a", 2, Decimal(1)), "83 a3736b75 a161 a5636f756e74 02 a57072696365 a131"),
    (Row, Row("a"), "92 a161 05"),
    (Place, Place(0.0, 0.0, "a"), "93 cb0000000000000000 cb0000000000000000 a161"),
    (Circle, Circle(0.0), "82 a474797065 a6436972636c65 a6726164697573 cb0000000000000000"),
    (Renamed, Renamed("a"), "81 a9" + b"firstName".hex() + "a161"),
    (Options, {"depth": 1}, "81 a5 6465707468 01"),
    (Cat, Cat(), "82 a46b696e64 a3636174 a56c69766573 09"),
    (Numbers, Numbers([1]), "91 01"),
    (Any, {"a": [None]}, "81 a161 91 c0"),
]
"""Types, values and their bytes: what docs/wire.md says of each type."""

VALUES: list[tuple[Any, list[Any]]] = [
    (int, [0, -1, 127, 128, 1 << 32, (1 << 64) - 1]),
    (float, [0.0, -0.0, 1e308, 5e-324, float("inf")]),
    (bool, [True, False]),
    (str, ["", "Größe \U0001f600 \0", "x" * 70_000]),
    (bytes, [b"", bytes(range(256)), bytes(70_000)]),
    (bytearray, [bytearray(b""), bytearray(300)]),
    (datetime, [AT, NAIVE, datetime.max, datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    (date, [date.min, date.max]),
    (time, [time.min, time.max, time(1, 2, 3, tzinfo=UTC)]),
    (timedelta, [timedelta(0), timedelta(-1, 2, 3), timedelta(days=100_000, microseconds=1)]),
    (
        Decimal,
        [Decimal("1E-30"), Decimal("-123456789012345678901234567890.5"), Decimal("1E+5"), Decimal(1 << 80)],
    ),
    (UUID, [UUID(int=0), UUID(int=(1 << 128) - 1)]),
    (Colour, list(Colour)),
    (Word, list(Word)),
    (Right, [Right.READ, Right.READ | Right.WRITE]),
    (Literal["a", 3], ["a", 3]),
    (Literal["a", None], ["a", None]),
    (Literal[True, False], [True, False]),
    (Sku, ["pen"]),
    (Optional[int], [None, 5]),  # noqa: UP045  # the old spelling
    (int | str | None | list[int], [1, "1", None, [1]]),
    (int | bool | float, [1, True, 1.5]),
    (list, [[], [1, "a", None]]),
    (list[list[int]], [[], [[]], [[1], [2, 3]]]),
    (Sequence[int], [[1, 2]]),
    (MutableSequence[int], [[1]]),
    (Collection[int], [[1]]),
    (tuple, [(1, "a")]),
    (tuple[int, ...], [(), (1, 2)]),
    (tuple[()], [()]),
    (tuple[int, Line, None], [(1, Line("x"), None)]),
    (set[str], [set(), {"a"}]),
    (frozenset[Line], [frozenset({Line("a")}), frozenset()]),
    (Set[int], [{1}]),
    (MutableSet[int], [{1}]),
    (dict, [{}, {"a": 1}]),
    (dict[date, int], [{date(2026, 1, 1): 1}]),
    (dict[UUID, Line], [{UUID(int=4): Line("x")}]),
    (dict[Decimal, float], [{Decimal("1.5"): 2.5}]),
    (dict[bool, int], [{True: 1}]),
    (dict[float, int], [{1.5: 1}]),
    (dict[timedelta, int], [{timedelta(1): 1}]),
    (dict[Any, int], [{1: 1, "a": 2}]),
    (Mapping[Level, Colour], [{Level.LOW: Colour.RED}]),
    (MutableMapping[str, int], [{"a": 1}]),
    (Any, [None, 1, "a", b"a", [1, {"a": 2.5}], {1: 2}]),
    (object, [None, {"a": [1]}]),
    (Line, [Line("a"), Line("b", 0, Decimal("1e9"))]),
    (Order, [ORDER]),
    (Line | None, [None, Line("a")]),
    (Line | int | None, [Line("a"), 4, None]),
    (Slotted[str, Line], [Slotted(key="a", value=Line("x"))]),
    (Tree[int], [Tree(1, [Tree(2), Tree(3, [Tree(4)])])]),
    (Tree[Line], [Tree(Line("a"), [Tree(Line("b"))])]),
    (Circle | Square | None, [Circle(1.0), Square(2.0, Square(1.0, Circle(0.5))), None]),
    (Row, [Row("a"), Row("b", 7)]),
    (Renamed, [Renamed("a"), Renamed("a", "b")]),
    (Maybe, [Maybe(), Maybe(1)]),
    (Pair[Level], [Pair(Level.LOW, Level.HIGH)]),
    (Options, [{"depth": 1}, {"depth": 1, "names": ["a"]}]),
    (Place, [Place(1.5, -2.0), Place(0.0, 0.0, "there")]),
    (Person, [PERSON, Person(name="", born=date.min, order=ORDER)]),
    (Person | None, [PERSON, None]),
    (Pet, [Cat(lives=8), Dog(name="Rex")]),
    (Pet | None, [Cat(), None]),
    (list[Pet], [[], [Cat(), Dog(name="Rex")]]),
    (dict[str, Pet], [{"a": Cat()}]),
    (Annotated[Pet, pydantic.Field(discriminator="kind")], [Dog(name="Rex")]),
    (Kennel, [Kennel(pets=[Cat(), Dog(name="Rex")])]),
    (Numbers, [Numbers([]), Numbers([1, 2])]),
    (Box[Line], [Box[Line](content=Line("a"))]),
    (Box[list[Cat]], [Box[list[Cat]](content=[Cat()])]),
    (Tree[Cat], [Tree(Cat(), [Tree(Cat(lives=1))])]),
    (Link, [Link(value=1, following=Link(value=2))]),
    (
        Mixed,
        [Mixed(PERSON, Row("a"), Circle(1.0), Numbers([1]), {"depth": 1}, Place(1.0, 2.0), Link(value=1))],
    ),
    (Owner, [Owner([Cat(), Dog(name="Rex")], ORDER, Place(1.0, 2.0), Cat())]),
    (Annotated[int, msgspec.Meta(gt=0)], [1]),
    (Annotated[int, {"not": "hashable"}], [1]),
    (list[Annotated[int, {"not": "hashable"}]], [[1]]),
    (typing.List[int], [[1]]),  # noqa: UP006  # the old spelling
]
"""Types with values that arrive as they were."""
