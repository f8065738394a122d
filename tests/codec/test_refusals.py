"""What does not fit is refused with the path of the culprit, the value found there, and a mend where there is one."""

from __future__ import annotations

import contextlib
import dataclasses
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.codec import MessageError, Plan, encode_value, plan_of, plan_of_arguments, plan_of_items
from rpcfw.codec.containers import check_containers, check_values
from rpcfw.errors import InterfaceError
from rpcfw.interface import schema_of
from rpcfw.interface.spec import REQUIRED
from tests.codec.samples import (
    AT,
    Circle,
    Colour,
    Level,
    Line,
    Link,
    Numbers,
    Options,
    Order,
    Person,
    Pet,
    Place,
    Renamed,
    Row,
    Slotted,
    Square,
)


def refusal(plan: Plan, value: Any) -> str:
    """Why a plan refuses a message that holds this value."""
    data = value if isinstance(value, bytes) else encode_value(value)
    try:
        arrived = plan.decode(data)
    except Exception as error:
        explained = plan.decoding_error(error, data)
        assert isinstance(explained, MessageError)
        return str(explained)
    raise AssertionError(f"it fits: {arrived!r}")


def order(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "lines": [{"sku": "a"}, {"sku": "b"}], "at": AT, **changes}


REFUSED: list[tuple[Any, Any, str]] = [
    (int, "7", "the value: expected `int`, got `str`: '7'"),
    (int, 7.5, "the value: expected `int`, got `float`: 7.5"),
    (int, True, "the value: expected `int`, got `bool`: True"),
    (int, None, "the value: expected `int`, got `None`: None"),
    (str, [b"x"], "the value: expected `str`, got `array`: [b'x']"),
    (bytes, "x", "the value: expected `bytes`, got `str`: 'x'"),
    (bool, 1, "the value: expected `bool`, got `int`: 1"),
    (datetime, "tomorrow", "the value: invalid RFC3339 encoded datetime: 'tomorrow'"),
    (date, "2026-02-30", "the value: invalid RFC3339 encoded date: '2026-02-30'"),
    (Decimal, "1,5", "the value: invalid decimal string: '1,5'"),
    (UUID, "7", "the value: invalid UUID: '7'"),
    (Colour, "green", "the value: invalid enum value 'green': 'green'"),
    (Level, 3, "the value: invalid enum value 3: 3"),
    (Literal["a", "b"], "c", "the value: invalid enum value 'c': 'c'"),
    (Annotated[int, msgspec.Meta(gt=0)], 0, "the value: expected `int` >= 1: 0"),
    (list[int], [1, "b"], "[1]: expected `int`, got `str`: 'b'"),
    (tuple[int, str], [1], "the value: expected `array` of length 2, got 1: [1]"),
    (set[int], [1, None], "[1]: expected `int`, got `None`: None"),
    (dict[str, int], {"a": 1, "b": "x"}, "['b']: expected `int`, got `str`: 'x'"),
    (
        dict[str, list[dict[int, bool]]],
        {"a": [], "b": [{}, {5: True, 7: 1}]},
        "['b'][1][7]: expected `bool`, got `int`: 1",
    ),
    (dict[str, int], {"a.b]'c": "x"}, "[\"a.b]'c\"]: expected `int`, got `str`: 'x'"),
    (Line, {"count": 1}, "the value: object missing required field `sku`: {'count': 1}"),
    (Line, {"sku": 5}, "sku: expected `str`, got `int`: 5"),
    (Line, [], "the value: expected `object`, got `array`: []"),
    (
        Order,
        order(lines=[{"sku": "a"}, {"sku": "b", "count": "two"}]),
        "lines[1].count: expected `int`, got `str`: 'two'",
    ),
    (Order, order(parent=order(at=5)), "parent.at: expected `datetime`, got `int`: 5"),
    (Order, order(notes={"x": 5}), "notes['x']: expected `str`, got `int`: 5"),
    (Line, {"sku": "x" * 500, "count": "y" * 500}, "count: expected `int`, got `str`: '" + "y" * 56 + "..."),
    (Slotted[str, Line], {"key": "a", "value": {"sku": 1}}, "value.sku: expected `str`, got `int`: 1"),
    (Circle | Square, {"type": "Oval"}, "type: invalid value 'Oval': 'Oval'"),
    (Circle | Square, {"radius": 1.0}, "the value: object missing required field `type`: {'radius': 1.0}"),
    (Row, [], "the value: expected `array` of at least length 1, got 0: []"),
    (
        Renamed,
        {"firstName": "a", "x": 1},
        "the value: object contains unknown field `x`: {'firstName': 'a', 'x': 1}",
    ),
    (Options, {"names": []}, "the value: object missing required field `depth`: {'names': []}"),
    (Place, [1.0], "the value: expected `array` of length 2 to 3, got 1: [1.0]"),
    (Person, {"name": "A"}, "born: Field required, got {'name': 'A'}"),
    (Person, {"name": [], "born": "x"}, "name: Input should be a valid string, got []"),
    (list[Person], [{"name": 1, "born": "2026-01-01"}], "[0].name: Input should be a valid string, got 1"),
    (dict[str, Numbers], {"a": [], "b": [1, "x"]}, "['b'].[1]: Input should be a valid integer"),
    (Link, {"value": 1, "following": {"value": "x"}}, "following.value: Input should be a valid integer"),
    (Person, 5, "the value: Input should be a valid dictionary or instance of Person, got 5"),
    (Pet, {"kind": "cow"}, "Cat.kind: Input should be 'cat', got 'cow'"),
    (list[Pet], [{"kind": "cat", "lives": "x"}], "[0].Cat.lives: Input should be a valid integer"),
    (int, b"", "the bytes are not a valid message: Input data was truncated"),
    (int, b"\xc1", "the bytes are not a valid message: MessagePack data is malformed"),
    (
        int,
        b"\x01\x02",
        "the bytes are not a valid message: MessagePack data is malformed: trailing characters",
    ),
    (str, b"\xa2\xff\xff", "the bytes are not a valid message: "),
    (Any, b"\xdd\xff\xff\xff\xff", "the bytes are not a valid message: Input data was truncated"),
    (Any, b"\x91" * 100_000, "the message is nested too deeply; flatten it or send it as a stream"),
]


@pytest.mark.parametrize(("declared", "value", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_message_that_does_not_fit_is_refused_with_path_and_value(
    declared: Any, value: Any, reason: str
) -> None:
    assert refusal(plan_of(declared), value).startswith(reason)


def test_arguments_are_named_in_refusals() -> None:
    plan = plan_of_arguments("call", [("order", Order, REQUIRED), ("many", dict[str, Person], {})], REQUIRED)
    assert refusal(plan, {"order": order(id="x")}) == "order.id: expected `int`, got `str`: 'x'"
    assert refusal(plan, {}) == "the value: object missing required field `order`: {}"
    person = {"name": "A", "born": "2026-01-01", "home": {"street": 5}}
    assert refusal(plan, {"order": order(), "many": {"a": person}}).startswith(
        "many['a'].home.street: Input should be"
    )
    assert refusal(plan, [1]) == "the value: expected `object`, got `array`: [1]"


def test_an_item_is_named_by_its_place_in_the_batch() -> None:
    assert refusal(plan_of_items(Line), [{"sku": "a"}, {"sku": 1}]) == "[1].sku: expected `str`, got `int`: 1"


def test_the_culprit_among_very_many_keys_is_found() -> None:
    value = {f"key {number}": number for number in range(20_000)} | {"key 12345": "x"}
    assert refusal(plan_of(dict[str, int]), value) == "['key 12345']: expected `int`, got `str`: 'x'"


class Stranger:
    def __repr__(self) -> str:
        return "<a stranger>"


def unsendable(plan: Plan, value: Any) -> str:
    try:
        plan.encode(value)
    except Exception as error:
        return str(plan.encoding_error(error, value))
    raise AssertionError("it can travel")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            1 << 64,
            "the value: 18446744073709551616 does not fit into 64 bits; declare the field as str or decimal.Decimal",
        ),
        (-(1 << 63) - 1, "the value: -9223372036854775809 does not fit into 64 bits"),
        ([1, {"a": 1 << 70}], "[1].a: 1180591620717411303424 does not fit into 64 bits"),
        (Line("a", 1 << 64), "count: 18446744073709551616 does not fit"),
        (order(lines=[Line("a"), Line(Stranger())]), "lines[1].sku: <a stranger> cannot travel"),  # type: ignore[arg-type]
        (
            Link.model_construct(value=1, following=Link.model_construct(value=1 << 64)),
            "following.value: 1844674407",
        ),
        (Square(1.0, Stranger()), "around: <a stranger> cannot travel: objects of type"),  # type: ignore[arg-type]
        (Stranger(), "the value: <a stranger> cannot travel"),
        (LOOP, "[0][0][0]"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_travel_is_named_by_path_and_value(value: Any, reason: str) -> None:
    assert unsendable(plan_of(Any), value).startswith(reason)


def test_arguments_that_cannot_travel_are_named() -> None:
    fields = [("first", int, REQUIRED), ("second", Any, None)]
    assert unsendable(plan_of_arguments("call", fields, REQUIRED), (1, [1 << 64])).startswith(
        "second[0]: 18446744"
    )
    assert unsendable(plan_of_arguments("call", fields[::-1], REQUIRED), (None, 1 << 64)).startswith(
        "first: 18446744"
    )


def test_whole_numbers_beyond_64_bits_travel_as_decimals_and_text() -> None:
    for declared, value in ((Decimal, Decimal(1 << 200)), (str, str(1 << 200))):
        plan = plan_of(declared)
        assert plan.decode(encode_value(value)) == value


def test_a_type_that_cannot_travel_is_refused_when_its_plan_is_built() -> None:
    @dataclasses.dataclass
    class Both:
        pets: list[Pet]
        row: Row

    Both.__annotations__ = {"pets": list[Pet], "row": Row}
    with pytest.raises(
        TypeError, match=r"pydantic must read all of it, and cannot: .*Row.*make that part a dataclass"
    ):
        plan_of(Both)
    with pytest.raises(TypeError):
        plan_of(Line | Options)


# bombs


@dataclasses.dataclass
class Node:
    children: list[Node] = dataclasses.field(default_factory=list)
    name: str = ""


class Model(pydantic.BaseModel):
    numbers: list[int] = []
    extra: dict[str, Any] = {}


FOUR_MB = 4 << 20
SIZE = b"\xdd" + FOUR_MB.to_bytes(4, "big")
EMPTY_LISTS, EMPTY_MAPS = SIZE + b"\x90" * FOUR_MB, SIZE + b"\x80" * FOUR_MB
NESTED = b"\xdc\x02\x00" + (b"\xdc\x1f\xf8" + b"\x90" * 8184) * 512
ENTRIES = b"".join(b"\xcd" + number.to_bytes(2, "big") + b"\x90" for number in range(1 << 16))
MAPS_OF_LISTS = b"\xdf" + (1 << 20).to_bytes(4, "big") + ENTRIES * 16


@pytest.mark.parametrize(
    "bomb", [EMPTY_LISTS, EMPTY_MAPS, NESTED, MAPS_OF_LISTS], ids=["lists", "maps", "nested", "keys"]
)
@pytest.mark.parametrize(
    "declared",
    [Any, list[list[int]], list[Node], dict[str, list[int]], list[Circle | Square], list[Place], list[Pet]],
    ids=str,
)
def test_a_bomb_of_containers_is_refused_at_once_without_its_memory(declared: Any, bomb: bytes) -> None:
    reason = refusal(plan_of(declared), bomb)
    assert "bytes holds more than" in reason
    assert "lists and maps" in reason or "values" in reason


def test_refusing_a_bomb_takes_no_memory() -> None:
    with measured() as grown:
        refusal(plan_of(Any), EMPTY_LISTS)
    assert grown() < 3 * len(EMPTY_LISTS)


@pytest.mark.parametrize("depth", [50_000, FOUR_MB // 10])
@pytest.mark.parametrize("declared", [Any, list[Any], Node, Model, Link], ids=str)
@pytest.mark.parametrize(
    "head", [b"\x91", b"\x81\xa8children\x91", b"\x81\xa1a"], ids=["lists", "nodes", "maps"]
)
def test_a_bomb_of_nesting_is_refused_with_a_reason(declared: Any, depth: int, head: bytes) -> None:
    reason = refusal(plan_of(declared), head * depth)
    assert "nested too deeply" in reason or "bytes holds more than" in reason or "expected" in reason


def test_a_million_values_that_do_not_fit_a_model_make_no_million_errors() -> None:
    bomb = b"\x81\xa7numbers\xdd" + (1_000_000).to_bytes(4, "big") + b"\xa1a" * 1_000_000
    with measured() as grown:
        reason = refusal(plan_of(Model), bomb)
    assert (
        "2,000,014 bytes holds more than 100,000 values, too many for pydantic models; use dataclasses"
        in reason
    )
    assert grown() < 3 * len(bomb)


def test_messages_within_the_limits_are_not_refused() -> None:
    plan = plan_of(list[list[float]])
    value = [[-1.0, 2.5] * 100] * 2000  # 400,000 values with many bytes that look like containers
    assert plan.decode(encode_value(value)) == value
    models = plan_of(list[Model])
    rows = [Model(numbers=[0x90, 0x80] * 20)] * 1000
    assert models.decode(encode_value(rows)) == rows


@pytest.mark.parametrize("declared", [list[int], list[str], dict[str, int], bytes, Row, list[float]], ids=str)
def test_types_that_cannot_hold_many_containers_are_not_slowed_by_the_guard(declared: Any) -> None:
    assert getattr(plan_of(declared).decode, "__name__", "") == "decode"


def containers_in(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(containers_in, value))
    return 1 + sum(map(containers_in, value.values())) if isinstance(value, dict) else 0


def values_in(value: Any) -> int:
    if isinstance(value, list):
        return len(value) + sum(map(values_in, value))
    return 2 * len(value) + sum(map(values_in, value.values())) if isinstance(value, dict) else 0


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=70)
    | st.binary(max_size=300),
    lambda inside: st.lists(inside, max_size=20) | st.dictionaries(st.text(max_size=20), inside, max_size=20),
    max_leaves=60,
)


@given(PLAIN)
def test_containers_and_values_are_counted_exactly(value: Any) -> None:
    data = encode_value(value)
    containers, values = containers_in(value), values_in(value)
    check_containers(data, containers)
    check_values(data, values)
    for check, count in ((check_containers, containers), (check_values, values)):
        if count:
            with pytest.raises(ValueError, match=f"holds more than {count - 1:,} "):
                check(data, count - 1)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_the_guard_leaves_nonsense_to_the_decoder(data: bytes, limit: int) -> None:
    for check in (check_containers, check_values):
        with contextlib.suppress(ValueError):
            check(data, limit)


@contextlib.contextmanager
def measured() -> Iterator[Callable[[], int]]:
    """How many bytes were allocated at most within."""
    tracemalloc.start()
    peak = 0
    try:
        yield lambda: peak
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()


def test_a_union_with_object_is_refused_at_declaration_since_no_plan_can_be_built() -> None:
    for declared in (Line | object, list[int | object], object | None):
        with pytest.raises(InterfaceError, match="a union with object takes anything at all; write Any"):
            schema_of(declared)
