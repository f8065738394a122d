"""pydantic models inside messages: packed as maps of their fields, validated by pydantic-core on arrival.

pydantic is imported only when a declared type needs it: a model can only be declared by a program that has imported
pydantic itself, so looking into `sys.modules` is enough.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

Buffer = bytes | bytearray | memoryview


def pack_foreign(value: Any) -> Any:
    """msgspec's hook for what it does not know: models become maps of their fields, anything else is refused."""
    return _packer(type(value))(value)


def unpack_foreign(declared: type, value: Any) -> Any:
    """msgspec's hook for declared types it does not know: a model validates the plain value by its own rules."""
    validator = getattr(declared, "__pydantic_validator__", None)
    if validator is None:
        raise NotImplementedError(f"{declared!r} cannot travel")
    return validator.validate_python(value, by_alias=False, by_name=True)


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


def is_model_adapter_needed(declared: Any) -> bool:
    """Whether a type has a union of models, which msgspec cannot tell apart and pydantic can."""
    if "pydantic" not in sys.modules:
        return False
    origin, args = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return is_model_adapter_needed(args[0])
    if origin in (Union, types.UnionType):
        members = [arg for arg in args if arg is not type(None)]
        if len(members) > 1 and any(_has_model(arg) for arg in members):
            return True
    return any(is_model_adapter_needed(arg) for arg in args if not isinstance(arg, str))


def _has_model(declared: Any) -> bool:
    return hasattr(declared, "__pydantic_validator__") or any(_has_model(arg) for arg in get_args(declared))


def model_adapter(declared: Any) -> Callable[[Buffer], Any]:
    """A decoder that leaves the whole declared type to pydantic."""
    from pydantic import TypeAdapter

    validate = TypeAdapter(declared).validate_python
    decode = msgspec.msgpack.Decoder().decode

    def decode_with_adapter(data: Buffer) -> Any:
        return validate(decode(data), by_alias=False, by_name=True)

    return decode_with_adapter
