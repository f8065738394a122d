"""What a call is keyed by."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import uuid
from typing import Any

import pydantic
import pytest

from rpcfw.balancer import by_argument, by_metadata
from rpcfw.call import Call
from tests.balancer.nodes import METHODS, PLAIN, keyed, plain


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Model(pydantic.BaseModel):
    tags: set[str]


class Colour(enum.Enum):
    RED = "red"


def pair(one: str, two: Any) -> Call:
    return Call(METHODS["pair"], (one, two))


def test_the_key_is_the_argument_of_that_name() -> None:
    assert by_argument("user")(keyed("ada")) == b"ada"
    assert by_argument("two")(pair("x", b"raw")) == b"raw"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, b"7"),
        (Colour.RED, b"red"),
        (uuid.UUID(int=5), b"00000000-0000-0000-0000-000000000005"),
        (Point(1, 2), b'{"x":1,"y":2}'),
        ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        ({"c", "a", "b"}, b'["a","b","c"]'),
        (datetime.date(2024, 5, 1), b'"2024-05-01"'),
        (Model(tags={"x"}), b'{"tags":["x"]}'),
    ],
)
def test_a_value_has_the_same_key_in_every_process(value: object, expected: bytes) -> None:
    assert by_argument("two")(pair("", value)) == expected


def test_several_arguments_are_told_apart() -> None:
    key = by_argument("one", "two")
    assert key(pair("ab", "c")) != key(pair("a", "bc"))
    assert key(pair("ab", "c")) == key(pair("ab", "c"))


def test_a_call_that_lacks_the_argument_has_no_key() -> None:
    assert by_argument("user")(PLAIN) is None
    assert by_argument("one", "user")(pair("a", "b")) is None
    assert by_argument("two")(pair("a", None)) is None


def test_a_value_that_cannot_be_a_key_is_told() -> None:
    with pytest.raises(TypeError, match="cannot be a key: name an argument"):
        by_argument("two")(pair("a", asyncio.Lock()))


def test_the_key_is_the_metadata_of_that_name() -> None:
    assert by_metadata("tenant")(plain({"tenant": "shop"})) == b"shop"
    assert by_metadata("tenant")(plain({"tenant": b"\x00"})) == b"\x00"
    assert by_metadata("tenant")(PLAIN) is None


def test_names_that_no_call_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one argument"):
        by_argument()
    with pytest.raises(ValueError, match=r"by_metadata\('Tenant'\): names of metadata are lower-case"):
        by_metadata("Tenant")
