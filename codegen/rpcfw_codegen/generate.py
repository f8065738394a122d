"""`rpcfw gen`: from a target and an output folder to the files that belong there.

Wires discovery to emission and decides where the output stands; reads the disk, writes nothing (see `files`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from rpcfw_codegen.discover import Interface, Target, importing_from, interfaces_of, modules_of, target_of
from rpcfw_codegen.emit import class_names, module_text, package_text
from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.layout import Layout
from rpcfw_codegen.names import Place
from rpcfw_codegen.standin import standing_in

DEFAULT_WIDTH: Final = 110
_PROJECT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


@dataclasses.dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file as it should be.

    Attributes:
        path: where it belongs.
        text: its whole content.
        command: the command line that makes it, which its head names too.
    """

    path: Path
    text: str
    command: str


def generate(
    target: str, output: Path, *, width: int = DEFAULT_WIDTH, directory: Path | None = None
) -> list[GeneratedFile]:
    """Client stubs and server skeletons for every interface that a module, or any module of a package, declares.

    Each source module gives one file of its name in `output`, and the folder's ``__init__`` re-exports all classes.

    Args:
        target: ``shop``, ``shop.contract`` or ``shop/contract.py``.
        output: a folder for generated files only.
        width: columns to which lines are broken, as `ruff format --line-length` breaks them.
        directory: where names and relative paths are looked for; the current folder unless given.

    Raises:
        CodegenError: the target cannot be read or the output cannot be there; the message says how to mend it.
        InterfaceError: an interface is declared wrongly.
    """
    directory = (directory or Path.cwd()).resolve()
    output = directory / output
    read = target_of(target, directory)
    package = _package_of(read, output)
    project = _project_of(output)
    command = _command(read, output, project or read.root, width)
    place = Place(package, (project, project / "src") if project else (read.root,))
    layout = Layout(width)
    with importing_from(read.root), standing_in(package):
        found = {module.__name__: interfaces_of(module) for module in modules_of(read, leave_out=package)}
        sources = {module: interfaces for module, interfaces in found.items() if interfaces}
        if not sources:
            raise CodegenError(
                f"{read.module} declares no interface; put @rpcfw.service above a class there, "
                "or name the module that has it"
            )
        stems = _stems(read.module, list(sources))
        files = [
            GeneratedFile(
                output / f"{stems[module]}.py", module_text(interfaces, command, place, layout), command
            )
            for module, interfaces in sources.items()
        ]
    exports = _exports(read.module, {stems[module]: interfaces for module, interfaces in sources.items()})
    init = package_text(read.module, exports, command, layout)
    return [GeneratedFile(output / "__init__.py", init, command), *files]


def _package_of(target: Target, output: Path) -> str:
    """The dotted name under which the output is imported; "" where it lies outside the target's root."""
    output = output.resolve()
    inside = output.is_relative_to(target.root)
    parts = output.relative_to(target.root).parts if inside else (output.name,)
    package = ".".join(parts)
    if not parts or f"{target.module}.".startswith(f"{package}."):
        raise CodegenError(
            f"the output folder {output} holds the interfaces themselves; give generated files a folder of their own, "
            f"such as {output / 'stubs'}"
        )
    wrong = next((part for part in parts if not part.isidentifier()), None)
    if wrong is not None:
        raise CodegenError(
            f"no package can be named {wrong!r}, so nothing could import {output}; use letters, digits and _"
        )
    return package if inside else ""


def _project_of(output: Path) -> Path | None:
    """The nearest folder around the output that looks like the root of a project."""
    return next(
        (p for p in output.resolve().parents if any((p / mark).exists() for mark in _PROJECT_MARKS)), None
    )


def _command(target: Target, output: Path, base: Path, width: int) -> str:
    """The command line that makes the files, to be run in `base`; the same wherever it was given."""
    output = output.resolve()
    path = output.relative_to(base).as_posix() if output.is_relative_to(base) else output.name
    option = "" if width == DEFAULT_WIDTH else f" --width {width}"
    source = target.module
    is_installed = "site-packages" in target.root.parts
    if target.root != base and target.root.is_relative_to(base) and not is_installed:
        # No name is found from the base: say src/shop/contract.py.
        file = target.root.joinpath(*target.module.split("."))
        source = (file if file.is_dir() else file.with_suffix(".py")).relative_to(base).as_posix()
    return f"rpcfw gen {source} -o {path}{option}"


def _stems(target: str, modules: list[str]) -> dict[str, str]:
    """The names of generated modules: ``shop.orders.contract`` of the package ``shop`` gives ``orders_contract``."""
    stems: dict[str, str] = {}
    for module in modules:
        stem = (
            module.removeprefix(f"{target}.").replace(".", "_")
            if module != target
            else module.rpartition(".")[2]
        )
        if stem in stems.values():
            other = next(name for name, taken in stems.items() if taken == stem)
            raise CodegenError(
                f"{other} and {module} would both give {stem}.py; generate one of them by its own name "
                "into its own folder"
            )
        stems[module] = stem
    return stems


def _exports(target: str, interfaces: dict[str, list[Interface]]) -> dict[str, list[str]]:
    exports = {
        stem: [name for interface in found for name in class_names(interface)]
        for stem, found in interfaces.items()
    }
    owners: dict[str, str] = {}
    for stem, names in exports.items():
        for name in names:
            if owners.setdefault(name, stem) != stem:
                raise CodegenError(
                    f"{target} has an interface {name.removesuffix('Stub')} in both {owners[name]} and {stem}, and one "
                    "folder cannot export both; rename one, or generate each module into its own folder"
                )
    return exports
