"""Unions travel when a receiver can tell their members apart, by the rules of the engines that will have to."""

import dataclasses
import datetime
import decimal
import enum
import itertools
import uuid
from functools import reduce
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Union

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.errors import InterfaceError
from rpcfw.interface import Schema, schema_of


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Plain:
    x: int


class Untagged(msgspec.Struct):
    x: int


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9
    friend: "Dog | Cat | None" = None


class Dog(msgspec.Struct, tag="dog"):
    enemy: Cat | None = None


class OddTag(msgspec.Struct, tag=7): ...


class OddField(msgspec.Struct, tag="odd", tag_field="sort"): ...


class Row(msgspec.Struct, array_like=True):
    x: int


class TaggedRow(msgspec.Struct, array_like=True, tag="row"):
    x: int


class OtherRow(msgspec.Struct, array_like=True, tag="other"):
    x: int


class Pair(NamedTuple):
    x: int


class Options(TypedDict):
    x: int


OF_MSGSPEC: list[Any] = [
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    Color,
    Level,
    Literal["a", "b"],
    Literal[1, 2],
    Literal["c", 1],
    Literal[True],
    list[int],
    set[int],
    tuple[int, str],
    dict[str, int],
    Plain,
    Untagged,
    Cat,
    Dog,
    OddTag,
    OddField,
    Row,
    TaggedRow,
    OtherRow,
    Pair,
    Options,
]


def union_of(members: list[Any]) -> Any:
    return reduce(lambda joined, member: Union[joined, member], members)  # noqa: UP007  # a union made at run time


def msgspec_accepts(declared: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(declared)
    except TypeError:
        return False
    return True


def is_accepted(declared: Any) -> bool:
    try:
        schema_of(declared)
    except InterfaceError:
        return False
    return True


def test_every_pair_is_accepted_exactly_when_msgspec_can_tell_it_apart() -> None:
    pairs = [union_of(list(pair)) for pair in itertools.combinations(OF_MSGSPEC, 2)]
    assert [pair for pair in pairs if is_accepted(pair) != msgspec_accepts(pair)] == []


@given(st.lists(st.sampled_from(OF_MSGSPEC), min_size=3, max_size=6, unique=True))
def test_any_union_is_accepted_exactly_when_msgspec_can_tell_it_apart(members: list[Any]) -> None:
    declared = union_of(members)
    assert is_accepted(declared) == msgspec_accepts(declared)


@given(st.permutations([int, float, bool, type(None), str, list[int], Cat, Dog]), st.integers(1, 8))
def test_the_order_in_which_a_union_is_written_is_not_seen(members: list[Any], count: int) -> None:
    written, sorted_ = union_of(members[:count]), union_of(sorted(members[:count], key=str))
    assert schema_of(written)["type"] == schema_of(sorted_)["type"]


def test_tagged_structs_name_the_field_that_tells_them_apart() -> None:
    schema = schema_of(Dog | Cat | None)
    assert schema["type"]["discriminator"] == "type"
    assert [member.get("name", "").rpartition(".")[2] for member in schema["type"]["members"]] == [
        "",
        "Cat",
        "Dog",
    ]
    assert [definition["tag"] for definition in schema["definitions"].values()] == [
        {"field": "type", "value": "dog"},
        {"field": "type", "value": "cat"},
    ]


class Card(pydantic.BaseModel):
    kind: Literal["card"]
    number: str
    instead: "Card | Cash | None" = None


class Cash(pydantic.BaseModel):
    kind: Literal["cash", "coins"] = "cash"


class Cheque(pydantic.BaseModel):
    kind: Literal["cash"]


class Voucher(pydantic.BaseModel):
    code: str


class Payment(pydantic.BaseModel):
    by: Annotated[Cash | Card, pydantic.Field(discriminator="kind")]


def test_models_are_told_apart_by_a_literal_field_of_each() -> None:
    schema = schema_of(Payment)
    by: Schema = schema["definitions"][f"{__name__}.Payment"]["fields"][0]["type"]
    assert by["discriminator"] == "kind"
    assert [member["name"] for member in by["members"]] == [f"{__name__}.Card", f"{__name__}.Cash"]
    assert schema_of(Card | Cash)["type"]["discriminator"] == "kind"


@pytest.mark.parametrize("declared", [Cash | Cheque, Card | Voucher, Card | Plain, Card | Cat], ids=str)
def test_models_without_such_a_field_cannot_be_told_apart(declared: Any) -> None:
    with pytest.raises(InterfaceError, match=r"cannot tell .* apart: all arrive as maps; make them"):
        schema_of(declared)


def test_what_cannot_be_told_apart_is_named_by_its_path() -> None:
    class Order(msgspec.Struct):
        prices: list[int | Level]

    with pytest.raises(InterfaceError) as caught:
        schema_of(Order)
    assert str(caught.value) == (
        "Order.prices[]: a receiver cannot tell int and Level apart: all arrive as int; "
        "keep one of them, or wrap each in a field of its own"
    )
