"""pydantic models inside messages: packed as maps of their fields, validated by pydantic-core on arrival.

pydantic is imported only when a declared type needs it: a model can only be declared by a program that has imported
pydantic itself, so looking into `sys.modules` is enough.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from operator import attrgetter
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict


def pack_foreign(value: Any) -> Any:
    """msgspec's hook for what it does not know: models become maps of their fields, anything else is refused."""
    model: Any = type(value)
    return _packer(model)(value)


def unpack_foreign(declared: Any, value: Any) -> Any:
    """msgspec's hook for declared types it does not know: a model validates the plain value by its own rules."""
    if declared is object:
        return value
    validate = validator_of(declared)
    if validate is None:
        raise NotImplementedError(f"{declared!r} cannot travel")
    return validate(value)


@functools.lru_cache(maxsize=4096)
def validator_of(declared: Any) -> Callable[[Any], Any] | None:
    """What makes a model of a plain value, by the names of its fields; None for what is no model."""
    validator = getattr(declared, "__pydantic_validator__", None)
    if validator is None:
        return None
    return functools.partial(validator.validate_python, by_alias=False, by_name=True)


@functools.lru_cache(maxsize=4096)
def _packer(model: type) -> Callable[[Any], Any]:
    decorators = getattr(model, "__pydantic_decorators__", None)
    if decorators is None:
        raise NotImplementedError(f"objects of type {model.__module__}.{model.__qualname__} cannot travel")
    if getattr(model, "__pydantic_root_model__", False):
        return attrgetter("root")
    if decorators.field_serializers or decorators.model_serializers:
        return lambda value: value.model_dump(by_alias=False)
    if _config(model).get("extra") == "allow":
        return lambda value: {**value.__dict__, **(value.__pydantic_extra__ or {})}
    return attrgetter("__dict__")


def _config(model: type) -> dict[str, Any]:
    config: dict[str, Any] = getattr(model, "model_config", {})
    return config


def decodable(declared: Any) -> Any:
    """The declared type as msgspec can take it: itself, or a stand-in that leaves it all to pydantic. Raises TypeError.

    msgspec cannot tell models in a union apart, pydantic can. The stand-in has a validator as models have, so that
    `unpack_foreign` treats it as one.
    """
    if "pydantic" not in sys.modules or not _joins_models(declared, set()):
        return declared
    from pydantic import PydanticUserError, TypeAdapter

    try:
        validator = TypeAdapter(declared).validator
    except PydanticUserError as error:
        raise TypeError(
            f"{declared} holds a union of pydantic models, so pydantic must read all of it, and cannot: "
            f"{str(error).splitlines()[0]}; make that part a dataclass or a model"
        ) from error
    return type("Adapted", (_Adapted,), {"__pydantic_validator__": validator})


class _AnyInstance(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True


class _Adapted(metaclass=_AnyInstance):
    """Base of the stand-ins. Any value passes as an instance: pydantic has checked it, and msgspec asks again."""

    __pydantic_validator__: Any


def _joins_models(declared: Any, seen: set[Any]) -> bool:
    """Whether a union with a model in it occurs anywhere in a type that pydantic can validate."""
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _joins_models(args[0], seen)
    if origin in (Union, types.UnionType):
        members = [arg for arg in args if arg is not type(None)]
        if len(members) > 1 and any(_has_model(arg) for arg in members):
            return True
    target: Any = origin or declared
    if isinstance(target, type) and _has_fields(target) and target not in seen:
        seen.add(target)
        if any(_joins_models(field, seen) for field in get_type_hints(target, include_extras=True).values()):
            return True
    return any(
        _joins_models(arg, seen) for arg in args if isinstance(arg, type) or get_origin(arg) is not None
    )


def _has_fields(declared: type) -> bool:
    """A dataclass, TypedDict or NamedTuple, which both engines know; models and Structs are their engine's own."""
    if hasattr(declared, "__pydantic_validator__") or hasattr(declared, "__struct_fields__"):
        return False
    return is_dataclass(declared) or is_typeddict(declared) or hasattr(declared, "_fields")


def _has_model(declared: Any) -> bool:
    return hasattr(declared, "__pydantic_validator__") or any(_has_model(arg) for arg in get_args(declared))
