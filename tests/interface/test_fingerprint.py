"""The fingerprint of a method changes exactly with what the wire shows of it."""

import dataclasses
import enum
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
import pytest

from rpcfw.errors import ServiceError
from rpcfw.interface import service, spec_of

from .conftest import Declare

ORIGINAL = """
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Line:
    sku: str
    count: int = 1

class Row(NamedTuple):
    x: int

class Gone(ServiceError):
    sku: str

@dataclass
class Basket:
    lines: list[Line]
    color: Color = Color.RED
    row: Row | None = None
    parent: "Basket | None" = None

@service("shop.Orders", version="1.0")
class Orders:
    @method(timeout_s=1, raises=[Gone, LookupError])
    async def place(self, basket: Basket, coupon: str | int = "", *, urgent: bool = False) -> Line:
        "Place it."
        return basket.lines[0]
"""

Edits = list[tuple[str, str]]
UNSEEN: dict[str, Edits] = {
    "a renamed message": [("Line", "OrderLine")],
    "a renamed enum": [("Color", "Colour")],
    "fields in another order": [
        ("    lines: list[Line]\n", ""),
        ("    color: Color", "    lines: list[Line] = dataclasses.field(kw_only=True)\n    color: Color"),
        ("    row: Row | None = None\n    parent", "    parent"),
        ('"Basket | None" = None', '"Basket | None" = None\n    row: Row | None = None'),
    ],
    "values of an enum in another order": [
        ('RED = "red"', 'PINK = "blue"'),
        ('BLUE = "blue"', 'RED = "red"'),
    ],
    "renamed members of an enum": [("RED", "ROUGE")],
    "another value of a default": [("count: int = 1", "count: int = 2")],
    "another doc": [("Place it.", "Place an order.")],
    "another version": [('version="1.0"', 'version="1.1"')],
    "another timeout": [("timeout_s=1", "timeout_s=2")],
    "idempotent": [("timeout_s=1", "timeout_s=1, idempotent=True")],
    "a parameter by keyword": [("Basket, coupon", "Basket, *, coupon"), ('"", *, urgent', '"", urgent')],
    "members of a union in another order": [("str | int", "int | str")],
    "an alias": [("sku: str\n    count", "sku: NewType('Sku', str)\n    count")],
    "a renamed field of an array": [("    x: int", "    y: int")],
    "a tuple of any length": [("list[Line]", "tuple[Line, ...]")],
    "errors in another order": [("[Gone, LookupError]", "[LookupError, Gone]")],
    "another name in Python": [
        ("async def place", "async def put"),
        ("timeout_s=1", "timeout_s=1, name='place'"),
    ],
}

SEEN = {
    "a renamed field": ("    sku: str\n    count", "    article: str\n    count"),
    "another type of a field": ("count: int", "count: float"),
    "a new field": ("count: int = 1", "count: int = 1\n    note: str = ''"),
    "a default gone": ("count: int = 1", "count: int"),
    "a new value of an enum": ('BLUE = "blue"', 'BLUE = "blue"\n    GREEN = "green"'),
    "a renamed parameter": ("coupon", "voucher"),
    "a new parameter": ("*, urgent", "*, later: bool = False, urgent"),
    "a renamed method": ("def place", "def put"),
    "another result": ("-> Line", "-> list[Line]"),
    "another member of a union": ("str | int", "str | int | None"),
    "another error": ("LookupError", "ValueError"),
    "a field of an error": ("class Gone(ServiceError):", "class Gone(ServiceError):\n    left: int"),
    "a field of an array": ("    x: int", "    x: int\n    y: int = 0"),
    "a set for a list": ("list[Line]", "set[str]"),
}


def fingerprint_of(declare: Declare, source: str) -> str:
    spec = spec_of(declare(source).Orders)
    return next(iter(spec.methods.values())).fingerprint


@pytest.mark.parametrize("edits", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_the_wire_does_not_show_leaves_the_fingerprint(declare: Declare, edits: Edits) -> None:
    source = ORIGINAL
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    assert fingerprint_of(declare, source) == fingerprint_of(declare, ORIGINAL)


@pytest.mark.parametrize(("old", "new"), SEEN.values(), ids=SEEN.keys())
def test_what_the_wire_shows_changes_the_fingerprint(declare: Declare, old: str, new: str) -> None:
    assert old in ORIGINAL
    assert fingerprint_of(declare, ORIGINAL.replace(old, new)) != fingerprint_of(declare, ORIGINAL)


def test_a_fingerprint_stays_the_same_from_release_to_release(declare: Declare) -> None:
    """Releases of rpcfw talk to each other: how fingerprints are made changes by decision, not by accident."""
    assert fingerprint_of(declare, ORIGINAL) == "48a33c4e32d572a4"


def test_kinds_of_call_and_one_way_calls_differ() -> None:
    fingerprints: list[str] = []

    def add(cls: type) -> None:
        fingerprints.extend(spec.fingerprint for spec in spec_of(service("S")(cls)).methods.values())

    class Unary:
        async def m(self, x: int) -> None: ...

    class Out:
        def m(self, x: int) -> AsyncIterator[None]:
            raise NotImplementedError

    class In:
        async def m(self, x: AsyncIterator[int]) -> None: ...

    class Both:
        def m(self, x: AsyncIterator[int]) -> AsyncIterator[None]:
            raise NotImplementedError

    for cls in (Unary, Out, In, Both):
        add(cls)
    assert len(set(fingerprints)) == 4
    assert all(len(fingerprint) == 16 and int(fingerprint, 16) >= 0 for fingerprint in fingerprints)


def test_the_name_of_a_streaming_parameter_is_not_on_the_wire() -> None:
    @service("S")
    class Old:
        async def m(self, items: AsyncIterator[int]) -> None: ...

    @service("S")
    class New:
        async def m(self, numbers: AsyncIterator[int]) -> None: ...

    assert spec_of(Old).methods["m"].fingerprint == spec_of(New).methods["m"].fingerprint


def test_a_tag_and_the_refusal_of_unknown_fields_are_on_the_wire() -> None:
    def fingerprint(**options: Any) -> str:
        declared = msgspec.defstruct("Point", [("x", int)], **options)

        class S:
            async def m(self, point: Any) -> None: ...

        S.m.__annotations__["point"] = declared
        return spec_of(service(S)).methods["m"].fingerprint

    forms: list[dict[str, Any]] = [
        {},
        {"tag": "a"},
        {"tag": "b"},
        {"array_like": True},
        {"forbid_unknown_fields": True},
    ]
    assert len({fingerprint(**form) for form in forms}) == len(forms)


class Color(enum.Enum):
    RED = "red"


class Gone(ServiceError):
    sku: str


class Pair(NamedTuple):
    x: int


@dataclasses.dataclass
class Holder:
    pairs: list[Pair]
    again: "Holder | None" = None


def test_two_uses_of_one_class_differ_from_two_classes_only_by_what_they_hold() -> None:
    @service("S")
    class Twice:
        async def m(self, a: Holder, b: Holder) -> None: ...

    @service("S")
    class Once:
        async def m(self, a: Holder, b: Pair) -> None: ...

    assert spec_of(Twice).methods["m"].fingerprint != spec_of(Once).methods["m"].fingerprint
