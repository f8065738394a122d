"""Which names a generated module imports, what it calls them, and the block of imports that does so.

A module is emitted twice: the first pass notes every name it needs, `settle` gives each one that clashes with nothing,
the second pass writes those. Imports are relative inside the source's own top-level package, absolute elsewhere, and in
the order of isort as ruff has it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from rpcfw_codegen.layout import Atom, Bracket, Layout


class Origin(NamedTuple):
    """Where a name comes from: the module, and the name there; an empty name is the module itself."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a generated module stands among packages.

    Attributes:
        package: the dotted package that holds it, "" when the folder is not importable from the source's root.
        roots: folders whose modules are first-party, for the order of imports.
    """

    package: str
    roots: tuple[Path, ...] = ()

    def spell(self, module: str) -> str:
        """The module as an import statement here names it: ``..contract`` or ``shop.contract``."""
        own, other = self.package.split("."), module.split(".")
        if not self.package or own[0] != other[0]:
            return module
        shared = 0
        while shared < min(len(own), len(other)) and own[shared] == other[shared]:
            shared += 1
        return "." * (len(own) - shared + 1) + ".".join(other[shared:])

    def section(self, spelled: str) -> int:
        """isort's sections: standard library, third party, first party, this package."""
        top = spelled.split(".", 1)[0]
        if not top:
            return 3
        if top in sys.stdlib_module_names:
            return 0
        first_party = any((root / top).is_dir() or (root / f"{top}.py").is_file() for root in self.roots)
        return 2 if first_party else 1


class Names:
    """The names of one generated module.

    Args:
        place: where the generated module stands.
        is_known: whether the source module calls a thing by this name; of two with one name, it gets it.
    """

    def __init__(self, place: Place, is_known: Callable[[Origin], bool] = lambda _: False) -> None:
        self._is_known = is_known
        self._place = place
        self._called: dict[Origin, str] = {}
        self._settled = False

    def refer(self, module: str, name: str = "") -> str:
        """What the generated module calls this name: ``Order``, ``BillingOrder``, ``Outer.Inner``."""
        first, dot, rest = name.partition(".")
        if module == "builtins" and self._settled and Origin(module, first) not in self._called:
            return f"{self._called[Origin('builtins', '')]}.{name}"
        origin = Origin(module, first)
        if not self._settled:
            self._called.setdefault(origin, first or module)
        return f"{self._called[origin]}{dot}{rest}"

    def settle(self, reserved: Iterable[str]) -> None:
        """Give every name noted so far one of its own, none of them in `reserved`."""
        taken = set(reserved)
        wanted = sorted(self._called, key=self._precedence)
        self._called = {}
        shadowed = [origin for origin in wanted if origin.module == "builtins" and origin.name in taken]
        if shadowed:
            wanted = [Origin("builtins", ""), *(origin for origin in wanted if origin not in shadowed)]
        for origin in wanted:
            name = origin.name or origin.module
            while name in taken:
                name = _alias(origin) if name == (origin.name or origin.module) else f"{name}_"
            taken.add(name)
            self._called[origin] = name
        self._settled = True

    def _precedence(self, origin: Origin) -> tuple[int, Origin]:
        if not origin.name:
            return 0, origin
        return 1 if origin.module == "builtins" else 2 if self._is_known(origin) else 3, origin

    def imports(self, layout: Layout) -> list[str]:
        """The lines of the import block, without the one from ``__future__``."""
        sections: dict[int, list[tuple[tuple[object, ...], list[str]]]] = {}
        members: dict[str, list[str]] = {}
        for (module, name), called in self._called.items():
            if not name:
                statement = f"import {module}" + (f" as {called}" if called != module else "")
                section = sections.setdefault(self._place.section(module), [])
                section.append(((0, _natural(module)), [statement]))
            elif called != name:
                self._add_import(sections, layout, module, [name], f" as {called}")
            elif module != "builtins":
                members.setdefault(module, []).append(name)
        for module, names in members.items():
            self._add_import(sections, layout, module, sorted(names, key=_member_order), "")
        blocks = [
            [text for _, lines in sorted(sections[number]) for text in lines] for number in sorted(sections)
        ]
        return [text for block in blocks for text in ["", *block]][1:]

    def _add_import(
        self,
        sections: dict[int, list[tuple[tuple[object, ...], list[str]]]],
        layout: Layout,
        module: str,
        names: list[str],
        alias: str,
    ) -> None:
        spelled = self._place.spell(module)
        bare = spelled.lstrip(".")
        statement = f"from {spelled} import "
        lines = [f"{statement}{', '.join(names)}{alias}"]
        if len(lines[0]) > layout.width and not alias:
            items = Bracket("", "(", tuple(map(Atom, names)), ")", comma_if_single=True, is_literal=True)
            lines = layout.lines(items, before=statement)
        order = (1, len(bare) - len(spelled), _natural(bare), bare, _member_order(names[0]))
        sections.setdefault(self._place.section(spelled), []).append((order, lines))


def export_order(names: Iterable[str]) -> list[str]:
    """Names in the order ruff sorts both the members of an import and ``__all__``."""
    return sorted(names, key=_member_order)


def _alias(origin: Origin) -> str:
    tail = origin.module.rpartition(".")[2].strip("_")
    if origin.name[:1].isupper():
        return "".join(word[:1].upper() + word[1:] for word in tail.split("_")) + origin.name
    return f"{tail}_{origin.name}" if origin.name else f"{tail}_"


def _member_order(name: str) -> tuple[int, tuple[tuple[int, int, str], ...], str]:
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    return kind, _natural(name), name


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts ``b2`` before ``b10``, and letters without regard to case."""
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for character in f"{name.lower()}\0":
        if character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, character))
    return tuple(parts[:-1])
