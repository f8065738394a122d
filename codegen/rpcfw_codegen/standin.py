"""Stand-ins for the generated package while its sources are read.

A package whose modules import their own stubs must be importable before the stubs exist, and when they are stale: that
is what generating mends. While `standing_in` lasts, the output package is made of modules that have every name.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def standing_in(package: str) -> Iterator[None]:
    """Imports of `package` and of modules below it give stand-ins, unless it is imported already.

    Modules that took a name from a stand-in are forgotten afterwards, so that a later import gets the real one.
    """
    if not package or package in sys.modules:
        yield
        return
    finder = _Finder(package)
    before = set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        new = set(sys.modules) - before
        users = _users_of_stand_ins(new)
        for name in new:
            if any(
                f"{name}.".startswith(f"{user}.") for user in users
            ):  # what is below a package goes with it
                sys.modules.pop(name, None)
        parent, _, child = package.rpartition(".")
        if isinstance(getattr(sys.modules.get(parent), child, None), _StandInModule):
            delattr(sys.modules[parent], child)


class _Anything(type):
    """The class of stand-in names: can be subclassed, called, subscripted and asked for attributes."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def __getitem__(cls, _: object) -> Any:
        return cls


def _anything(name: str) -> type:
    def accept(self: object, *_: object, **__: object) -> None:
        """Take what the real class would."""

    return _Anything(name, (), {"__init__": accept, "__module__": __name__, "_rpcfw_stand_in": True})


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return ()
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == self._package or fullname.startswith(f"{self._package}."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def _users_of_stand_ins(modules: set[str]) -> list[str]:
    return [
        name
        for name in modules
        if isinstance(sys.modules[name], _StandInModule)
        or any(
            isinstance(value, _StandInModule)
            or (
                isinstance(value, type) and any("_rpcfw_stand_in" in vars(parent) for parent in value.__mro__)
            )
            for value in list(vars(sys.modules[name]).values())
        )
    ]
