"""What is sent arrives, for every sort of type, as the value it was; and its bytes are those that docs/wire.md says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.codec import MessageError, Plan, plan_of, plan_of_arguments, plan_of_items
from rpcfw.errors import InterfaceError
from rpcfw.interface import schema_of
from rpcfw.interface.spec import REQUIRED
from tests.codec.samples import AT, EXACT, PARIS, VALUES, Line, Order
from tests.interface import test_schema


def sent(plan: Plan, value: Any) -> bytes:
    encoded = plan.encode(value)
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def each() -> Iterator[Any]:
    for declared, values in VALUES:
        for number, value in enumerate(values):
            yield pytest.param(declared, value, id=f"{str(declared)[:50]}-{number}")


@pytest.mark.parametrize(("declared", "value", "recorded"), EXACT, ids=lambda value: str(value)[:40])
def test_a_value_lies_on_the_wire_as_specified(declared: Any, value: Any, recorded: str) -> None:
    plan = plan_of(declared)
    assert sent(plan, value) == bytes.fromhex(recorded)
    assert plan.decode(bytes.fromhex(recorded)) == value


@pytest.mark.parametrize(("declared", "value"), list(each()))
def test_a_value_arrives_as_it_was(declared: Any, value: Any) -> None:
    plan = plan_of(declared)
    arrived = plan.decode(sent(plan, value))
    assert arrived == value
    assert repr(arrived) == repr(value), "equal, but of another type inside"


@pytest.mark.parametrize(("declared", "value"), list(each()))
def test_a_value_arrives_from_any_buffer_in_arguments_and_in_items(declared: Any, value: Any) -> None:
    arguments = plan_of_arguments("call", [("first", int, REQUIRED), ("value", declared, REQUIRED)], REQUIRED)
    items = plan_of_items(declared)
    assert arguments.decode(memoryview(bytearray(sent(arguments, (1, value))))) == (1, value)
    batch = b"\x92" + sent(items, value) * 2
    assert items.decode(memoryview(batch)) == [value, value]


@pytest.mark.parametrize("declared", [declared for declared, _ in VALUES], ids=lambda value: str(value)[:50])
def test_the_interface_lets_pass_what_the_tests_here_send(declared: Any) -> None:
    assert schema_of(declared)["type"]["kind"]


def accepted() -> Iterator[Any]:
    """Every type that the tests of schemas know, and every class they define."""
    classes = [
        cls
        for cls in vars(test_schema).values()
        if isinstance(cls, type) and cls.__module__ == test_schema.__name__
    ]
    for declared in (*(declared for declared, _ in test_schema.BUILTINS), *classes):
        try:
            schema_of(declared)
        except InterfaceError:
            continue
        yield declared


@pytest.mark.parametrize("declared", list(accepted()), ids=lambda value: str(value)[:50])
def test_what_the_interface_lets_pass_the_codec_can_carry(declared: Any) -> None:
    assert plan_of(declared).type is not None or declared is None
    assert plan_of_items(declared)
    assert plan_of_arguments("call", [("value", declared, REQUIRED)], REQUIRED)


def test_plans_are_built_once() -> None:
    assert plan_of(list[Line]) is plan_of(list[Line])


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000])
def test_large_bytes_are_sent_from_where_they_lie(size: int) -> None:
    payload = bytes(size)
    fields = [("name", str, REQUIRED), ("data", bytes, REQUIRED), ("note", str, "")]
    arguments = plan_of_arguments("call", fields, REQUIRED)
    for plan, value in ((plan_of(bytes), payload), (arguments, ("a", payload, "b"))):
        encoded = plan.encode(value)
        assert isinstance(encoded, list) == (size >= 65_536)
        assert isinstance(encoded, bytes) or any(part is payload for part in encoded), "copied"
        assert plan.decode(sent(plan, value)) == value
        assert msgspec.msgpack.decode(sent(plan, value)) in (
            payload,
            {"name": "a", "data": payload, "note": "b"},
        )


def test_an_offset_arrives_as_the_same_instant_in_utc() -> None:
    arrived = plan_of(datetime).decode(sent(plan_of(datetime), PARIS))
    assert (arrived, arrived.tzinfo) == (PARIS, UTC)
    text = msgspec.msgpack.encode(PARIS.isoformat())
    assert plan_of(datetime).decode(text) == PARIS, "RFC 3339 text is read too"
    assert plan_of(datetime).decode(msgspec.msgpack.encode(AT.astimezone(timezone.utc).isoformat())) == AT  # noqa: UP017


@given(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.binary(max_size=50),
    st.text(max_size=50),
    st.floats(allow_nan=False),
)
def test_any_builtin_arrives(number: int, data: bytes, text: str, real: float) -> None:
    plan = plan_of(tuple[int, bytes, str, float, dict[str, int]])
    value = (number, data, text, real, {text: number})
    assert plan.decode(sent(plan, value)) == value


@given(
    st.tuples(
        st.datetimes(timezones=st.just(UTC)),
        st.timedeltas(),
        st.dates(),
        st.times(),
        st.uuids(),
        st.decimals(allow_nan=False),
    )
)
def test_any_time_and_decimal_arrives(values: tuple[datetime, timedelta, date, time, UUID, Decimal]) -> None:
    plan = plan_of(tuple[datetime, timedelta, date, time, UUID, Decimal])
    assert plan.decode(sent(plan, values)) == values


@given(st.binary(max_size=100))
def test_no_bytes_are_decoded_to_anything_but_the_type(data: bytes) -> None:
    plan = plan_of(Order)
    try:
        arrived: object = plan.decode(data)
    except Exception as error:
        arrived = plan.decoding_error(error, data)
    assert isinstance(arrived, Order | MessageError)
