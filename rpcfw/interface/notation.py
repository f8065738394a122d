"""Schemas of types in words: `dict[str, Order | None]`, for messages that name a type which only a schema describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def spell(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """A type as a person would write it."""
    kind = schema["kind"]
    if kind == "ref":
        return str(definitions[schema["name"]]["name"])
    if kind == "union":
        return " | ".join(spell(member, definitions) for member in schema["members"])
    if kind == "enum":
        return str(schema.get("name") or f"Literal[{', '.join(map(repr, schema['values']))}]")
    if kind == "map":
        return f"dict[{spell(schema['keys'], definitions)}, {spell(schema['values'], definitions)}]"
    if kind == "tuple":
        return f"tuple[{', '.join(spell(item, definitions) for item in schema['items'])}]"
    if kind in ("array", "set"):
        return f"{'list' if kind == 'array' else 'set'}[{spell(schema['items'], definitions)}]"
    return _NAMES.get(kind, str(kind))


_NAMES = {"null": "None", "any": "Any", "decimal": "Decimal", "uuid": "UUID"}
