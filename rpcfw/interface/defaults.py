"""Default values: as plain data for a schema, and whether one obviously does not fit its type.

Only looks at values; what they are the defaults of is known to `schema`.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Any

from rpcfw.interface.shape import UNKNOWN
from rpcfw.interface.spec import REQUIRED

_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
_CLASSES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bytes": (bytes, bytearray, memoryview),
    "datetime": (datetime.datetime,),
    "date": (datetime.date,),
    "time": (datetime.time,),
    "timedelta": (datetime.timedelta,),
    "decimal": (decimal.Decimal,),
    "uuid": (uuid.UUID,),
}
_SCALAR_CLASSES = (type(None), bool, int, float, str, bytes, *_AS_TEXT)


class NotPlain(Exception):
    """A value has no description as plain data that would be the same in every process."""


def plain(value: Any) -> Any:
    """A default as JSON-able data, the same in every process. Raises NotPlain where there is none."""
    if value is UNKNOWN:
        raise NotPlain
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (str, *_AS_TEXT)):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    for names in ("__struct_fields__", "__dataclass_fields__", "__pydantic_fields__"):
        if hasattr(type(value), names):
            return {name: plain(getattr(value, name)) for name in getattr(type(value), names)}
    raise NotPlain


def fits(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> bool:
    """False where a default surely has another type than declared; what is hard to tell is taken to fit."""
    if value is REQUIRED or value is UNKNOWN:
        return True
    kind = schema["kind"]
    if kind == "union":
        return any(fits(value, member, definitions) for member in schema["members"])
    if kind == "enum":
        return (
            "flags" in schema or (value.value if isinstance(value, enum.Enum) else value) in schema["values"]
        )
    if kind in _CLASSES:
        return isinstance(value, _CLASSES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if kind in ("array", "set", "tuple"):
        return not isinstance(value, (*_SCALAR_CLASSES, dict))
    if kind == "map" or (kind == "ref" and definitions[schema["name"]]["layout"] == "map"):
        return not isinstance(value, (*_SCALAR_CLASSES, list, tuple, set, frozenset))
    return kind == "any" or not isinstance(value, _SCALAR_CLASSES)
