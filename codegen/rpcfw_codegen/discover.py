"""Services in a module or package: what to import, which interfaces are declared there, how their methods are written.

Reads modules and signatures; nothing here writes source. An interface counts where it is defined, not where it is
imported. Modules that cannot be imported are passed over only if they declare no class with a decorator of its own.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from rpcfw.errors import InterfaceError
from rpcfw.interface.declare import spec_of
from rpcfw.interface.spec import MethodSpec, ServiceSpec
from rpcfw_codegen.errors import CodegenError


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What to read: the dotted name of a module or package, and the folder from which it is imported."""

    module: str
    root: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Interface:
    """One declared service and the name under which its class is reached in its module."""

    spec: ServiceSpec
    module: str
    qualname: str

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]

    @property
    def is_contract(self) -> bool:
        """Whether there is something left to implement: a Protocol, or an ABC with abstract methods."""
        return bool(getattr(self.spec.interface, "_is_protocol", False)) or inspect.isabstract(
            self.spec.interface
        )

    def function(self, method: MethodSpec) -> object:
        """The function that declares a method."""
        declared = inspect.getattr_static(self.spec.interface, method.attribute)
        return inspect.unwrap(getattr(declared, "__func__", declared))


def target_of(text: str, directory: Path) -> Target:
    """A target as typed on a command line: ``shop.contract``, ``shop/contract.py``, ``shop/``.

    Raises CodegenError when it is neither a dotted name nor the path of something that can be imported.
    """
    path = directory / text
    if text.endswith(".py") or "/" in text or "\\" in text:
        if not path.exists():
            raise CodegenError(
                f"no file or folder {text!r} in {directory}; name a module (shop.contract) or its path"
            )
        return _target_at(path.resolve(), text)
    if not all(part.isidentifier() for part in text.split(".")):
        raise CodegenError(
            f"{text!r} is neither a module's name (shop.contract) nor a path (shop/contract.py)"
        )
    return Target(text, _root_of(text.split(".", 1)[0], directory.resolve()))


def _root_of(package: str, directory: Path) -> Path:
    """The folder from which a top-level name is imported: `directory`, or where it is installed."""
    with importing_from(directory):
        spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    if spec is not None and spec.has_location and spec.origin:
        return Path(spec.origin).resolve().parent
    return directory


def _target_at(path: Path, text: str) -> Target:
    parts = [path.stem] if path.is_file() else [path.name]
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise CodegenError(
            f"the folder {text!r} is no package, as it has no __init__.py; name one of its modules"
        )
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if parts[-1] == "__init__":
        parts.pop()
    return Target(".".join(parts), root)


@contextlib.contextmanager
def importing_from(root: Path) -> Iterator[None]:
    """Modules in `root` can be imported; before any others of their names, unless it is on the path already."""
    importlib.invalidate_caches()
    if str(root) in sys.path:
        yield
        return
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(root))


def modules_of(target: Target, leave_out: str = "", *, tolerant: bool = False) -> list[ModuleType]:
    """The target's module or, for a package, all its modules in the order of their names.

    Args:
        target: what to import.
        leave_out: a package below it that is not imported.
        tolerant: pass over the target itself too if it cannot be imported and declares nothing.

    Raises:
        CodegenError: a module cannot be found or imported.
        InterfaceError: an interface is declared wrongly.
    """
    top = target.module.split(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise CodegenError(
            f"no module named {top!r} in {target.root} nor installed; run this in the folder that holds it, "
            "or give its path"
        )
    try:
        module = _imported(target.module)
    except CodegenError:
        if tolerant and not _may_declare(target.module):
            return []
        raise
    _check_place(module, target)
    below = _modules_below(module, leave_out) if hasattr(module, "__path__") else ()
    return [module, *below]


def _check_place(module: ModuleType, target: Target) -> None:
    """Raise CodegenError if another module of the same name was there first."""
    path = target.root.joinpath(*target.module.split("."))
    expected = next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)
    actual = Path(module.__file__).resolve() if module.__file__ else None
    if expected is not None and actual != expected.resolve():
        raise CodegenError(
            f"{target.module} is not {expected} but {actual or 'built into Python'}, which has the same name; "
            "rename your module"
        )


def _modules_below(package: ModuleType, leave_out: str) -> Iterator[ModuleType]:
    for info in sorted(
        pkgutil.iter_modules(package.__path__, f"{package.__name__}."), key=lambda info: info.name
    ):
        if info.name == leave_out or info.name.endswith(".__main__"):
            continue
        try:
            module = _imported(info.name)
        except CodegenError:
            if _may_declare(info.name):
                raise
            continue
        yield module
        if info.ispkg:
            yield from _modules_below(module, leave_out)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except InterfaceError:
        raise  # says class, method and mend already
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise CodegenError(f"no module named {error.name!r}; check the name {name!r}") from None
        raise CodegenError(
            f"{name} cannot be imported, {type(error).__name__}: {error}; mend it, or name only the modules "
            "that declare interfaces"
        ) from error


def _may_declare(name: str) -> bool:
    """Whether a module's source has a class with a decorator, other than those that make messages."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return False
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except SyntaxError:
        return True
    decorators = (d for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for d in node.decorator_list)
    return any("dataclass" not in ast.unparse(decorator) for decorator in decorators)


def interfaces_of(module: ModuleType) -> list[Interface]:
    """The services declared in a module, in the order in which they stand there."""
    return list(_interfaces_in(vars(module), module.__name__, "", set()))


def _interfaces_in(
    names: dict[str, object], module: str, prefix: str, seen: set[type]
) -> Iterator[Interface]:
    for name, value in list(names.items()):
        if not isinstance(value, type) or value.__module__ != module or value in seen:
            continue
        seen.add(value)
        spec = _own_spec(value)
        if spec is not None:
            if "<locals>" in value.__qualname__:
                owner = value.__qualname__.split(".<locals>")[0]
                raise CodegenError(
                    f"the interface {module}.{name} is declared inside the function {owner}(), so generated code "
                    "cannot import it; move it to module level"
                )
            yield Interface(spec, module, f"{prefix}{name}")
        yield from _interfaces_in(dict(vars(value)), module, f"{prefix}{name}.", seen)


def _own_spec(cls: type) -> ServiceSpec | None:
    """The spec that was declared on this very class, not on one it inherits from."""
    try:
        spec = spec_of(cls)
    except TypeError:
        return None
    return spec if spec.interface is cls else None
