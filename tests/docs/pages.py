"""The documentation as the tests read it: pages, their fenced blocks, and the markers that say what a block is.

A marker is a line ``<!-- KIND: TEXT -->`` right above a fence. Running the blocks is the business of `run_page`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_MARKER = re.compile(r"<!-- (?P<kind>file|output|not run): (?P<text>.+) -->")
_FENCE = re.compile(r"```(?P<language>\w*)$")


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        line: of the fence in its page, counted from 1; the text begins on the next one.
        marker: "file", "output" or "not run", empty without one.
        note: what the marker says: a file's name, whose output this is, why the block is not run.
    """

    line: int
    language: str
    text: str
    marker: str = ""
    note: str = ""


def pages() -> list[Path]:
    """The README and every page of docs/, without the records of decisions, which quote code of their time."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order. Raises ValueError for a fence or a marker that is left open."""
    lines = page.read_text(encoding="utf-8").splitlines()
    marker, number = None, 0
    while number < len(lines):
        line = lines[number]
        number += 1
        fence = _FENCE.match(line)
        if fence is None:
            if line.strip():
                if marker is not None:
                    raise ValueError(f"{page.name}:{number}: the marker above stands before no fenced block")
                marker = _MARKER.fullmatch(line)
            continue
        first = number
        while number < len(lines) and lines[number] != "```":
            number += 1
        if number == len(lines):
            raise ValueError(f"{page.name}:{first}: this fence is never closed")
        text = "".join(f"{inner}\n" for inner in lines[first:number])
        kind, note = (marker["kind"], marker["text"]) if marker else ("", "")
        yield Block(first, fence["language"], text, kind, note)
        marker, number = None, number + 1


def matches(expected: str, actual: str) -> bool:
    """Whether an output is as the page has it. There `...` stands for anything, alone on a line also for no lines."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        pattern += r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
    return (
        re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in actual.strip("\n").splitlines()))
        is not None
    )
