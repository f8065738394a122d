"""A fingerprint of a method's schema: equal on both sides of the wire exactly when nothing there has drifted.

The names of classes, the order of fields sent by name, docs, the values of defaults and options that one side keeps to
itself are left out, because the wire does not show them. Which fields share a class does count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def fingerprint(method: Schema, definitions: Mapping[str, Schema]) -> str:
    """16 hex digits over what the wire depends on in the schema of a method."""
    seen: dict[str, int] = {}
    parameters = sorted(method["parameters"], key=_name)
    raises = sorted(method["raises"], key=_name)
    canonical = {
        "name": method["name"],
        "kind": method["kind"],
        "oneway": method["oneway"],
        "parameters": [
            # The parameter that streams is sent item by item, so its name is not.
            _canonical(p["type"], definitions, seen) if p.get("stream") else _named(p, definitions, seen)
            for p in parameters
        ],
        "result": _canonical(method["result"], definitions, seen),
        "raises": [
            {"name": error["name"], "type": _canonical(error["type"], definitions, seen)} for error in raises
        ],
    }
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16]


def _canonical(schema: Schema, definitions: Mapping[str, Schema], seen: dict[str, int]) -> Any:
    """A type without names of classes: each class is written out where it is first met, then goes by a number."""
    kind = schema["kind"]
    if kind == "ref":
        name = schema["name"]
        if name in seen:
            return {"seen": seen[name]}
        seen[name] = len(seen)
        return _object(definitions[name], definitions, seen)
    if kind == "union":
        return {"union": [_canonical(member, definitions, seen) for member in schema["members"]]}
    if kind == "tuple":
        return {"tuple": [_canonical(item, definitions, seen) for item in schema["items"]]}
    if kind == "map":
        return {"map": [_canonical(schema[part], definitions, seen) for part in ("keys", "values")]}
    if kind in ("array", "set"):
        return {kind: _canonical(schema["items"], definitions, seen)}
    if kind == "enum":
        return {"flags" if schema.get("flags") else "enum": schema["values"]}
    return kind


def _object(definition: Schema, definitions: Mapping[str, Schema], seen: dict[str, int]) -> Any:
    fields = definition["fields"]
    if definition["layout"] == "array":
        parts = [[_canonical(field["type"], definitions, seen), field["required"]] for field in fields]
    else:
        parts = [_named(field, definitions, seen) for field in sorted(fields, key=_name)]
    return {
        definition["layout"]: parts,
        "tag": definition.get("tag"),
        "closed": definition.get("closed", False),
    }


def _named(field: Schema, definitions: Mapping[str, Schema], seen: dict[str, int]) -> Any:
    return {
        "name": field["name"],
        "type": _canonical(field["type"], definitions, seen),
        "required": field["required"],
    }


def _name(named: Schema) -> str:
    return str(named["name"])
