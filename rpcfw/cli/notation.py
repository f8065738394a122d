"""Schemas as Python source: the signature of a method, the fields of a message, a call to try.

For people who read `rpcfw describe`, and for the errors that remind them of a signature.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from rpcfw.interface import CallKind, Schema
from rpcfw.interface.notation import spell

DEFAULT_ENDPOINT = "tcp://127.0.0.1:7000"
DEFAULT_REGISTRY = "zeroconf://"
_SAMPLES = {
    "int": "1",
    "float": "1.5",
    "bool": "true",
    "str": "text",
    "bytes": "@FILE",
    "any": "1",
    "null": "null",
}


def signature(method: Schema, definitions: Mapping[str, Schema]) -> str:
    """``async def get(order_id: int) -> Order``, as the interface has it, without self."""
    parameters = ", ".join(parameters_of(method, definitions))
    result = spell(method["result"], definitions)
    if CallKind(method["kind"]).streams_out:
        return f"def {method['name']}({parameters}) -> AsyncIterator[{result}]"
    return f"async def {method['name']}({parameters}) -> {result}"


def parameters_of(method: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    """Each parameter as in a signature: ``limit: int = 100``."""
    found = []
    for parameter in method["parameters"]:
        declared = spell(parameter["type"], definitions)
        declared = f"AsyncIterator[{declared}]" if parameter.get("stream") else declared
        found.append(f"{parameter['name']}: {declared}{_default(parameter)}")
    return found


def remarks(method: Schema) -> list[str]:
    """What holds beside the signature: ``raises OutOfStock``, ``idempotent``."""
    errors = ", ".join(error["name"] for error in method["raises"])
    found = [f"raises {errors}"] if errors else []
    found += ["idempotent"] if method["idempotent"] else []
    found += ["one-way"] if method["oneway"] else []
    return found + ([f"timeout {method['timeout_s']:g} s"] if method["timeout_s"] is not None else [])


def messages(schema: Schema, methods: Mapping[str, Schema]) -> list[str]:
    """The types that methods use, each as the text of a class, in the order they are met."""
    return list(_Messages(schema["definitions"]).of_all(methods.values()))


def sample_call(schema: Schema, endpoint: str) -> str:
    """A command line that calls the simplest method of a service."""
    calls = [m for m in schema["methods"].values() if not CallKind(m["kind"]).streams_in]
    method = min(
        calls or [*schema["methods"].values()], key=lambda m: sum(p["required"] for p in m["parameters"])
    )
    sample = ["rpcfw", "call", f"{schema['service']}.{method['name']}"]
    needed = [p for p in method["parameters"] if p["required"] and not p.get("stream")]
    sample += [f"{parameter['name']}={_sample(parameter['type'])}" for parameter in needed]
    if endpoint != DEFAULT_ENDPOINT:
        sample.append(f"--endpoint {endpoint}")
    return " ".join(sample)


def indented(text: str, spaces: int = 4) -> str:
    """The text with spaces before each line that is not empty."""
    return "\n".join(" " * spaces + line if line else line for line in text.splitlines())


def _default(named: Schema) -> str:
    if named["required"]:
        return ""
    if "default" not in named:
        return " = ..."
    default = named["default"]
    if named["type"]["kind"] == "bytes" and isinstance(default, str):
        default = base64.b64decode(default)  # as schemas have it
    return f" = {default!r}"


def _sample(schema: Schema) -> str:
    if schema["kind"] == "enum":
        return str(schema["values"][0])
    if schema["kind"] == "union":
        return _sample(next(member for member in schema["members"] if member["kind"] != "null"))
    return _SAMPLES.get(schema["kind"], "...")


class _Messages:
    """Walks from methods to all types they name."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._seen: set[str] = set()

    def of_all(self, methods: Any) -> Iterator[str]:
        for method in methods:
            for parameter in method["parameters"]:
                yield from self._of(parameter["type"])
            yield from self._of(method["result"])
            for error in method["raises"]:
                yield from self._of(error["type"], "Exception")

    def _of(self, schema: Schema, parent: str = "") -> Iterator[str]:
        kind = schema["kind"]
        if kind == "ref" and schema["name"] not in self._seen:
            self._seen.add(schema["name"])
            definition = self._definitions[schema["name"]]
            yield self._class(definition, parent)
            for field in definition["fields"]:
                yield from self._of(field["type"])
        elif kind == "enum" and "name" in schema and f"enum {schema['name']}" not in self._seen:
            self._seen.add(f"enum {schema['name']}")
            yield f"class {schema['name']}(Enum):\n    {' | '.join(map(repr, schema['values']))}"
        elif kind == "union":
            for member in schema["members"]:
                yield from self._of(member)
        elif kind == "tuple":
            for item in schema["items"]:
                yield from self._of(item)
        elif kind in ("array", "set"):
            yield from self._of(schema["items"])
        elif kind == "map":
            yield from self._of(schema["values"])

    def _class(self, definition: Schema, parent: str) -> str:
        tag = definition.get("tag")
        lines = [f"{tag['field']}: Literal[{tag['value']!r}]"] if tag else []
        lines += [
            f"{f['name']}: {spell(f['type'], self._definitions)}{_default(f)}" for f in definition["fields"]
        ]
        body = "\n".join(lines) or "pass"
        return f"class {definition['name']}{f'({parent})' if parent else ''}:\n{indented(body)}"


__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_REGISTRY",
    "indented",
    "messages",
    "parameters_of",
    "remarks",
    "sample_call",
    "signature",
]
