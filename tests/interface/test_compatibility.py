"""Two versions of an interface are compared by what old and new sides make of each other's messages."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcfw.interface import Change, compare, compare_all, schema_of, service_schema, spec_of

from .conftest import Declare

ORIGINAL = """
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Line:
    sku: str
    count: int = 1
    price: int = 0

class Hit(msgspec.Struct, tag=True):
    at: int

class Miss(msgspec.Struct, tag=True): ...

class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int

class Row(NamedTuple):
    x: int
    y: int = 0

class Flat(msgspec.Struct, array_like=True):
    x: int
    y: int = 0

class Sparse(msgspec.Struct, omit_defaults=True):
    a: int
    b: int = 0

class Gone(ServiceError):
    sku: str

class Options(TypedDict):
    limit: int

@dataclass
class Tree:
    value: int
    children: "list[Tree]" = dataclasses.field(default_factory=list)

@service("shop.Orders", version="1.0")
class Orders:
    @method(timeout_s=1, raises=[Gone])
    async def place(self, line: Line, coupon: str = "", color: Color = Color.RED) -> list[Line]: ...

    @idempotent
    async def find(self, where: tuple[int, str], tags: list[str] | None = None) -> Hit | Miss | None: ...

    def watch(self, line: Line) -> AsyncIterator[dict[str, int]]:
        raise NotImplementedError

    async def upload(self, rows: AsyncIterator[Row], flat: Flat | None, closed: Closed | None) -> Tree: ...

    async def more(self, sparse: Sparse, options: Options, any: Any, ratio: float) -> None: ...
"""

SAFE = {
    "a new parameter with a default": (
        'coupon: str = ""',
        'coupon: str = "", gift: bool = False',
        "shop.Orders.place.gift: parameter 'gift' was added with a default: "
        "new servers fill it in, old servers ignore it",
    ),
    "a parameter with a default gone": (
        ', coupon: str = ""',
        "",
        "shop.Orders.place.coupon: parameter 'coupon' was removed: "
        "old servers fill in its default, new servers ignore it",
    ),
    "a default for a parameter": (
        "ratio: float",
        "ratio: float = 1",
        "shop.Orders.more.ratio: parameter 'ratio' got a default: calls that name only what they need fail "
        "with old servers, generated and typed clients always send it",
    ),
    "another default of a parameter": (
        'coupon: str = ""',
        'coupon: str = "none"',
        "shop.Orders.place.coupon: the default was '' and is now 'none': each side goes by its own",
    ),
    "parameters in another order": (
        'coupon: str = "", color: Color = Color.RED',
        'color: Color = Color.RED, coupon: str = ""',
        "shop.Orders.place: the order of the parameters changed: "
        "the wire goes by name, but Python calls by position do not",
    ),
    "a new field with a default": (
        "    price: int = 0",
        "    price: int = 0\n    note: str | None = None",
        "Line.note (used by shop.Orders.place, shop.Orders.watch): "
        "the field was added with a default: the old version ignores it",
    ),
    "a field with a default gone": (
        "    price: int = 0",
        "",
        "Line.price (used by shop.Orders.place, shop.Orders.watch): "
        "the field was removed: the old version fills in its default",
    ),
    "a default for a field": (
        "class Gone(ServiceError):\n    sku: str",
        "class Gone(ServiceError):\n    sku: str = ''",
        "Gone.sku (used by shop.Orders.place): the field got a default: it is still sent where it was set",
    ),
    "another default of a field": (
        "count: int = 1",
        "count: int = 2",
        "Line.count (used by shop.Orders.place, shop.Orders.watch): the default was 1 and is now 2: "
        "each side goes by its own where nobody has set the field",
    ),
    "a new last field of a Struct like an array": (
        "class Flat(msgspec.Struct, array_like=True):\n    x: int\n    y: int = 0",
        "class Flat(msgspec.Struct, array_like=True):\n    x: int\n    y: int = 0\n    z: int = 0",
        "Flat.z (used by shop.Orders.upload): the field was added with a default: the old version ignores it",
    ),
    "a set for a list": (
        "list[str] | None",
        "set[str] | None",
        "shop.Orders.find.tags: the type was list[str] and is now set[str]: "
        "both are read as either, but a set loses order and duplicates",
    ),
    "a new method": (
        "    @idempotent",
        "    async def cancel(self) -> None: ...\n    @idempotent",
        "shop.Orders.cancel: the method was added: old servers answer UNIMPLEMENTED until they are replaced",
    ),
    "a new error": (
        "[Gone]",
        "[Gone, LookupError]",
        "shop.Orders.place.raises.LookupError: the error LookupError was added: it arrives at old clients as RpcError",
    ),
    "an error gone": (
        "raises=[Gone]",
        "raises=[]",
        "shop.Orders.place.raises.Gone: the error Gone was removed: "
        "where old servers raise it, it arrives at new clients as RpcError",
    ),
    "another timeout": (
        "timeout_s=1",
        "timeout_s=2",
        "shop.Orders.place: timeout_s was 1 and is now 2: each client goes by its own",
    ),
    "no longer idempotent": (
        "    @idempotent\n",
        "",
        "shop.Orders.find: the method is no longer idempotent: "
        "old clients still call again after a failure; mind them",
    ),
    "idempotent now": (
        "timeout_s=1",
        "timeout_s=1, idempotent=True",
        "shop.Orders.place: the method is idempotent now: "
        "new clients may call again after a failure, old servers must bear it",
    ),
    "another version": (
        'version="1.0"',
        'version="1.1"',
        "shop.Orders: the version was 1.0 and is now 1.1; it is told, not compared",
    ),
}

BREAKING = {
    "a new parameter without a default": (
        "line: Line, coupon",
        "line: Line, gift: bool, coupon",
        "shop.Orders.place.gift: parameter 'gift' was added without a default: "
        "old clients do not send it; give it a default",
    ),
    "a required parameter gone": (
        ", ratio: float",
        "",
        "shop.Orders.more.ratio: parameter 'ratio' was removed: "
        "new clients do not send it, and old servers require it; keep it",
    ),
    "a parameter without its default": (
        ', coupon: str = "", color: Color = Color.RED',
        ", coupon: str, color: Color = Color.RED",
        "shop.Orders.place.coupon: parameter 'coupon' lost its default: "
        "new servers refuse calls that leave it out; keep the default",
    ),
    "a new field without a default": (
        "    sku: str\n    count",
        "    sku: str\n    weight: float\n    count",
        "Line.weight (used by shop.Orders.place, shop.Orders.watch): "
        "the field was added without a default: messages from the old version lack it; give it a default",
    ),
    "a required field gone": (
        "class Options(TypedDict):\n    limit: int",
        "class Options(TypedDict):\n    pass",
        "Options.limit (used by shop.Orders.more): the field was removed: "
        "messages from the new version lack it, and the old one requires it; keep it",
    ),
    "a field that may be left out now": (
        "limit: int",
        "limit: NotRequired[int]",
        "Options.limit (used by shop.Orders.more): the field got a default: "
        "the new version may leave it out, and the old one requires it",
    ),
    "a field without its default": (
        "class Sparse(msgspec.Struct, omit_defaults=True):\n    a: int\n    b: int = 0",
        "class Sparse(msgspec.Struct, omit_defaults=True):\n    a: int\n    b: int",
        "Sparse.b (used by shop.Orders.more): the field lost its default: "
        "messages from the old version may lack it; keep the default",
    ),
    "a new field where unknown ones are refused": (
        "    a: int\n\nclass Row",
        "    a: int\n    b: int = 0\n\nclass Row",
        "Closed.b (used by shop.Orders.upload): the field was added: the old version refuses fields that it does "
        "not know; first let a version without that refusal replace it",
    ),
    "a field gone where unknown ones are refused": (
        "class Closed(msgspec.Struct, forbid_unknown_fields=True):\n    a: int",
        "class Closed(msgspec.Struct, forbid_unknown_fields=True):\n    pass",
        "Closed.a (used by shop.Orders.upload): the field was removed: "
        "the new version refuses it when the old one sends it; keep it",
    ),
    "a new field of a NamedTuple": (
        "class Row(NamedTuple):\n    x: int",
        "class Row(NamedTuple):\n    x: int\n    w: int = 0",
        "Row.y (used by shop.Orders.upload): the field was added: the old version refuses fields that it does "
        "not know; first let a version without that refusal replace it",
    ),
    "int to float": (
        "price: int = 0",
        "price: float = 0",
        "Line.price (used by shop.Orders.place, shop.Orders.watch): the type was int and is now float: "
        "the old version cannot read fractions; add a new field instead",
    ),
    "float to int": (
        "ratio: float",
        "ratio: int",
        "shop.Orders.more.ratio: the type was float and is now int: "
        "the new version cannot read fractions from the old one; add a new field instead",
    ),
    "int to str": (
        "count: int = 1",
        "count: str = '1'",
        "Line.count (used by shop.Orders.place, shop.Orders.watch): the type was int and is now str: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "anything to something": (
        "any: Any",
        "any: int",
        "shop.Orders.more.any: the type was Any and is now int: "
        "the old version may send anything; add a new field instead",
    ),
    "something to anything": (
        "ratio: float",
        "ratio: Any",
        "shop.Orders.more.ratio: the type was float and is now Any: "
        "the old version reads only what it knew; add a new field instead",
    ),
    "None became possible": (
        "coupon: str",
        "coupon: str | None",
        "shop.Orders.place.coupon: None is possible here now: "
        "the old version cannot read it; add a field with a default",
    ),
    "None became impossible": (
        "flat: Flat | None",
        "flat: Flat",
        "shop.Orders.upload.flat: None is no longer possible here: "
        "the new version cannot read it from the old one; keep it",
    ),
    "a member of a tagged union gone": (
        "Hit | Miss | None",
        "Hit | None",
        "shop.Orders.find.return: Miss is no longer possible here: "
        "the new version cannot read it from the old one; keep it",
    ),
    "a new member of a tagged union": (
        "flat: Flat | None, closed: Closed | None",
        "flat: Flat | int | None, closed: Closed | None",
        "shop.Orders.upload.flat: int is possible here now: "
        "the old version cannot read it; add a field with a default",
    ),
    "another tag": (
        "class Hit(msgspec.Struct, tag=True)",
        "class Hit(msgspec.Struct, tag='hit')",
        "Hit (used by shop.Orders.find): its tag was type='Hit' and is now type='hit': "
        "neither version knows the other's; keep the tag",
    ),
    "a new value of an enum": (
        'BLUE = "blue"',
        'BLUE = "blue"\n    GREEN = "green"',
        "Color (used by shop.Orders.place): the value 'green' was added: "
        "the old version cannot read it; send it only once all are new",
    ),
    "a value of an enum gone": (
        'BLUE = "blue"',
        "",
        "Color (used by shop.Orders.place): the value 'blue' was removed: "
        "the new version cannot read it from the old one; keep it",
    ),
    "a longer tuple": (
        "tuple[int, str]",
        "tuple[int, str, str]",
        "shop.Orders.find.where: the type was tuple[int, str] and is now tuple[int, str, str]: "
        "neither version reads another length; add a field with a default instead",
    ),
    "another part of a tuple": (
        "tuple[int, str]",
        "tuple[int, bytes]",
        "shop.Orders.find.where[1]: the type was str and is now bytes: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "other values of a dict": (
        "dict[str, int]",
        "dict[str, bool]",
        "shop.Orders.watch.return{}: the type was int and is now bool: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "other keys of a dict": (
        "dict[str, int]",
        "dict[int, int]",
        "shop.Orders.watch.return (its keys): the type was str and is now int: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "another layout": (
        "class Closed(msgspec.Struct, forbid_unknown_fields=True)",
        "class Closed(msgspec.Struct, array_like=True)",
        "Closed (used by shop.Orders.upload): it was sent as map and is now sent as array: "
        "neither version reads the other; make a new class",
    ),
    "a type inside itself": (
        "class Tree:\n    value: int",
        "class Tree:\n    value: str",
        "Tree.value (used by shop.Orders.upload): the type was int and is now str: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "another type in a stream": (
        "rows: AsyncIterator[Row]",
        "rows: AsyncIterator[int]",
        "shop.Orders.upload.rows: the type was Row and is now int: "
        "neither version reads what the other sends; add a new field instead",
    ),
    "another field of an error": (
        "class Gone(ServiceError):",
        "class Gone(ServiceError):\n    left: int",
        "Gone.left (used by shop.Orders.place): the field was added without a default: "
        "messages from the old version lack it; give it a default",
    ),
    "a method gone": (
        "def watch(",
        "def _watch(",
        "shop.Orders.watch: the method was removed: "
        "old clients that call it get UNIMPLEMENTED; keep it until they are gone",
    ),
    "another kind of call": (
        "-> AsyncIterator[dict[str, int]]",
        "-> dict[str, int]",
        "shop.Orders.watch: the call was server stream and is now unary: "
        "the sides wait for each other; add a new method",
    ),
    "a one-way call": (
        "    async def more",
        "    @method(oneway=True)\n    async def more",
        "shop.Orders.more: the call was answered and is now one-way: "
        "one side waits for a reply that never comes; add a new method",
    ),
    "another name of the service": (
        '"shop.Orders"',
        '"shop.Sales"',
        "shop.Orders: the service is now named shop.Sales: neither side finds the other; keep the name",
    ),
}

NO_CHANGE = {
    "a renamed message": ("Line", "OrderLine"),
    "a renamed enum": ("Color", "Colour"),
    "a renamed member of an enum": ("RED", "ROUGE"),
    "a renamed streaming parameter": ("rows: AsyncIterator", "all_rows: AsyncIterator"),
    "a tuple of any length": ("list[Line]", "tuple[Line, ...]"),
    "a renamed field of an array": ("class Row(NamedTuple):\n    x", "class Row(NamedTuple):\n    left"),
    "a doc": ("class Orders:", "class Orders:\n    'Documented.'"),
}


def changes_between(declare: Declare, old: str, new: str) -> list[Change]:
    before, after = (json.loads(json.dumps(service_schema(spec_of(declare(s).Orders)))) for s in (old, new))
    return compare(before, after)


def edited(old: str, new: str) -> str:
    assert old in ORIGINAL
    return ORIGINAL.replace(old, new)


@pytest.mark.parametrize(("old", "new", "message"), SAFE.values(), ids=SAFE.keys())
def test_a_safe_change_is_told_as_such(declare: Declare, old: str, new: str, message: str) -> None:
    changes = changes_between(declare, ORIGINAL, edited(old, new))
    assert [(change.message, change.breaking) for change in changes] == [(message, False)]


@pytest.mark.parametrize(("old", "new", "message"), BREAKING.values(), ids=BREAKING.keys())
def test_a_breaking_change_is_told_with_what_breaks(
    declare: Declare, old: str, new: str, message: str
) -> None:
    changes = changes_between(declare, ORIGINAL, edited(old, new))
    assert [change.message for change in changes if change.breaking] == [message]


@pytest.mark.parametrize(("old", "new"), NO_CHANGE.values(), ids=NO_CHANGE.keys())
def test_what_the_wire_does_not_show_is_no_change(declare: Declare, old: str, new: str) -> None:
    assert changes_between(declare, ORIGINAL, edited(old, new)) == []


@pytest.mark.parametrize(("old", "new", "_"), [*SAFE.values(), *BREAKING.values()], ids=[*SAFE, *BREAKING])
def test_a_change_and_its_reverse_are_both_seen(declare: Declare, old: str, new: str, _: str) -> None:
    assert changes_between(declare, edited(old, new), ORIGINAL)


def test_a_field_that_the_sender_always_sends_can_get_a_default(declare: Declare) -> None:
    (change,) = changes_between(
        declare, ORIGINAL, edited("class Tree:\n    value: int", "class Tree:\n    value: int = 0")
    )
    assert (change.message, change.breaking) == (
        "Tree.value (used by shop.Orders.upload): the field got a default: it is still sent where it was set",
        False,
    )


def test_an_interface_is_the_same_as_itself(declare: Declare) -> None:
    assert changes_between(declare, ORIGINAL, ORIGINAL) == []


def test_a_change_names_its_path_and_kind(declare: Declare) -> None:
    (change,) = changes_between(declare, ORIGINAL, edited("    price: int = 0", ""))
    assert (change.path, change.kind, change.breaking) == ("Line.price", "field removed", False)


def test_single_types_are_compared_too() -> None:
    (change,) = compare(schema_of(list[int]), schema_of(list[str]))
    assert change.message == (
        "value[]: the type was int and is now str: neither version reads what the other sends; add a new field instead"
    )


def test_services_that_come_and_go_are_told(declare: Declare) -> None:
    old, new = (
        service_schema(spec_of(declare(ORIGINAL).Orders)),
        service_schema(spec_of(declare(edited('"shop.Orders"', '"shop.Sales"')).Orders)),
    )
    assert [(change.message, change.breaking) for change in compare_all([old], [new])] == [
        (
            "shop.Orders: the service was removed: its clients get UNIMPLEMENTED; keep it until they are gone",
            True,
        ),
        ("shop.Sales: the service was added", False),
    ]
    assert compare_all([old, new], [new, old]) == []


TYPES: list[Any] = [
    bool,
    int,
    float,
    str,
    bytes,
    None,
    list[int],
    tuple[int, int],
    dict[str, int],
    int | None,
    int | str,
]
VALUES: list[Any] = [True, 7, 1.5, "text", b"bytes", None, [1], [1, 2], {"a": 1}]


def reads(declared: Any, value: Any) -> bool:
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=declared)
    except msgspec.ValidationError:
        return False
    return True


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(TYPES), st.booleans()),
        unique_by=lambda field: field[0],
    ),
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(TYPES), st.booleans()),
        unique_by=lambda field: field[0],
    ),
    st.data(),
)
def test_what_is_called_safe_is_read_by_both_sides(
    old: list[tuple[str, Any, bool]], new: list[tuple[str, Any, bool]], data: st.DataObject
) -> None:
    """Any message of one version is read by the other, if no change between them is said to break."""
    versions = [
        msgspec.defstruct(
            "Message",
            [
                (name, of, msgspec.field(default_factory=object)) if default else (name, of)
                for name, of, default in fields
            ],
            kw_only=True,
        )
        for fields in (old, new)
    ]
    if any(change.breaking for change in compare(schema_of(versions[0]), schema_of(versions[1]))):
        return
    for sender, receiver in ((old, versions[1]), (new, versions[0])):
        message = {
            name: data.draw(st.sampled_from([value for value in VALUES if reads(of, value)]))
            for name, of, _ in sender
        }
        assert reads(receiver, message)
