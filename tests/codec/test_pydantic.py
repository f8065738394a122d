"""What becomes of pydantic's many options on the wire. A model travels by its field names, whatever else it says."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rpcfw.codec import encode_value, plan_of
from rpcfw.errors import InterfaceError
from rpcfw.interface import schema_of


def on_the_wire(value: Any) -> Any:
    return msgspec.msgpack.decode(encode_value(value))


def across(value: Any) -> Any:
    """A value as the other side gets it."""
    return plan_of(type(value)).decode(encode_value(value))


def refusal(declared: Any, value: Any) -> str:
    plan, data = plan_of(declared), encode_value(value)
    try:
        arrived = plan.decode(data)
    except Exception as error:
        return str(plan.decoding_error(error, data))
    raise AssertionError(f"it fits: {arrived!r}")


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")
    note: str = Field("", validation_alias="Note", serialization_alias="NOTE")


def test_aliases_are_for_other_formats_and_the_wire_has_the_names_of_the_fields() -> None:
    value = Aliased.model_validate({"orderId": 7, "Note": "x"})
    assert on_the_wire(value) == {"order_id": 7, "note": "x"}
    assert across(value) == value
    assert refusal(Aliased, {"orderId": 7}).startswith("order_id: Field required")


class Checked(BaseModel):
    amount: Annotated[int, AfterValidator(abs)] = Field(le=10)
    code: str = Field(default="A1", pattern=r"^[A-Z]\d$")

    @pydantic.model_validator(mode="after")
    def unlucky(self) -> Checked:
        if self.amount == 7:
            raise ValueError("seven is unlucky")
        return self


def test_all_validators_run_on_arrival() -> None:
    assert across(Checked.model_construct(amount=-5, code="B2")).amount == 5
    assert refusal(Checked, {"amount": 11}) == "amount: Input should be less than or equal to 10, got 11"
    assert refusal(Checked, {"amount": 1, "code": "b"}).startswith("code: String should match pattern")
    assert refusal(Checked, {"amount": 7}) == "the value: Value error, seven is unlucky, got {'amount': 7}"
    assert refusal(list[Checked], [{"amount": 1}, {"amount": 7}]).startswith(
        "[1]: Value error, seven is unlucky"
    )


def test_models_are_as_lax_as_pydantic_is() -> None:
    assert plan_of(Checked).decode(encode_value({"amount": "3"})) == Checked(amount=3, code="A1")


class Ignoring(BaseModel):
    x: int


class Allowing(BaseModel, extra="allow"):
    x: int


class Forbidding(BaseModel, extra="forbid"):
    x: int


def test_fields_a_model_does_not_know_are_ignored_kept_or_refused_as_it_says() -> None:
    data = encode_value({"x": 1, "y": [2]})
    assert plan_of(Ignoring).decode(data) == Ignoring(x=1)
    kept = plan_of(Allowing).decode(data)
    assert kept.model_extra == {"y": [2]}
    assert on_the_wire(kept) == {"x": 1, "y": [2]}
    assert refusal(Forbidding, {"x": 1, "y": [2]}) == "y: Extra inputs are not permitted, got [2]"


class Serialized(BaseModel):
    at: datetime
    secret: str = "none"

    @pydantic.field_serializer("at")
    def in_seconds(self, at: datetime) -> float:
        return at.timestamp()


class Wrong(BaseModel):
    x: int

    @pydantic.field_serializer("x")
    def shown(self, x: int) -> str:
        return f"<{x}>"


def test_custom_serializers_write_what_the_validators_of_the_other_side_must_read() -> None:
    value = Serialized(at=datetime(2026, 1, 1, tzinfo=UTC))
    assert on_the_wire(value) == {"at": 1767225600.0, "secret": "none"}
    assert across(value) == value
    assert refusal(Wrong, Wrong(x=1)).startswith("x: Input should be a valid integer, unable to parse string")


class Computed(BaseModel):
    x: int
    _hidden: int = 5

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def double(self) -> int:
        return 2 * self.x


def test_computed_and_private_fields_stay_at_home() -> None:
    assert on_the_wire(Computed(x=1)) == {"x": 1}
    assert across(Computed(x=1)) == Computed(x=1)


class Strict(BaseModel, strict=True):
    number: int = 1
    real: float = 0.5
    text: str = ""
    data: bytes = b""
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    names: list[str] = []


class StrictDate(BaseModel, strict=True):
    day: date


class StrictSet(BaseModel, strict=True):
    tags: set[str]


class StrictPrice(BaseModel, strict=True):
    price: Annotated[Decimal, Field(strict=False)]


def test_a_strict_model_takes_what_msgpack_has_a_type_for() -> None:
    value = Strict(number=2, real=1.5, text="a", data=b"\xff", names=["b"])
    assert across(value) == value
    assert refusal(Strict, {"number": "2"}).startswith("number: Input should be a valid integer, got '2'")


def test_a_strict_model_refuses_what_travels_as_text_or_array_unless_the_field_is_lax() -> None:
    day = StrictDate(day=date(2026, 1, 1))
    assert refusal(StrictDate, day) == "day: Input should be a valid date, got '2026-01-01'"
    assert refusal(StrictSet, StrictSet(tags={"a"})) == "tags: Input should be a valid set, got ['a']"
    assert across(StrictPrice(price=Decimal("1.5"))) == StrictPrice(price=Decimal("1.5"))


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = "Rex"


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    past: list[Cat | Dog] = []


def test_a_discriminator_picks_the_model_and_is_named_when_it_is_wrong() -> None:
    value = Owner(pet=Dog(), past=[Cat(lives=1), Dog(name="A")])
    assert across(value) == value
    reason = refusal(Owner, {"pet": {"kind": "cow"}})
    assert reason.startswith(
        "pet: Input tag 'cow' found using 'kind' does not match any of the expected tags"
    )


class Tags(pydantic.RootModel[dict[str, list[int]]]):
    pass


@dataclasses.dataclass
class Holder:
    tags: Tags
    by_name: dict[str, Ignoring]
    maybe: Forbidding | None = None


class Outer(BaseModel):
    holder: Holder
    inner: Outer | None = None
    anything: Any = None


def test_models_and_dataclasses_hold_each_other() -> None:
    holder = Holder(Tags({"a": [1]}), {"b": Ignoring(x=1)}, Forbidding(x=2))
    value = Outer(holder=holder, inner=Outer(holder=holder), anything={"deep": [1, None]})
    assert across(value) == value
    assert on_the_wire(value)["inner"]["holder"] == {
        "tags": {"a": [1]},
        "by_name": {"b": {"x": 1}},
        "maybe": {"x": 2},
    }
    assert across(holder) == holder
    wrong = {"tags": {"a": ["x"]}, "by_name": {}}
    assert refusal(Holder, wrong).startswith("tags.a[0]: Input should be a valid integer")


def test_a_subclass_arrives_as_what_was_declared() -> None:
    class More(Ignoring):
        y: int = 2

    assert plan_of(Ignoring).decode(encode_value(More(x=1))) == Ignoring(x=1)


class Shade(enum.Enum):
    DARK = "dark"


class Frozen(BaseModel, frozen=True):
    model_config = ConfigDict(use_enum_values=False)
    shade: Shade
    pairs: tuple[int, str] = (1, "a")
    many: frozenset[int] = frozenset({1})


def test_frozen_models_with_enums_tuples_and_sets_arrive_hashable() -> None:
    value = Frozen(shade=Shade.DARK)
    assert on_the_wire(value) == {"shade": "dark", "pairs": [1, "a"], "many": [1]}
    assert hash(across(value)) == hash(value)


@pydantic.dataclasses.dataclass
class Ruled:
    x: Annotated[int, Field(gt=0)]


def test_a_dataclass_of_pydantic_is_refused_since_its_rules_would_not_be_checked() -> None:
    with pytest.raises(InterfaceError, match="Ruled cannot travel: the rules of a pydantic dataclass"):
        schema_of(Ruled)


@pydantic.dataclasses.dataclass(config=ConfigDict(strict=True))
class Stamped:
    at: datetime
    tags: tuple[str, ...]


def test_by_itself_a_dataclass_of_pydantic_is_read_as_within_others() -> None:
    value = Stamped(datetime(2026, 1, 2, tzinfo=UTC), ("a",))
    plan = plan_of(Stamped)
    assert plan.decode(encode_value(value)) == value
    assert plan_of(list[Stamped]).decode(encode_value([value])) == [value]


@pytest.mark.parametrize("value", [pydantic.SecretStr("x")])
def test_types_of_pydantic_that_are_no_models_cannot_travel(value: Any) -> None:
    with pytest.raises(NotImplementedError, match="cannot travel"):
        encode_value(value)
