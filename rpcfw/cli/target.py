"""What `rpcfw run TARGET` names: from ``app.py``, ``shop.server:Shop`` or ``shop.server:create`` to what is served."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rpcfw.cli.output import CommandError, Exit
from rpcfw.errors import InterfaceError
from rpcfw.interface import spec_of
from rpcfw.server import Server

_RPCFW = Path(__file__).resolve().parents[1]


def load(target: str) -> Any:
    """Import the module that a target names and find the thing in it; without ``:thing``, a list of its services.

    The current folder is on `sys.path` afterwards. Nothing is called or instantiated; see `implementations_of`.

    Raises:
        CommandError: there is no such module or thing, or the module cannot be imported.
    """
    where, _, thing = target.partition(":")
    module = _import(where, target)
    if not thing:
        return _services_in(module)
    found: Any = module
    for part in thing.split("."):
        if not hasattr(found, part):
            known = ", ".join(
                name for name, value in vars(module).items() if _is_service_class(value, module)
            )
            hint = f"; its services are {known}" if known else ""
            raise CommandError(f"{where} has no {thing!r}{hint}", Exit.USAGE)
        found = getattr(found, part)
    return found


async def implementations_of(thing: Any) -> Server | list[Any]:
    """Instances to serve, or a server that was made already.

    Args:
        thing: a decorated class, an instance, a list of these, a `Server`, or a function without parameters, which may
            be async, that gives one of them.

    Raises:
        CommandError: it is none of these, or a class cannot be made without arguments.
    """
    if callable(thing) and not isinstance(thing, type) and not _is_service(thing):
        thing = await _made(thing)
    if isinstance(thing, Server):
        return thing
    if isinstance(thing, Sequence) and not isinstance(thing, str) and not _is_service(thing):
        return [_instance(part) for part in thing]
    return [_instance(thing)]


def _import(where: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    name = where
    if where.endswith(".py") or "/" in where:
        name = _module_at(Path(where), target)
    elif not where or not all(part.isidentifier() for part in where.split(".")):
        raise CommandError(
            f"{target!r} names no module; write app.py, app.py:Shop, shop.server or shop.server:Shop",
            Exit.USAGE,
        )
    try:
        module = importlib.import_module(name)
    except InterfaceError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            message = (
                f"no module named {error.name!r} in {here} nor installed; name a module or the path of a file"
            )
            raise CommandError(message, Exit.USAGE) from error
        raise CommandError(f"{where} cannot be imported: {_origin(error)}") from error
    except Exception as error:
        raise CommandError(f"{where} cannot be imported: {_origin(error)}") from error
    found = Path(module.__file__ or "").resolve()
    if name != where and found not in (Path(where).resolve(), Path(where).resolve() / "__init__.py"):
        raise CommandError(f"{where} cannot be imported: {name} is the name of {found} too; rename the file")
    return module


def _module_at(path: Path, target: str) -> str:
    """The dotted name of a file or package, its root being on the path for imports."""
    path = path.resolve()
    if not path.exists():
        raise CommandError(
            f"no file {str(path)!r}; {target!r} names a path, relative to the current folder", Exit.USAGE
        )
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return ".".join(part for part in parts if part != "__init__")


def _services_in(module: ModuleType) -> list[Any]:
    found: dict[str, Any] = {}
    for value in list(vars(module).values()):
        if not _is_service_class(value, module):
            continue
        name = spec_of(value).name
        other = found.setdefault(name, value)
        if other is not value:
            raise CommandError(
                f"{other.__name__} and {value.__name__} of {module.__name__} both serve {name!r}; "
                f"name one of them: {module.__name__}:{value.__name__}",
                Exit.USAGE,
            )
    if not found:
        raise CommandError(
            f"{module.__name__} defines no class to serve; decorate one with @rpcfw.service, derive one from a "
            "generated skeleton or from the interface, or name what to serve after a colon",
            Exit.USAGE,
        )
    return list(found.values())


def _is_service_class(value: Any, module: ModuleType) -> bool:
    """A class of this very module that can be made and served: neither a Protocol nor abstract."""
    if not isinstance(value, type) or value.__module__ != module.__name__ or not _is_service(value):
        return False
    return not inspect.isabstract(value) and not getattr(value, "_is_protocol", False)


def _is_service(value: Any) -> bool:
    try:
        spec_of(value)
    except InterfaceError:
        return False
    return True


async def _made(factory: Any) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        message = f"{_name(factory)} cannot be called without arguments: {error}; name a factory that can"
        raise CommandError(message, Exit.USAGE) from None
    made = factory()
    return await made if isinstance(made, Awaitable) else made


def _instance(thing: Any) -> Any:
    if not _is_service(thing):
        shown = _name(thing) if isinstance(thing, type) or callable(thing) else repr(thing)
        raise CommandError(
            f"{shown} cannot be served; name a class decorated with @rpcfw.service, an instance of one, "
            "a list of these, a rpcfw.Server, or a function without parameters that returns one of them",
            Exit.USAGE,
        )
    if not isinstance(thing, type):
        return thing
    if getattr(thing, "_is_protocol", False) or inspect.isabstract(thing):
        raise CommandError(f"{_name(thing)} is an interface; name a class that implements it", Exit.USAGE)
    try:
        inspect.signature(thing).bind()
    except TypeError as error:
        message = f"{_name(thing)} cannot be made without arguments: {error}; name a function that makes one"
        raise CommandError(message, Exit.USAGE) from None
    return thing()


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', thing)}".removeprefix(":")


def _origin(error: Exception) -> str:
    """An error with the place in the user's code where it arose."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not Path(frame.filename).is_relative_to(_RPCFW)
    ]
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}"
