"""Annotations are resolved where they are written: postponed ones, local classes, generics, aliases."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator
from typing import (
    Annotated,
    Generic,
    NamedTuple,
    NewType,
    NotRequired,
    Protocol,
    Required,
    TypedDict,
    TypeVar,
)

import msgspec
import pytest

from rpcfw.errors import ServiceError
from rpcfw.interface import method, schema_of, service, service_schema, spec_of

from .conftest import Declare

T = TypeVar("T")


@dataclasses.dataclass
class Item:
    sku: str


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    next: Page[T] | None = None


class Box(msgspec.Struct, Generic[T]):
    item: T


class Crate(Box[list[T]], Generic[T]):
    label: str


class Partly(TypedDict, total=False):
    a: Required[int]
    b: NotRequired[Annotated[str, "a note"]]
    c: float


class Whole(Partly):
    d: bool
    e: NotRequired[bytes]


class Pair(NamedTuple):
    left: Item
    right: tuple[Item, ...] = ()


def fields_of(declared: object) -> dict[str, object]:
    schema = schema_of(declared)
    fields = schema["definitions"][schema["type"]["name"]]["fields"]
    return {field["name"]: field["type"] for field in fields}


def test_classes_declared_inside_the_same_function_are_found() -> None:
    @dataclasses.dataclass
    class Line:
        sku: str

    @dataclasses.dataclass
    class Basket:
        lines: list[Line]
        parent: Basket | None = None

    class Empty(ServiceError):
        basket: Basket

    @service
    class Shop(Protocol):
        @method(raises=[Empty])
        async def fill(self, basket: Basket) -> Line: ...

        def watch(self) -> AsyncIterator[Line]: ...

    spec = spec_of(Shop)
    assert spec.methods["fill"].parameters[0].type is Basket
    assert spec.methods["watch"].result is Line
    assert [d["name"] for d in service_schema(spec)["definitions"].values()] == ["Basket", "Line", "Empty"]


def test_codecs_can_read_the_annotations_of_a_local_class_later() -> None:
    @dataclasses.dataclass
    class Line:
        sku: str

    @dataclasses.dataclass
    class Basket(Generic[T]):
        lines: dict[str, Line]
        item: T
        parent: Basket[T] | None = None

    class Sealed(msgspec.Struct):
        basket: Basket[Line]

    schema_of(Sealed, {"Line": Line, "Basket": Basket})
    sealed = Sealed(Basket({"a": Line("b")}, Line("c"), Basket({}, Line("d"))))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sealed), type=Sealed) == sealed


def test_classes_declared_around_a_nested_class_are_found() -> None:
    @dataclasses.dataclass
    class Line:
        sku: str

    class Outer:
        @service
        class Inner:
            async def fill(self, line: Line) -> None: ...

    assert spec_of(Outer.Inner).methods["fill"].parameters[0].type is Line


def test_a_local_class_hides_one_of_its_module() -> None:
    @dataclasses.dataclass
    class Item:
        price: float

    @service
    class Shop:
        async def get(self) -> Item:
            raise NotImplementedError

    assert spec_of(Shop).methods["get"].result is Item


def test_locals_of_the_service_do_not_reach_into_classes_of_a_module() -> None:
    T = int

    @service
    class Shop:
        async def get(self) -> Page[str]:
            raise NotImplementedError

    page = service_schema(spec_of(Shop))["definitions"][f"{__name__}.Page[str]"]
    assert T is int
    assert page["fields"][0]["type"] == {"kind": "array", "items": {"kind": "str"}}


def test_a_generic_dataclass_is_described_for_what_it_stands_for() -> None:
    fields = fields_of(Page[Item])
    assert fields["items"] == {"kind": "array", "items": {"kind": "ref", "name": f"{__name__}.Item"}}
    page = {"kind": "ref", "name": f"{__name__}.Page[Item]"}
    assert fields["next"] == {"kind": "union", "members": [{"kind": "null"}, page]}


def test_a_generic_struct_binds_the_variables_of_its_base() -> None:
    assert fields_of(Crate[int]) == {
        "item": {"kind": "array", "items": {"kind": "int"}},
        "label": {"kind": "str"},
    }


def test_postponed_qualifiers_of_a_typed_dict_count() -> None:
    schema = schema_of(Whole)
    fields = schema["definitions"][f"{__name__}.Whole"]["fields"]
    assert {field["name"]: field["required"] for field in fields} == {
        "a": True,
        "b": False,
        "c": False,
        "d": True,
        "e": False,
    }
    assert fields[1]["type"] == {"kind": "str"}


def test_a_named_tuple_is_described_in_the_order_of_its_fields() -> None:
    item = {"kind": "ref", "name": f"{__name__}.Item"}
    assert fields_of(Pair) == {"left": item, "right": {"kind": "array", "items": item}}


OrderId = NewType("OrderId", int)
ALIASES = {
    "NewType": ("Alias = NewType('Alias', int)", "int"),
    "assignment": ("Alias = int", "int"),
    "Annotated": ("Alias = Annotated[int, 'positive']", "int"),
    "nested": ("Alias = Annotated[NewType('Id', NewType('Number', int)), 'positive']", "int"),
}
if sys.version_info >= (3, 12):  # the syntax exists from there on
    ALIASES["type statement"] = ("type Alias = int", "int")
    ALIASES["generic type statement"] = ("type Of[T] = T\nAlias = Of[int]", "int")
    ALIASES["type statement that names a later one"] = ("type Alias = Later\ntype Later = int", "int")


@pytest.mark.parametrize(("source", "kind"), ALIASES.values(), ids=ALIASES.keys())
def test_an_alias_is_what_it_stands_for(declare: Declare, source: str, kind: str) -> None:
    module = declare(f"{source}\n@service\nclass Shop:\n    async def get(self, id: Alias) -> Alias: ...")
    schema = service_schema(spec_of(module.Shop))["methods"]["get"]
    assert schema["parameters"][0]["type"] == schema["result"] == {"kind": kind}


NEW_GENERICS = {"TypeVar": "V = TypeVar('V')\n@dataclass\nclass Of(Generic[V]):\n    item: 'list[V]'"}
if sys.version_info >= (3, 12):
    NEW_GENERICS["type parameters"] = "@dataclass\nclass Of[V]:\n    item: 'list[V]'"
    NEW_GENERICS["a Struct with type parameters"] = "class Of[V](msgspec.Struct):\n    item: 'list[V]'"
if sys.version_info >= (3, 13):
    NEW_GENERICS["type parameters with a default"] = "@dataclass\nclass Of[U, V = int]:\n    item: 'list[V]'"


@pytest.mark.parametrize("source", NEW_GENERICS.values(), ids=NEW_GENERICS.keys())
def test_type_parameters_are_bound_in_postponed_annotations(declare: Declare, source: str) -> None:
    module = declare(source)
    assert fields_of(module.Of[int])["item"] == {"kind": "array", "items": {"kind": "int"}}
