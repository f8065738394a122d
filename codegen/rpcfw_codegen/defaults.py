"""Values to source: the defaults of parameters, the members of a Literal, the metadata of Annotated.

Only what reads back as the same value has a source form; what has none is referred to through the spec instead.
"""

from __future__ import annotations

import enum
import math
from typing import Any

from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.names import Names
from rpcfw_codegen.whereabouts import Homes, origin_of


def literal(value: Any, names: Names, homes: Homes) -> str | None:
    """The value as `ruff format` writes it; None when it has no source form, or is mutable and would be shared."""
    if isinstance(value, enum.Enum):
        return _member(value, names, homes)
    kind = type(value)
    if value is None or kind is bool:
        return repr(value)
    if kind is int:
        return repr(value) if abs(value) < 10**18 else None
    if kind is float:
        return repr(value).replace("e+", "e") if math.isfinite(value) else None
    if kind is str or kind is bytes:
        return quoted(value)
    if kind is tuple:
        items = [literal(item, names, homes) for item in value]
        texts = [item for item in items if item is not None]
        if len(texts) != len(items):
            return None
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    return None


def quoted(value: str | bytes) -> str:
    """A string literal in double quotes, unless single ones save escapes."""
    text = repr(value)
    prefix = "b" if isinstance(value, bytes) else ""
    body = text[len(prefix) + 1 : -1]
    if text[len(prefix)] == '"':
        return text
    if "\\'" in body:  # repr escapes them only when both kinds of quotes occur
        plain = body.replace("\\'", "'")
        if body.count('"') > plain.count("'"):
            return text
        return f'{prefix}"{plain.replace(chr(34), chr(92) + chr(34))}"'
    return text if '"' in body else f'{prefix}"{body}"'


def _member(value: enum.Enum, names: Names, homes: Homes) -> str | None:
    cls = type(value)
    if value.name not in cls.__members__ or not value.name.isidentifier():
        return None
    try:
        module, name = origin_of(cls, homes)
    except CodegenError:
        return None
    return f"{names.refer(module, name)}.{value.name}"
