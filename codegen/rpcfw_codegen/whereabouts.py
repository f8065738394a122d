"""Where a class or an alias can be imported from: its public home, proved by looking it up there.

A name that a module merely imports is followed through its import statements to the module which assigns it, because
strict type checkers take no name from a module that only passes it on. Aliases are in `aliases`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.names import Origin

Homes = tuple[str, ...]
"""Modules whose globals an annotation may have meant: the interface's, and that of the base class it inherits from."""


def origin_of(thing: Any, homes: Homes) -> Origin:
    """The module and dotted name from which a class, enum, NewType or named alias is imported.

    Args:
        thing: what to import.
        homes: their globals are searched if the thing does not know its own home.
    """
    module, name = (
        getattr(thing, "__module__", ""),
        getattr(thing, "__qualname__", getattr(thing, "__name__", "")),
    )
    candidates = [module]
    if (
        any(part.startswith("_") for part in module.split("."))
        and module.split(".")[0] != homes[0].split(".")[0]
    ):
        parents = module.split(".")[:-1]
        candidates = [".".join(parents[: count + 1]) for count in range(len(parents))] + candidates
        if not parents:
            candidates = [module.lstrip("_"), module]
    for candidate in candidates:
        if candidate and _look_up(candidate, name) is thing:
            return Origin(candidate, name)
    for home in homes:
        for name_there, value in globals_of(home).items():
            if value is thing and not name_there.startswith("__"):
                return assigned_at(home, name_there)
    raise _not_importable(thing, module, name, homes[0])


def _not_importable(thing: Any, module: str, name: str, home: str) -> CodegenError:
    if "<locals>" in name:
        owner = name.split(".<locals>", maxsplit=1)[0]
        return CodegenError(
            f"{home} uses {thing.__name__!r}, which is defined inside the function {owner}() of {module} and so "
            "cannot be imported by generated code; define it at module level"
        )
    return CodegenError(
        f"{home} uses {thing!r}, which calls itself {module}.{name} but is not found there, so generated code cannot "
        f"import it; assign it to that name in {module}, or to a global name in {home}"
    )


def _look_up(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    if found is None:
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
    for part in name.split("."):
        found = (
            inspect.getattr_static(found, part, None)
            if isinstance(found, type)
            else getattr(found, part, None)
        )
    return found


def globals_of(module: str) -> dict[str, Any]:
    """The global names of an imported module."""
    return vars(sys.modules[module]) if module in sys.modules else {}


def is_called_so(module: str, origin: Origin) -> bool:
    """Whether a module knows the thing at `origin` by its own name."""
    known = globals_of(module).get(origin.name)
    return known is not None and known is _look_up(*origin)


def assigned_at(module: str, name: str) -> Origin:
    """The module that assigns the name which `module` has, found by following its imports."""
    origin, seen = Origin(module, name), set[Origin]()
    while origin not in seen:
        seen.add(origin)
        if origin.module in sys.modules:
            origin = _imports_of(sys.modules[origin.module]).get(origin.name, origin)
    return origin


@functools.cache
def _imports_of(module: ModuleType) -> dict[str, Origin]:
    """The names that a module's top level imports from others, with where it takes them from."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return {}
    package = module.__package__ or ""
    found: dict[str, Origin] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            base = "." * statement.level + (statement.module or "")
            source = importlib.util.resolve_name(base, package) if statement.level else base
            if source in sys.modules:
                found |= {
                    a.asname or a.name: Origin(source, a.name) for a in statement.names if a.name != "*"
                }
    return found
