"""The aliases that an annotation was written with, so that generated code says ``Ids`` where the interface does.

A resolved type has forgotten them: ``Ids = list[int]`` does not know its name, and another parameter may say
``list[int]`` and mean it. So the annotation as it was written is asked which names it mentions.
"""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rpcfw_codegen.names import Origin
from rpcfw_codegen.whereabouts import assigned_at, globals_of


class Alias(NamedTuple):
    """A global name that stands for a type expression."""

    origin: Origin
    value: Any


def aliases_in(function: Any, parameter: str) -> list[Alias]:
    """The public aliases that the annotation of a parameter, or of "return", mentions by name."""
    written = getattr(function, "__annotations__", {}).get(parameter)
    module = getattr(function, "__module__", "")
    names = globals_of(module)
    found = _named(written, module, names) if isinstance(written, str) else _held(written, module, names)
    return [Alias(origin, _resolved(value, names)) for origin, value in found]


def _named(source: str, module: str, names: Mapping[str, Any]) -> Iterator[Alias]:
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named(node.value, module, names)
        elif isinstance(node, ast.Name) and _is_alias(node.id, names.get(node.id)):
            yield Alias(assigned_at(module, node.id), names[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            holder = names.get(node.value.id)
            value = getattr(holder, node.attr, None)
            if isinstance(holder, types.ModuleType) and _is_alias(node.attr, value):
                yield Alias(assigned_at(holder.__name__, node.attr), value)


def _held(written: Any, module: str, names: Mapping[str, Any]) -> Iterator[Alias]:
    """For annotations that are objects already: those globals that are one of their parts."""
    parts = list(_parts(written))
    for name, value in names.items():
        if _is_alias(name, value) and any(value is part for part in parts):
            yield Alias(assigned_at(module, name), value)


def _parts(written: Any) -> Iterator[Any]:
    yield written
    for argument in typing.get_args(written):
        yield from _parts(argument)


def _is_alias(name: str, value: Any) -> bool:
    if name.startswith("_") or isinstance(value, type) or getattr(typing, name, None) is value:
        return False
    return typing.get_origin(value) is not None


def _resolved(value: Any, names: Mapping[str, Any]) -> Any:
    """The alias with its forward references resolved, as they are in the annotation that used it."""
    holder = type("Holder", (), {"__annotations__": {"alias": value}})
    try:
        return typing.get_type_hints(holder, dict(names), include_extras=True)["alias"]
    except NameError:
        return value
