"""The schema of every kind of type that crosses the wire, as plain data that is the same in every process."""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import json
import os
import subprocess
import sys
import typing
import uuid
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from rpcfw.errors import InterfaceError, ServiceError
from rpcfw.interface import (
    MethodSpec,
    Schema,
    ServiceSpec,
    method,
    schema_of,
    service,
    service_schema,
    spec_of,
)
from rpcfw.interface.spec import CallKind, Parameter

T = TypeVar("T")
HERE = __name__


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Tree:
    value: int
    left: "Tree | None" = None
    right: "Tree | None" = None


def kind(name: str) -> Schema:
    return {"kind": name}


INT, STR, ANY = kind("int"), kind("str"), kind("any")
OrderId = NewType("OrderId", int)

BUILTINS: list[tuple[Any, Schema]] = [
    (None, kind("null")),
    (bool, kind("bool")),
    (int, INT),
    (float, kind("float")),
    (str, STR),
    (bytes, kind("bytes")),
    (bytearray, kind("bytes")),
    (memoryview, kind("bytes")),
    (datetime.datetime, kind("datetime")),
    (datetime.date, kind("date")),
    (datetime.time, kind("time")),
    (datetime.timedelta, kind("timedelta")),
    (decimal.Decimal, kind("decimal")),
    (uuid.UUID, kind("uuid")),
    (Any, ANY),
    (object, ANY),
    (list, {"kind": "array", "items": ANY}),
    (list[int], {"kind": "array", "items": INT}),
    (typing.List[int], {"kind": "array", "items": INT}),  # noqa: UP006  # the old spelling is read too
    (collections.abc.Sequence[int], {"kind": "array", "items": INT}),
    (collections.abc.Collection[int], {"kind": "array", "items": INT}),
    (tuple, {"kind": "array", "items": ANY}),
    (tuple[int, ...], {"kind": "array", "items": INT}),
    (tuple[int, str], {"kind": "tuple", "items": [INT, STR]}),
    (tuple[()], {"kind": "tuple", "items": []}),
    (set[int], {"kind": "set", "items": INT}),
    (frozenset[int], {"kind": "set", "items": INT}),
    (collections.abc.Set[int], {"kind": "set", "items": INT}),
    (dict, {"kind": "map", "keys": ANY, "values": ANY}),
    (dict[str, None], {"kind": "map", "keys": STR, "values": kind("null")}),
    (collections.abc.Mapping[int, str], {"kind": "map", "keys": INT, "values": STR}),
    (dict[Color, int], {"kind": "map", "keys": schema_of(Color)["type"], "values": INT}),
    (Color, {"kind": "enum", "name": "Color", "values": ["blue", "red"]}),
    (Level, {"kind": "enum", "name": "Level", "values": [1, 10]}),
    (Right, {"kind": "enum", "name": "Right", "values": [1, 2], "flags": True}),
    (Literal["b", "a"], {"kind": "enum", "values": ["a", "b"]}),
    (Literal[2, 1], {"kind": "enum", "values": [1, 2]}),
    (Literal[1, "a", True], {"kind": "enum", "values": [True, 1, "a"]}),
    (Literal[None], kind("null")),
    (Literal["a", None], {"kind": "union", "members": [kind("null"), {"kind": "enum", "values": ["a"]}]}),
    (int | None, {"kind": "union", "members": [kind("null"), INT]}),
    (typing.Optional[int], {"kind": "union", "members": [kind("null"), INT]}),  # noqa: UP045  # the old spelling
    (str | int, {"kind": "union", "members": [INT, STR]}),
    (Annotated[int | None, "why"] | str, {"kind": "union", "members": [kind("null"), INT, STR]}),
    (typing.Union[Annotated[int | None, "why"], None], {"kind": "union", "members": [kind("null"), INT]}),  # noqa: UP007
    (Literal["a"] | str, STR),
    (
        Literal["b"] | Literal["a"] | int,
        {"kind": "union", "members": [INT, {"kind": "enum", "values": ["a", "b"]}]},
    ),
    (int | Any, ANY),
    (OrderId, INT),
    (Annotated[int, msgspec.Meta(gt=0), {"not": "hashable"}], INT),
    (list[Annotated[int, {"not": "hashable"}]], {"kind": "array", "items": INT}),
]


@pytest.mark.parametrize(("declared", "expected"), BUILTINS, ids=[str(declared) for declared, _ in BUILTINS])
def test_a_type_without_fields_is_described_in_place(declared: Any, expected: Schema) -> None:
    assert schema_of(declared) == {"type": expected, "definitions": {}}


def definition_of(declared: Any) -> Schema:
    schema = schema_of(declared)
    definition: Schema = schema["definitions"][schema["type"]["name"]]
    return definition


def test_a_dataclass_lists_its_fields_with_types_and_defaults() -> None:
    @dataclasses.dataclass
    class Order:
        id: int
        tags: list[str] = dataclasses.field(default_factory=list)
        created: datetime.date = datetime.date(2020, 1, 2)
        token: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
        color: Color = Color.RED
        limits: typing.ClassVar[int] = 3

    assert definition_of(Order) == {
        "kind": "object",
        "name": "Order",
        "layout": "map",
        "fields": [
            {"name": "id", "type": INT, "required": True},
            {"name": "tags", "type": {"kind": "array", "items": STR}, "required": False, "default": []},
            {"name": "created", "type": kind("date"), "required": False, "default": "2020-01-02"},
            {"name": "token", "type": kind("uuid"), "required": False},
            {"name": "color", "type": schema_of(Color)["type"], "required": False, "default": "red"},
        ],
    }


def test_a_struct_is_described_as_it_is_encoded() -> None:
    class Point(
        msgspec.Struct,
        rename="camel",
        forbid_unknown_fields=True,
        tag_field="kind",
        tag="point",
        kw_only=True,
    ):
        x_axis: int = 1
        y_axis: int
        labels: list[str] = msgspec.field(default_factory=list)
        note: str | msgspec.UnsetType = msgspec.UNSET
        made: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})

    assert definition_of(Point) == {
        "kind": "object",
        "name": "Point",
        "layout": "map",
        "tag": {"field": "kind", "value": "point"},
        "closed": True,
        "fields": [
            {"name": "xAxis", "type": INT, "required": False, "default": 1},
            {"name": "yAxis", "type": INT, "required": True},
            {"name": "labels", "type": {"kind": "array", "items": STR}, "required": False, "default": []},
            {"name": "note", "type": STR, "required": False, "may_be_absent": True},
            {"name": "made", "type": {"kind": "map", "keys": STR, "values": INT}, "required": False},
        ],
    }


def test_a_struct_that_omits_defaults_may_leave_fields_out() -> None:
    class Sparse(msgspec.Struct, omit_defaults=True):
        id: int
        note: str = ""

    absent = [field["name"] for field in definition_of(Sparse)["fields"] if field.get("may_be_absent")]
    assert absent == ["note"]


def test_a_struct_like_an_array_and_a_named_tuple_lie_as_arrays() -> None:
    class Row(msgspec.Struct, array_like=True):
        id: int

    class Pair(NamedTuple):
        left: int
        right: str = ""

    assert definition_of(Row)["layout"] == "array"
    assert definition_of(Pair) == {
        "kind": "object",
        "name": "Pair",
        "layout": "array",
        "closed": True,
        "fields": [
            {"name": "left", "type": INT, "required": True},
            {"name": "right", "type": STR, "required": False, "default": ""},
        ],
    }


def test_a_pydantic_model_is_described_by_the_names_of_its_fields() -> None:
    class Order(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        id: int = pydantic.Field(alias="ID", gt=0)
        tags: list[str] = []
        made: datetime.datetime = pydantic.Field(default_factory=datetime.datetime.now)
        parent: "Order | None" = None
        seen: pydantic.AwareDatetime | None = None

    # A class of a function that names itself is completed by pydantic; the names it goes by are the attributes'.
    definition = definition_of(Order)
    assert definition["closed"]
    assert [(field["name"], field["required"]) for field in definition["fields"]] == [
        ("id", True),
        ("tags", False),
        ("made", False),
        ("parent", False),
        ("seen", False),
    ]
    assert definition["fields"][1]["default"] == []
    assert "default" not in definition["fields"][2]
    assert definition["fields"][4]["type"]["members"] == [kind("null"), kind("datetime")]


def test_a_root_model_travels_as_its_root() -> None:
    class Names(pydantic.RootModel[list[str]]): ...

    class People(pydantic.BaseModel):
        names: Names

    assert schema_of(Names)["type"] == {"kind": "array", "items": STR}
    assert definition_of(People)["fields"][0]["type"] == {"kind": "array", "items": STR}


def test_types_of_pydantic_are_for_models_alone() -> None:
    with pytest.raises(InterfaceError, match=r"pydantic\.types\.AwareDatetime cannot travel; use str"):
        schema_of(pydantic.AwareDatetime)


def test_a_typed_dict_tells_what_may_be_missing() -> None:
    class Options(TypedDict, total=False):
        color: typing.Required[Color]
        limit: int

    assert definition_of(Options)["fields"] == [
        {"name": "color", "type": schema_of(Color)["type"], "required": True},
        {"name": "limit", "type": INT, "required": False, "may_be_absent": True},
    ]


def test_a_final_field_is_its_type() -> None:
    @dataclasses.dataclass
    class Order:
        id: Final[int]

    assert definition_of(Order)["fields"][0]["type"] == INT


def test_generic_messages_are_named_for_what_they_stand_for() -> None:
    class Page(pydantic.BaseModel, Generic[T]):
        items: list[T]

    class Box(msgspec.Struct, Generic[T]):
        item: T

    assert list(schema_of(Box[Page[int]])["definitions"]) == [
        f"{HERE}.{Box.__qualname__}[Page[int]]",
        f"{HERE}.Page[int]",
    ]


def test_a_recursive_type_refers_to_its_definition() -> None:
    schema = schema_of(Tree)
    reference = {"kind": "ref", "name": f"{HERE}.Tree"}
    assert schema["type"] == reference
    left = schema["definitions"][f"{HERE}.Tree"]["fields"][1]["type"]
    assert left == {"kind": "union", "members": [kind("null"), reference]}


def test_types_that_hold_each_other_are_each_defined_once() -> None:
    class Author(msgspec.Struct):
        books: "list[Book]"

    class Book(msgspec.Struct):
        author: Author
        sequel: "Book | None" = None

    schema = schema_of(list[Author], {"Author": Author, "Book": Book})
    assert [definition["name"] for definition in schema["definitions"].values()] == ["Author", "Book"]


def test_two_classes_of_one_name_are_two_definitions() -> None:
    def make(of: Any) -> Any:
        return msgspec.defstruct("Order", [("id", of)], module=HERE)

    first: Any = make(int)
    second: Any = make(str)
    both = dataclasses.make_dataclass("Both", [("a", first), ("b", second), ("c", list[first])])
    assert list(schema_of(both)["definitions"])[1:] == [f"{HERE}.Order", f"{HERE}.Order#2"]


def test_a_field_default_that_does_not_fit_is_refused() -> None:
    class Order(msgspec.Struct):
        id: int = None  # type: ignore[assignment]  # the mistake

    with pytest.raises(
        InterfaceError, match=r"^Order\.id: the default None does not fit .*write `\| None` after"
    ):
        schema_of(Order)


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("declared", "default"),
    [
        (Point, 3),
        (Tree, [1]),
        (dict[str, int], [1]),
        (tuple[int, str], {}),
        (set[int], "ab"),
        (bool, 1),
        (str | int, 1.5),
    ],
    ids=str,
)
def test_a_default_of_another_family_is_refused(declared: Any, default: Any) -> None:
    cls: Any = dataclasses.make_dataclass(
        "Order", [("id", declared, dataclasses.field(default_factory=type(default)))]
    )
    cls.__dataclass_fields__["id"].default = default
    with pytest.raises(InterfaceError, match="does not fit the declared type; change one of the two"):
        schema_of(cls)


@pytest.mark.parametrize(
    ("declared", "default"),
    [
        (Point, Point(1)),
        (float, 1),
        (int | None, None),
        (list[int], ()),
        (dict[str, int], {}),
        (Color, Color.RED),
        (Right, Right.READ | Right.WRITE),
        (Literal["a"], "a"),
        (Any, frozenset()),
        (tuple[int, str], (1, "a")),
        (Tree, Tree(1)),
        (datetime.datetime, datetime.datetime.min),
        (bytes, bytearray()),
    ],
    ids=str,
)
def test_a_default_that_fits_is_accepted(declared: Any, default: Any) -> None:
    cls = dataclasses.make_dataclass(
        "Order", [("id", declared, dataclasses.field(default_factory=lambda: default))]
    )
    plain = (
        msgspec.defstruct("Plain", [("id", declared, default)])
        if not isinstance(default, dict | Tree)
        else cls
    )
    assert definition_of(cls)["fields"][0]["required"] is False
    assert definition_of(plain)["fields"][0]["required"] is False


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (float("inf"), "inf"),
        (1.5, 1.5),
        (Level.HIGH, 10),
        (b"\x00\xff", "AP8="),
        pytest.param(frozenset({"b", "a"}), ["a", "b"], id="a frozen set"),
        ({Color.RED: (1, decimal.Decimal("1.50"))}, {"red": [1, "1.50"]}),
        (Tree(1, Tree(2)), {"value": 1, "left": {"value": 2, "left": None, "right": None}, "right": None}),
        (datetime.timedelta(seconds=1), "0:00:01"),
    ],
    ids=str,
)
def test_a_default_is_told_as_plain_data(value: Any, plain: Any) -> None:
    spec = MethodSpec("S", "m", CallKind.UNARY, (Parameter("p", Any, value),), int)
    schema = service_schema(ServiceSpec("S", "1.0", {"m": spec}, object))
    assert schema["methods"]["m"]["parameters"][0]["default"] == plain


class NotFound(ServiceError):
    id: int


@service("shop.Orders", version="1.2")
class Orders(Protocol):
    """Orders."""

    @method(timeout_s=3, raises=[NotFound, LookupError])
    async def get(self, id: int, deep: bool = False) -> Tree | None:
        """One."""
        ...

    def watch(self, ids: collections.abc.AsyncIterator[int]) -> collections.abc.AsyncIterator[Tree]: ...


def test_a_service_is_described_with_its_methods_and_all_definitions() -> None:
    schema = service_schema(spec_of(Orders))
    tree = {"kind": "ref", "name": f"{HERE}.Tree"}
    assert {key: schema[key] for key in ("service", "version", "doc")} == {
        "service": "shop.Orders",
        "version": "1.2",
        "doc": "Orders.",
    }
    assert schema["methods"] == {
        "get": {
            "name": "get",
            "kind": "unary",
            "doc": "One.",
            "parameters": [
                {"name": "id", "type": INT, "required": True},
                {"name": "deep", "type": kind("bool"), "required": False, "default": False},
            ],
            "result": {"kind": "union", "members": [kind("null"), tree]},
            "raises": [
                {"name": "NotFound", "type": {"kind": "ref", "name": f"{HERE}.NotFound"}},
                {"name": "LookupError", "type": {"kind": "array", "items": ANY}},
            ],
            "timeout_s": 3,
            "idempotent": False,
            "oneway": False,
        },
        "watch": {
            "name": "watch",
            "kind": "bidirectional",
            "doc": "",
            "parameters": [{"name": "ids", "type": INT, "required": True, "stream": True}],
            "result": tree,
            "raises": [],
            "timeout_s": None,
            "idempotent": False,
            "oneway": False,
        },
    }
    assert list(schema["definitions"]) == [f"{HERE}.Tree", f"{HERE}.NotFound"]
    assert json.loads(json.dumps(schema)) == schema


def test_a_description_made_by_hand_has_the_same_schema() -> None:
    spec = spec_of(Orders)
    assert service_schema(dataclasses.replace(spec, schema={})) == service_schema(spec)


PROGRAM = """
import dataclasses, enum, json, msgspec
from rpcfw.interface import schema_of, service, service_schema, spec_of

class Kind(enum.Enum):
    A = "a"
    B = "b"
    C = "c"

class Cat(msgspec.Struct, tag=True): ...
class Dog(msgspec.Struct, tag=True): ...

@dataclasses.dataclass
class Order:
    kinds: set[Kind] = dataclasses.field(default_factory=set)
    frozen: frozenset[str] = frozenset({"x", "y", "z", "w"})

@service
class Orders:
    async def get(self, pet: Dog | Cat | None, ids: frozenset[int | str]) -> dict[str, Order]: ...

spec = spec_of(Orders)
print(json.dumps([service_schema(spec), spec.methods["get"].fingerprint]))
"""


def test_schema_and_fingerprint_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(__file__).parents[2]
    outputs = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        command = [sys.executable, str(tmp_path / "program.py")]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(outputs) == 1
    assert json.loads(outputs.pop())[0]["service"] == "Orders"
