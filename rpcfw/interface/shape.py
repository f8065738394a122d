"""What the classes used as messages look like inside: their fields, and how they lie on the wire.

Dataclasses, msgspec Structs, pydantic models, TypedDicts and NamedTuples are recognised by the attributes they carry,
so neither msgspec nor pydantic is imported here. Whether the types of the fields can travel is for `schema` to say.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from rpcfw.interface.hints import Namespace, class_hints
from rpcfw.interface.spec import REQUIRED


class UnfitMessage(Exception):
    """A class cannot be a message as it stands. The message says why, and how to mend it."""


class _Unknown(enum.Enum):
    UNKNOWN = "unknown"


UNKNOWN: Final = _Unknown.UNKNOWN
"""Stands for a default that is made anew each time, by a function that only its class knows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field, under its name on the wire.

    Attributes:
        default: the default value, `REQUIRED` when there is none, `UNKNOWN` when only a factory could say.
        may_be_absent: whether a sender may leave the field out of the message.
    """

    name: str
    type: Any
    default: Any = REQUIRED
    may_be_absent: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A class of messages.

    Attributes:
        layout: "map" of names to values, or "array" of values in the order of the fields.
        tag: the name and value of the field that tells members of a union apart, if the class writes one.
        closed: whether a receiver refuses fields it does not know.
        engine: the library that reads it, where unions need to know: msgspec goes by tags, pydantic by Literal fields.
        is_wrapper: whether it has the one field "root", which travels in place of the whole.
    """

    fields: tuple[Field, ...]
    layout: Literal["map", "array"] = "map"
    tag: tuple[str, str | int] | None = None
    closed: bool = False
    engine: Literal["", "msgspec", "pydantic"] = ""
    is_wrapper: bool = False


def shape_of(cls: type, arguments: tuple[Any, ...], namespace: Namespace) -> Shape | None:
    """The shape of a class of messages, None for any other class.

    Raises:
        UnfitMessage: the class has something that cannot be a message.
        UnresolvedAnnotation: the type of a field cannot be resolved.
    """
    if dataclasses.is_dataclass(cls):
        if hasattr(cls, "__pydantic_validator__"):
            raise UnfitMessage(
                "the rules of a pydantic dataclass would not be checked; make it a pydantic.BaseModel, or a dataclass "
                "of the standard library"
            )
        return Shape(tuple(_dataclass_fields(cls, class_hints(cls, arguments, namespace))))
    if hasattr(cls, "__struct_config__"):
        return _struct(cls, class_hints(cls, arguments, namespace))
    if hasattr(cls, "__pydantic_validator__"):
        return _model(cls)
    if typing.is_typeddict(cls):
        return Shape(tuple(_typed_dict_fields(cls, class_hints(cls, arguments, namespace))))
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls, class_hints(cls, arguments, namespace))
    return None


def _dataclass_fields(cls: type, hints: dict[str, Any]) -> Iterator[Field]:
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar) or hint is dataclasses.InitVar:
            raise UnfitMessage(f"its field {name!r} is an InitVar, which is not kept; make it a field")
    for field in dataclasses.fields(cls):
        if not field.init and issubclass(cls, BaseException):
            continue  # an error is made again by calling its class
        has_value = field.default is not dataclasses.MISSING
        yield _field(
            field.name, hints[field.name], field.default if has_value else _made_by(field.default_factory)
        )


def _named_tuple(cls: Any, hints: dict[str, Any]) -> Shape:
    defaults = cls._field_defaults
    fields = (Field(name, hints.get(name, Any), defaults.get(name, REQUIRED)) for name in cls._fields)
    return Shape(tuple(fields), layout="array", closed=True)


def _struct(cls: Any, hints: dict[str, Any]) -> Shape:
    config = cls.__struct_config__
    given: tuple[Any, ...] = cls.__struct_defaults__
    defaults: tuple[Any, ...] = (REQUIRED,) * (len(cls.__struct_fields__) - len(given)) + given
    names = cls.__struct_encode_fields__
    fields = []
    for attribute, name, default in zip(cls.__struct_fields__, names, defaults, strict=True):
        if type(default).__name__ == "NoDefaultType":
            default = REQUIRED
        elif type(default).__name__ == "Factory":
            default = _made_by(default.factory)
        may_be_absent = config.omit_defaults and default is not REQUIRED
        fields.append(_field(name, hints[attribute], default, may_be_absent))
    return Shape(
        tuple(fields),
        layout="array" if config.array_like else "map",
        tag=None if config.tag is None else (config.tag_field, config.tag),
        closed=config.forbid_unknown_fields,
        engine="msgspec",
    )


def _model(cls: Any) -> Shape:
    if not getattr(cls, "__pydantic_complete__", True):
        try:
            cls.model_rebuild()
        except Exception as error:
            raise UnfitMessage(
                f"pydantic cannot complete it: {str(error).splitlines()[0]}; define what it names, then call "
                f"{cls.__name__}.model_rebuild() before the service is declared"
            ) from error
    fields = []
    for name, info in cls.model_fields.items():
        if info.exclude:
            raise UnfitMessage(
                f"its field {name!r} has exclude=True, but messages are sent whole; remove the field"
            )
        default = _made_by(info.default_factory) if info.default_factory else info.default
        fields.append(_field(name, info.annotation, REQUIRED if info.is_required() else default))
    return Shape(
        tuple(fields),
        closed=getattr(cls, "model_config", {}).get("extra") == "forbid",
        engine="pydantic",
        is_wrapper=getattr(cls, "__pydantic_root_model__", False),
    )


def _typed_dict_fields(cls: Any, hints: dict[str, Any]) -> Iterator[Field]:
    for name, hint in hints.items():
        required = (
            name in cls.__required_keys__
        )  # blind to qualifiers in postponed annotations, so these decide
        while get_origin(hint) is Annotated or get_origin(hint) in _QUALIFIERS:
            if get_origin(hint) in (typing.Required, typing.NotRequired):
                required = get_origin(hint) is typing.Required
            hint = get_args(hint)[0]
        yield Field(name, hint, REQUIRED if required else UNKNOWN, may_be_absent=not required)


_PLAIN_FACTORIES = (list, dict, set, frozenset, tuple, str, bytes, int, float, bool)
_QUALIFIERS = {typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", typing.Required)}


def _field(name: str, hint: Any, default: Any, may_be_absent: bool = False) -> Field:
    """A field of a class; ``Final`` means nothing on the wire, and msgspec's UNSET stands for absence."""
    if get_origin(hint) is typing.Final:
        hint = get_args(hint)[0]
    if get_origin(hint) in (typing.Union, types.UnionType) and any(map(_is_unset, get_args(hint))):
        rest = tuple(member for member in get_args(hint) if not _is_unset(member))
        hint, may_be_absent = typing.Union[rest], True  # noqa: UP007  # `|` cannot join a tuple of members
        default = UNKNOWN if _is_unset(type(default)) else default
    return Field(name, hint, default, may_be_absent)


def _is_unset(hint: Any) -> bool:
    return getattr(hint, "__name__", "") == "UnsetType" and getattr(hint, "__module__", "") == "msgspec"


def _made_by(factory: Any) -> Any:
    if factory is dataclasses.MISSING:
        return REQUIRED
    return factory() if factory in _PLAIN_FACTORIES else UNKNOWN
