"""An old and a new side understand each other, both ways, where the change is one that the documentation calls safe."""

from __future__ import annotations

import dataclasses
from typing import Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from rpcfw.codec import Plan, plan_of, plan_of_arguments
from rpcfw.interface.spec import REQUIRED


class V1:
    """Messages as they were."""

    @dataclasses.dataclass
    class Data:
        id: int
        gone: str = "was"

    class Struct(msgspec.Struct):
        id: int
        gone: str = "was"

    class Model(pydantic.BaseModel):
        id: int
        gone: str = "was"

    class Typed(TypedDict):
        id: int
        gone: NotRequired[str]

    class Row(msgspec.Struct, array_like=True):
        id: int


class V2:
    """Messages as they are: a field with a default more, one that had a default less, the rest in another order."""

    @dataclasses.dataclass
    class Data:
        more: list[int] = dataclasses.field(default_factory=lambda: [5])
        id: int = dataclasses.field(kw_only=True)

    class Struct(msgspec.Struct, kw_only=True):
        more: list[int] = msgspec.field(default_factory=lambda: [5])
        id: int

    class Model(pydantic.BaseModel):
        more: list[int] = [5]
        id: int

    class Typed(TypedDict):
        more: NotRequired[list[int]]
        id: int

    class Row(msgspec.Struct, array_like=True):
        id: int
        more: list[int] = msgspec.field(default_factory=lambda: [5])


def across(sender: Any, receiver: Any, value: Any) -> Any:
    data = plan_of(sender).encode(value)
    assert isinstance(data, bytes)
    return plan_of(receiver).decode(data)


@pytest.mark.parametrize("kind", ["Data", "Struct", "Model"])
def test_a_field_with_a_default_may_come_and_go(kind: str) -> None:
    old: Any = getattr(V1, kind)
    new: Any = getattr(V2, kind)
    assert across(old, new, old(id=7, gone="x")) == new(id=7, more=[5])
    assert across(new, old, new(id=7, more=[1])) == old(id=7, gone="was")
    assert across(list[old], list[new], [old(id=7)]) == [new(id=7)]


def test_an_entry_of_a_typed_dict_that_need_not_be_there_may_come_and_go() -> None:
    assert across(V1.Typed, V2.Typed, {"id": 7, "gone": "x"}) == {"id": 7}
    assert across(V2.Typed, V1.Typed, {"id": 7, "more": [1]}) == {"id": 7}


def test_an_array_may_grow_at_its_end() -> None:
    assert across(V1.Row, V2.Row, V1.Row(7)) == V2.Row(7, [5])
    assert across(V2.Row, V1.Row, V2.Row(7, [1])) == V1.Row(7)


def test_classes_of_other_engines_with_the_same_fields_understand_each_other() -> None:
    values = (V1.Data(7, "x"), V1.Struct(7, "x"), V1.Model(id=7, gone="x"))
    for sent in values:
        for expected in values:
            assert across(type(sent), type(expected), sent) == expected


Fields = list[tuple[str, Any, Any]]
OLD: Fields = [("first", int, REQUIRED), ("gone", str, "was")]
NEW: Fields = [("first", int, REQUIRED), ("more", V2.Data, None), ("last", dict[str, int], {"a": 1})]


def arguments(fields: Fields) -> Plan:
    return plan_of_arguments("call", fields, REQUIRED)


def sent(plan: Plan, values: tuple[Any, ...]) -> bytes:
    encoded = plan.encode(values)
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def test_a_parameter_with_a_default_may_come_and_go() -> None:
    old, new = arguments(OLD), arguments(NEW)
    assert new.decode(sent(old, (7, "x"))) == (7, None, {"a": 1})
    assert old.decode(sent(new, (7, V2.Data(id=1), {}))) == (7, "was")


def test_a_parameter_with_a_default_may_stand_before_one_without() -> None:
    plan = arguments([("maybe", int, 5), ("name", str, REQUIRED)])
    assert plan.decode(msgspec.msgpack.encode({"name": "a"})) == (5, "a")
    assert plan.decode(sent(plan, (6, "b"))) == (6, "b")


def test_a_parameter_without_a_default_must_be_sent() -> None:
    old, new = arguments(OLD), arguments([*OLD, ("needed", int, REQUIRED)])
    data = sent(old, (7, "x"))
    with pytest.raises(msgspec.ValidationError) as refusal:
        new.decode(data)
    assert "missing required field `needed`" in str(new.decoding_error(refusal.value, data))


def test_a_default_is_each_sides_own_and_is_not_shared_between_calls() -> None:
    old, new = arguments([]), arguments([("limit", int, 5)])
    assert new.decode(sent(old, ())) == (5,)
    assert old.decode(sent(new, (9,))) == ()


@pytest.mark.parametrize("name", ["self", "class", "from", "msgspec", "a" * 300, "größe"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    plan = arguments([(name, bytes, REQUIRED), ("n", int, 1)])
    for value in ((b"x", 2), (bytes(70_000), 3)):
        assert plan.decode(sent(plan, value)) == value


def test_arguments_may_be_as_many_as_one_likes() -> None:
    fields: Fields = [(f"parameter_{number}", int, REQUIRED) for number in range(100)]
    fields.append(("data", bytes, b""))
    plan = arguments(fields)
    for data in (b"", bytes(70_000)):
        assert plan.decode(sent(plan, (*range(100), data))) == (*range(100), data)
