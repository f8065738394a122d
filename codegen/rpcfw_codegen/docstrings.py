"""Docstrings carried over: quoted, escaped and indented as `ruff format` leaves them."""

from __future__ import annotations

import inspect


def docstring(text: str, indent: int) -> list[str]:
    """The lines of a docstring; none when there is no text."""
    body, prefix = _escaped(_tidied(text))
    if not body:
        return []
    first, *others = body.split("\n")
    margin = " " * indent
    if not others:
        gap = " " if _ends_open(first) else ""
        return [f'{margin}{prefix}"""{_opened(first)}{gap}"""']
    return [
        f'{margin}{prefix}"""{_opened(first)}',
        *(f"{margin}{line}" if line else "" for line in others),
        f'{margin}"""',
    ]


def _tidied(text: str) -> str:
    """The text without the indentation of its source, also what shows once the first line is at the quotes."""
    while (tidy := "\n".join(line.rstrip() for line in inspect.cleandoc(text).split("\n"))) != text:
        text = tidy
    return text


def _opened(first: str) -> str:
    return f" {first}" if first.startswith('"') else first


def _ends_open(line: str) -> bool:
    """Whether a closing quote right after the line would be escaped by its end, or add to it."""
    backslashes = len(line[:-1]) - len(line[:-1].rstrip("\\"))
    return line[-1:] in ('"', "\\") and backslashes % 2 == 0


def _escaped(text: str) -> tuple[str, str]:
    """The text with what would end the docstring or not be read back escaped, and the prefix it needs."""
    printable = all(character.isprintable() or character == "\n" for character in text)
    if printable and '"""' not in text:
        return text, "r" if "\\" in text else ""
    escaped = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    pieces = (
        piece if piece.isprintable() or piece == "\n" else piece.encode("unicode_escape").decode()
        for piece in escaped
    )
    return "".join(pieces), ""
