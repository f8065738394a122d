"""The schemas of the services in a module, package or folder: `python -m rpcfw_codegen.dump TARGET` prints the JSON.

Run as a process of its own, because two versions of a module have one name, and an interpreter holds one of them.
"""

from __future__ import annotations

import contextlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rpcfw.errors import InterfaceError
from rpcfw.interface import service_schema
from rpcfw_codegen.discover import Interface, Target, importing_from, interfaces_of, modules_of, target_of
from rpcfw_codegen.errors import CodegenError

Schema = dict[str, Any]
_NOT_PRODUCT: Final = {"conftest", "noxfile", "setup", "test", "tests"}


def services_in(text: str, directory: Path) -> list[Schema]:
    """The schemas of the services that a target declares, by name.

    Args:
        text: ``shop.contract``, ``shop/contract.py``, a package's folder, or a folder of modules and packages.
        directory: where names and relative paths are looked for.
    """
    found: dict[str, Interface] = {}
    for interface in _interfaces(text, directory):
        other = found.setdefault(interface.spec.name, interface)
        if other is not interface:
            raise CodegenError(
                f"{text}: {other.module}.{other.qualname} and {interface.module}.{interface.qualname} both declare the "
                f"service {interface.spec.name!r}; give one of them another name"
            )
    if not found:
        raise CodegenError(f"{text} declares no interface; name the module or folder that has @rpcfw.service")
    return [service_schema(found[name].spec) for name in sorted(found)]


def _interfaces(text: str, directory: Path) -> Iterator[Interface]:
    folder = directory / text
    is_folder = folder.is_dir() and not (folder / "__init__.py").is_file()
    targets = _targets_in(folder.resolve()) if is_folder else [target_of(text, directory)]
    for target in targets:
        with importing_from(target.root):
            for module in modules_of(target, tolerant=is_folder):
                yield from interfaces_of(module)


def _targets_in(folder: Path) -> list[Target]:
    names = sorted(info.name for info in pkgutil.iter_modules([str(folder)]))
    return [
        Target(name, folder) for name in names if name not in _NOT_PRODUCT and not name.startswith("test_")
    ]


def as_json(services: list[Schema]) -> str:
    """The document that `rpcfw check` reads."""
    return json.dumps({"services": services}, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Print the document, or why there is none; what modules print while they are imported goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            document = as_json(services_in(sys.argv[1], Path.cwd()))
    except (CodegenError, InterfaceError) as error:
        document = json.dumps({"error": str(error)})
    sys.stdout.write(document)


if __name__ == "__main__":
    main()
