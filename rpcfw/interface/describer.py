"""Types to schemas: what each declared type is on the wire, and the refusal of those that cannot travel.

Message classes are told apart by `shape`, members of unions by `unions`. No codec library is asked, yet what is
accepted here is what the codecs can carry.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, NewType, TypeVar, get_args, get_origin

from rpcfw.errors import InterfaceError
from rpcfw.interface.defaults import NotPlain, fits, plain
from rpcfw.interface.hints import Namespace, UnresolvedAnnotation, substitute
from rpcfw.interface.refusals import full_label, label, mend_for
from rpcfw.interface.shape import Shape, UnfitMessage, shape_of
from rpcfw.interface.spec import REQUIRED
from rpcfw.interface.unions import settle

Schema = dict[str, Any]
"""A description made of dict, list, str, int, float, bool and None; every type is a dict with a "kind"."""

_SCALARS: dict[Any, str] = {
    None: "null",
    type(None): "null",
    Any: "any",
    object: "any",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    bytearray: "bytes",
    memoryview: "bytes",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "timedelta",
    decimal.Decimal: "decimal",
    uuid.UUID: "uuid",
}
_ARRAYS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection)
_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_KEYS = (
    "any",
    "bool",
    "int",
    "float",
    "str",
    "datetime",
    "date",
    "time",
    "timedelta",
    "decimal",
    "uuid",
    "enum",
)
_OF_PYDANTIC = {
    "EmailStr": "str",
    "AwareDatetime": "datetime",
    "NaiveDatetime": "datetime",
    "PastDatetime": "datetime",
    "FutureDatetime": "datetime",
    "PastDate": "date",
    "FutureDate": "date",
}
"""Classes that stand for a rule about another type in the annotations of pydantic models, and only there."""
_TYPE_ALIAS: Any = getattr(typing, "TypeAliasType", None)


class Describer:
    """Describes types and collects the definitions they share.

    Classes become entries of `definitions` and references to them, so that a type may hold itself. Call `finish` after
    the last `describe`: only then is all known that tells the members of unions apart.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.definitions: dict[str, Schema] = {}
        self._namespace = namespace
        self._owners: dict[str, tuple[type, tuple[Any, ...]]] = {}
        self._engines: dict[str, str] = {}
        self._unions: list[tuple[str, Schema]] = []
        self._defaults: list[tuple[str, Any, Schema]] = []
        self._expanding: list[Any] = []
        self._in_model = False

    def finish(self) -> dict[str, Schema]:
        """The definitions, once all unions and defaults have been checked. Raises InterfaceError."""
        for path, union in self._unions:
            problem = settle(union, self.definitions, self._engines)
            if problem:
                raise InterfaceError(f"{_at(path)}{problem}")
        for path, default, schema in self._defaults:
            if not fits(default, schema, self.definitions):
                mend = "write `| None` after the type" if default is None else "change one of the two"
                raise InterfaceError(
                    f"{_at(path)}the default {default!r} does not fit the declared type; {mend}"
                )
        self._unions.clear()
        self._defaults.clear()
        return self.definitions

    def describe(self, declared: Any, path: str = "") -> Schema:
        """The schema of one type. Raises InterfaceError naming the offending part by its path."""
        declared = _without_annotations(declared)
        if declared is None or _is_scalar(declared):
            return {"kind": _SCALARS[declared]}
        origin, arguments = get_origin(declared), get_args(declared)
        if _TYPE_ALIAS is not None and isinstance(origin or declared, _TYPE_ALIAS):
            alias = origin or declared
            value = substitute(alias.__value__, dict(zip(alias.__type_params__, arguments, strict=False)))
            return self._expand(declared, value, path)
        if origin is typing.Literal:
            return self._literal(arguments, path)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, path)
        target = origin or declared
        if not isinstance(target, type):
            raise self._refusal(declared, path)
        if target is tuple:
            return self._tuple(origin, arguments, path)
        if target in _ARRAYS:
            return {"kind": "array", "items": self._part(arguments, 0, path)}
        if target in _SETS:
            return self._set(arguments, path)
        if target in _MAPS:
            return self._map(arguments, path)
        if issubclass(target, enum.Enum):
            return self._enum(target, path)
        if self._in_model and target.__module__.startswith("pydantic.") and target.__name__ in _OF_PYDANTIC:
            return {"kind": _OF_PYDANTIC[target.__name__]}
        return self._class(target, arguments, declared, path)

    def expect_default(self, default: Any, schema: Schema) -> None:
        """Have `finish` check that a default fits a type described before."""
        self._defaults.append(("", default, schema))

    def describe_error(self, error: type[Exception]) -> Schema:
        """The schema of a declared error: its fields, or the plain values it was raised with."""
        if dataclasses.is_dataclass(error):
            return self.describe(error)
        return {"kind": "array", "items": {"kind": "any"}}

    def _part(self, arguments: tuple[Any, ...], index: int, path: str) -> Schema:
        return self.describe(arguments[index], f"{path}[]" if path else "") if arguments else {"kind": "any"}

    def _tuple(self, origin: Any, arguments: tuple[Any, ...], path: str) -> Schema:
        if origin is None or arguments[-1:] == (Ellipsis,):
            return {"kind": "array", "items": self._part(arguments, 0, path)}
        return {
            "kind": "tuple",
            "items": [self.describe(item, f"{path}[{i}]") for i, item in enumerate(arguments)],
        }

    def _set(self, arguments: tuple[Any, ...], path: str) -> Schema:
        if arguments and getattr(get_origin(arguments[0]) or arguments[0], "__hash__", None) is None:
            raise InterfaceError(
                f"{_at(path)}set[{label(arguments[0])}] cannot be made: {label(arguments[0])} is not hashable; "
                "use list, or make the class frozen"
            )
        return {"kind": "set", "items": self._part(arguments, 0, path)}

    def _map(self, arguments: tuple[Any, ...], path: str) -> Schema:
        inner = f"{path}{{}}" if path else ""
        keys, values = (self.describe(argument, inner) for argument in arguments or (Any, Any))
        if keys["kind"] not in _KEYS:
            raise InterfaceError(
                f"{_at(path)}{label(arguments[0])} cannot be the key of a dict, which is "
                "a single value such as str or int; use a list of pairs"
            )
        return {"kind": "map", "keys": keys, "values": values}

    def _literal(self, values: tuple[Any, ...], path: str) -> Schema:
        for value in values:
            if isinstance(value, enum.Enum | bytes):
                raise InterfaceError(
                    f"{_at(path)}Literal[{value!r}] cannot travel; use str, int, bool or None"
                )
        plain_values = [value for value in values if value is not None]
        described: Schema = {"kind": "enum", "values": sorted(plain_values, key=_by_type_and_value)}
        if None not in values:
            return described
        return self._join([described, {"kind": "null"}] if plain_values else [{"kind": "null"}], path)

    def _enum(self, cls: type[enum.Enum], path: str) -> Schema:
        values = [member.value for member in cls]
        if not values or not (all(type(v) is str for v in values) or all(type(v) is int for v in values)):
            raise InterfaceError(
                f"{_at(path)}{cls.__name__} cannot travel: the values of an enum must be all str or all int, "
                f"and these are {values!r}; change the values"
            )
        described: Schema = {"kind": "enum", "name": cls.__name__, "values": sorted(values)}
        return {**described, "flags": True} if issubclass(cls, enum.Flag) else described

    def _union(self, arguments: tuple[Any, ...], path: str) -> Schema:
        members = [self.describe(argument, path) for argument in arguments]
        if object in arguments:
            raise InterfaceError(
                f"{_at(path)}a union with object takes anything at all; write Any instead of it"
            )
        return self._join(members, path)

    def _join(self, members: Sequence[Schema], path: str) -> Schema:
        flat: list[Schema] = []
        for member in members:
            for part in member["members"] if member["kind"] == "union" else [member]:
                if part["kind"] == "any":
                    return part
                if part not in flat or part["kind"] != "null":
                    flat.append(part)
        flat = _with_one_literal(flat)
        if len(flat) == 1:
            return flat[0]
        union: Schema = {"kind": "union", "members": flat}
        self._unions.append((path, union))
        return union

    def _expand(self, declared: Any, value: Any, path: str) -> Schema:
        """Describe what only stands for another type, and so has no definition that it could refer back to."""
        if declared in self._expanding:
            raise InterfaceError(
                f"{_at(path)}{label(declared)} holds itself with no class in between; make one of them a dataclass"
            )
        self._expanding.append(declared)
        described = self.describe(value, path)
        self._expanding.pop()
        return described

    def _class(self, cls: type, arguments: tuple[Any, ...], declared: Any, path: str) -> Schema:
        name = self._name(cls, arguments)
        if name in self.definitions:
            return {"kind": "ref", "name": name}
        root = path or label(declared)
        try:
            shape = shape_of(cls, arguments, self._namespace)
        except UnfitMessage as error:
            raise InterfaceError(f"{_at(path)}{label(declared)} cannot travel: {error}") from None
        except UnresolvedAnnotation as error:
            raise InterfaceError(f"{root}.{error.name}: {error}") from None
        if shape is None:
            raise self._refusal(declared, path)
        if shape.is_wrapper:
            return self._expand(declared, shape.fields[0].type, path)
        self._owners[name] = (cls, arguments)
        self._define(name, shape, declared, root)
        return {"kind": "ref", "name": name}

    def _define(self, name: str, shape: Shape, declared: Any, root: str) -> None:
        fields: list[Schema] = []
        definition: Schema = {"kind": "object", "name": label(declared), "layout": shape.layout}
        definition["fields"] = fields
        if shape.tag is not None:
            definition["tag"] = {"field": shape.tag[0], "value": shape.tag[1]}
        if shape.closed:
            definition["closed"] = True
        self._engines[name] = shape.engine
        self.definitions[name] = definition  # before its fields: they may refer to it
        outside = self._expanding, self._in_model
        self._expanding, self._in_model = [], shape.engine == "pydantic"
        for field in shape.fields:
            described = self.describe(field.type, f"{root}.{field.name}")
            schema: Schema = {"name": field.name, "type": described, **describe_default(field.default)}
            fields.append({**schema, "may_be_absent": True} if field.may_be_absent else schema)
            self._defaults.append((f"{root}.{field.name}", field.default, described))
        self._expanding, self._in_model = outside

    def _name(self, cls: type, arguments: tuple[Any, ...]) -> str:
        """The qualified name of a class; a number tells classes of the same name apart, in the order they are met."""
        qualified = f"{cls.__module__}.{cls.__qualname__}"
        if arguments:
            qualified += f"[{', '.join(label(argument) for argument in arguments)}]"
        name, count = qualified, 1
        while self._owners.get(name, (cls, arguments)) != (cls, arguments):
            count += 1
            name = f"{qualified}#{count}"
        return name

    def _refusal(self, declared: Any, path: str) -> InterfaceError:
        return InterfaceError(f"{_at(path)}{full_label(declared)} cannot travel; {mend_for(declared)}")


def describe_default(default: Any) -> Schema:
    """Whether a value must be sent and, if not, its default as far as plain data can say it."""
    if default is REQUIRED:
        return {"required": True}
    try:
        return {"required": False, "default": plain(default)}
    except NotPlain:
        return {"required": False}


def _without_annotations(declared: Any) -> Any:
    while True:
        if get_origin(declared) is Annotated:
            declared = get_args(declared)[0]
        elif isinstance(declared, NewType):
            declared = declared.__supertype__
        elif isinstance(declared, TypeVar) and getattr(declared, "has_default", bool)():
            declared = getattr(declared, "__default__", Any)
        else:
            return declared


def _is_scalar(declared: Any) -> bool:
    try:
        return declared in _SCALARS
    except TypeError:  # not hashable: an Annotated with such metadata inside
        return False


def _with_one_literal(members: list[Schema]) -> list[Schema]:
    """Members with all Literals in one, but for values that a member beside them allows anyway."""
    literals = [member for member in members if member["kind"] == "enum" and "name" not in member]
    rest = [member for member in members if member not in literals]
    covered = {member["kind"] for member in rest}
    values = [
        value for literal in literals for value in literal["values"] if type(value).__name__ not in covered
    ]
    unique = sorted({(type(value), value): value for value in values}.values(), key=_by_type_and_value)
    return [*rest, {"kind": "enum", "values": unique}] if unique else rest


def _by_type_and_value(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def _at(path: str) -> str:
    return f"{path}: " if path else ""
