"""Source text that fits a width: brackets, unions and signatures, broken over lines as `ruff format` breaks them.

Knows nothing of types or services. The rules are Black's: flat if it fits, else the content on one indented line,
else one item per line with a trailing comma; literals skip the middle step. tests/codegen compares with the real ruff.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

INDENT: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Atom:
    """Text that never breaks: a name, a literal."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bracket:
    """A head and items in brackets: ``dict[str, int]``, ``call(a, b)``, ``(a, b)``.

    Attributes:
        comma_if_single: a comma follows an only item: in a tuple always, in a subscript never.
        is_literal: broken, it has one item per line, though all would fit on one.
    """

    head: str
    opening: str
    items: tuple[Node, ...]
    closing: str
    comma_if_single: bool = False
    is_literal: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Either:
    """Alternatives joined by ``|``."""

    operands: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """A node with text before and after that stays on its lines: ``name: <node> = default``."""

    before: str
    node: Node
    after: str = ""


Node = Atom | Bracket | Either | Labelled


def subscript(head: str, items: Iterable[Node]) -> Bracket:
    """``head[a, b]``."""
    return Bracket(head, "[", tuple(items), "]")


def call(head: str, items: Iterable[Node]) -> Bracket:
    """``head(a, b)``."""
    return Bracket(head, "(", tuple(items), ")")


def tuple_of(items: Iterable[Node]) -> Bracket:
    """``(a, b)``, ``(a,)``, ``()``."""
    return Bracket("", "(", tuple(items), ")", comma_if_single=True, is_literal=True)


def text_width(text: str) -> int:
    """Columns on a screen: a wide character takes two, a combining one none."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
        for character in text
    )


def flat(node: Node) -> str:
    """The node on one line."""
    match node:
        case Atom(text):
            return text
        case Labelled(before, inner, after):
            return f"{before}{flat(inner)}{after}"
        case Either(operands):
            return " | ".join(map(flat, operands))
        case Bracket(head, opening, items, closing):
            comma = "," if len(items) == 1 and node.comma_if_single else ""
            return f"{head}{opening}{', '.join(map(flat, items))}{comma}{closing}"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Breaks nodes over lines of at most `width` columns."""

    width: int

    def lines(self, node: Node, indent: int = 0, before: str = "", after: str = "") -> list[str]:
        """The node over as few lines as the rules allow.

        Args:
            node: what to write.
            indent: columns of the line on which it begins.
            before: text between the indent and the node.
            after: text that follows on the last line.
        """
        line = f"{' ' * indent}{before}{flat(node)}{after}"
        if text_width(line) <= self.width:
            return [line]
        match node:
            case Atom() | Bracket(items=()):
                return [line]
            case Labelled():
                return self.lines(node.node, indent, before + node.before, node.after + after)
            case Either(operands):
                first, *others = operands
                pieces = [(first, before), *((operand, "| ") for operand in others)]
                ends = [""] * len(others) + [after]
                return [
                    text
                    for (operand, start), end in zip(pieces, ends, strict=True)
                    for text in self.lines(operand, indent, start, end)
                ]
            case Bracket(head, opening, _, closing):
                return [
                    f"{' ' * indent}{before}{head}{opening}",
                    *self._content(node, indent + INDENT),
                    f"{' ' * indent}{closing}{after}",
                ]

    def _content(self, bracket: Bracket, indent: int) -> list[str]:
        items = bracket.items
        joined = " " * indent + ", ".join(map(flat, items))
        if not bracket.is_literal and text_width(joined) <= self.width:
            return [joined]
        comma = "," if len(items) > 1 or bracket.comma_if_single else ""
        return [text for item in items for text in self.lines(item, indent, after=comma)]

    def signature(
        self, opening: str, parameters: Sequence[Node], result: Node, indent: int, after: str
    ) -> list[str]:
        """A function's head: `opening` is ``async def name``, `after` what follows the result, ``:`` at the least."""
        margin = " " * indent
        listed = ", ".join(map(flat, parameters))
        line = f"{margin}{opening}({listed}) -> {flat(result)}{after}"
        if text_width(line) <= self.width:
            return [line]
        inner = " " * (indent + INDENT) + listed
        if len(parameters) > 1 and text_width(inner) <= self.width:
            body = [inner]
        else:
            body = [
                text for parameter in parameters for text in self.lines(parameter, indent + INDENT, after=",")
            ]
        if text_width(f"{margin}) -> {flat(result)}{after}") > self.width:
            fits_alone = indent + INDENT + text_width(flat(result)) <= self.width
            if isinstance(result, Either) or (isinstance(result, Atom) and fits_alone):
                result = call("", [result])
        return [f"{margin}{opening}(", *body, *self.lines(result, indent, ") -> ", after)]
