"""Values as a person or a program writes them, by the types that a schema declares, and replies as JSON.

``key=value`` is read as the parameter's type says: numbers, true and false, text without quotes, JSON for what has
parts, durations in seconds or ISO 8601. Bytes are text in UTF-8, ``base64:...``, or, typed on the command line,
``@FILE``; in replies ``base64:...``.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpcfw.interface import Schema
from rpcfw.interface.notation import spell

BASE64 = "base64:"
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_SECONDS = re.compile(r"\d+(\.\d+)?")
_WITH_PARTS = ("array", "set", "tuple", "map", "ref")


class ValueProblem(ValueError):
    """A value does not fit its declared type. The message names it by its path, and how to write it."""


class ValueReader:
    """Reads what was written for the types of one service.

    Args:
        definitions: those of the service's schema.
    """

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def from_text(self, text: str, schema: Schema, path: str) -> Any:
        """The value of ``path=text`` on a command line. Raises ValueProblem."""
        kind = schema["kind"]
        if kind == "int":
            return self._number(int, text, schema, path)
        if kind == "float":
            return self._number(float, text, schema, path)
        if kind == "bool":
            return self._bool(text, path)
        if kind == "timedelta" and _SECONDS.fullmatch(text):
            return f"PT{text}S"
        if kind == "bytes":
            return self._typed_bytes(text, path)
        if kind == "union":
            return self._union_from_text(text, schema, path)
        if kind == "any" or (kind == "enum" and text not in schema["values"]):
            try:
                return self.from_json(json.loads(text), schema, path)
            except ValueError:
                return text
        if kind in _WITH_PARTS or kind == "null":
            return self.from_json(self._parsed(text, schema, path), schema, path)
        return self.from_json(text, schema, path)

    def from_json(self, value: Any, schema: Schema, path: str) -> Any:
        """A parsed JSON value as it crosses the wire. What does not fit is left for the server to refuse by name.

        Raises ValueProblem for what the server would pass over or could not tell: unknown fields, broken base64.
        """
        kind = schema["kind"]
        if kind == "bytes" and isinstance(value, str):
            return self._bytes(value, path)
        if kind == "timedelta" and _is_number(value):
            return f"PT{value}S"
        if kind in ("array", "set") and isinstance(value, list):
            return [self.from_json(item, schema["items"], f"{path}[{i}]") for i, item in enumerate(value)]
        if kind == "tuple" and isinstance(value, list):
            pairs = zip(value, schema["items"], strict=False)
            rest = value[len(schema["items"]) :]
            return [
                *(self.from_json(item, part, f"{path}[{i}]") for i, (item, part) in enumerate(pairs)),
                *rest,
            ]
        if kind == "map" and isinstance(value, dict):
            keys, values = schema["keys"], schema["values"]
            return {
                self.from_text(key, keys, f"a key of {path}"): self.from_json(item, values, f"{path}.{key}")
                for key, item in value.items()
            }
        if kind == "union":
            member = self._member(value, schema)
            return value if member is None else self.from_json(value, member, path)
        if kind == "ref":
            return self._object(value, self._definitions[schema["name"]], path)
        return value

    def _object(self, value: Any, definition: Schema, path: str) -> Any:
        fields = {field["name"]: field["type"] for field in definition["fields"]}
        tag = definition.get("tag")
        if isinstance(value, dict):
            unknown = [name for name in value if name not in fields and (tag is None or name != tag["field"])]
            if unknown:
                known = ", ".join(fields) or "none"
                raise ValueProblem(
                    f"{path}: {definition['name']} has no field {unknown[0]!r}; its fields are {known}"
                )
            read = {name: self.from_json(part, fields[name], f"{path}.{name}") if name in fields else part
                    for name, part in value.items()}  # fmt: skip
            if definition["layout"] == "map":
                return {tag["field"]: tag["value"], **read} if tag else read
            in_order = [read[name] for name in fields if name in read]
            return [tag["value"], *in_order] if tag else in_order
        if isinstance(value, list) and definition["layout"] == "array":
            types = [{"kind": "any"}, *fields.values()] if tag else list(fields.values())
            return self.from_json(value, {"kind": "tuple", "items": types}, path)
        return value

    def _union_from_text(self, text: str, schema: Schema, path: str) -> Any:
        members = [member for member in schema["members"] if member["kind"] != "null"]
        if text == "null" and len(members) < len(schema["members"]):
            return None
        if len(members) == 1:
            return self.from_text(text, members[0], path)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not isinstance(value, str) and self._member(value, schema) is not None:
            return self.from_json(value, schema, path)
        textual = self._member(text, schema)
        if textual is None:
            raise self._problem(text, schema, path)
        return self.from_text(text, textual, path)

    def _member(self, value: Any, union: Schema) -> Schema | None:
        """The member of a union that a JSON value can only belong to, None where there is none."""
        members = [member for member in union["members"] if self._takes(member, value)]
        if len(members) > 1 and isinstance(value, dict) and "discriminator" in union:
            field = union["discriminator"]
            members = [m for m in members if value.get(field) in self._values_of(m, field)]
        return members[0] if members else None

    def _takes(self, member: Schema, value: Any) -> bool:
        kind = member["kind"]
        if kind == "ref":
            return isinstance(
                value, dict if self._definitions[member["name"]]["layout"] == "map" else dict | list
            )
        if kind == "enum":
            return any(type(value) is type(known) for known in member["values"])
        if kind in ("int", "float"):
            return _is_number(value) and (kind == "float" or isinstance(value, int))
        classes: dict[str, Any] = {
            "null": type(None),
            "bool": bool,
            "map": dict,
            "array": list,
            "set": list,
            "tuple": list,
        }
        return isinstance(value, classes.get(kind, str)) or (kind == "timedelta" and _is_number(value))

    def _values_of(self, member: Schema, field: str) -> list[Any]:
        definition = self._definitions[member["name"]]
        tag = definition.get("tag")
        if tag is not None and tag["field"] == field:
            return [tag["value"]]
        return next((f["type"].get("values", []) for f in definition["fields"] if f["name"] == field), [])

    def _number(self, make: type[int] | type[float], text: str, schema: Schema, path: str) -> Any:
        try:
            return make(text)
        except ValueError:
            raise self._problem(text, schema, path) from None

    def _bool(self, text: str, path: str) -> bool:
        if text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        raise ValueProblem(f"{path}={text!r} is not a bool; write {path}=true or {path}=false")

    def _typed_bytes(self, text: str, path: str) -> bytes:
        if not text.startswith("@"):
            return self._bytes(text, path)
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise ValueProblem(f"{path}={text}: {error.strerror}; name a file after the @") from None

    def _bytes(self, text: str, path: str) -> bytes:
        if not text.startswith(BASE64):
            return text.encode()
        try:
            return base64.b64decode(text.removeprefix(BASE64), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueProblem(
                f"{path}: {text[:40]!r} is not base64 ({error}); text without {BASE64!r} is sent as it is"
            ) from None

    def _parsed(self, text: str, schema: Schema, path: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._problem(text, schema, path) from None

    def _problem(self, text: str, schema: Schema, path: str) -> ValueProblem:
        wanted = spell(schema, self._definitions)
        if schema["kind"] in _WITH_PARTS:
            return ValueProblem(
                f"{path}={text!r} is not JSON; write {wanted} as {path}='{self._sample(schema)}'"
            )
        return ValueProblem(f"{path}={text!r} is not {wanted}")

    def _sample(self, schema: Schema) -> str:
        if schema["kind"] == "ref":
            names = [field["name"] for field in self._definitions[schema["name"]]["fields"]]
            return "{" + ", ".join(f'"{name}": ...' for name in names) + "}"
        return '{"key": ...}' if schema["kind"] == "map" else "[...]"


def jsonable(value: Any) -> Any:
    """A value off the wire as JSON has it: bytes as ``base64:...``, times in ISO 8601, keys as text."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(jsonable(key)): jsonable(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return BASE64 + base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
