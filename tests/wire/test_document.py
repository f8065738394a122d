"""docs/wire.md says what the code does: its examples are made from the code, and its tables are compared with it.

`python -m tests.wire.test_document` writes the examples anew.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpcfw.errors import Code
from rpcfw.wire import frames
from rpcfw.wire.frames import FRAME_NAMES
from rpcfw.wire.handshake import MAX_SIZE, MIN_FRAME_BYTES, Settings
from tests.codec import samples
from tests.codec.samples import EXACT
from tests.wire.recordings import FLAGS, FOLDER
from tests.wire.test_recorded import FRAMES

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
MEND = "python -m tests.wire.test_document writes the examples of docs/wire.md anew"


def spaced(text: str) -> str:
    """Hex digits in pairs."""
    return bytes.fromhex(text).hex(" ")


def frame_rows() -> Iterator[str]:
    for (kind, flags, *_), recorded in FRAMES:
        named = "".join(f", {name}" for flag, name in FLAGS.items() if flags & flag)
        header, body = spaced(recorded)[:47], spaced(recorded)[48:]
        yield f"| {FRAME_NAMES[kind]}{named} | `{header}`{f' `{body}`' if body else ''} |"


def value_rows() -> Iterator[str]:
    for declared, value, recorded in EXACT:
        is_class = isinstance(declared, type) and not hasattr(declared, "__args__")
        name = declared.__name__ if is_class else str(declared)
        name = name.replace("typing.", "").replace(f"{samples.__name__}.", "")
        cells = (name, f"`{value!r}`".replace("datetime.", ""), f"`{spaced(recorded)}`")
        yield " | ".join(("", *(cell.replace("|", r"\|") for cell in cells), "")).strip()


def blocks() -> dict[str, str]:
    """What stands below each marker of the page."""
    return {
        "one of every frame": "\n".join(["| frame | bytes |", "|---|---|", *frame_rows()]),
        "values": "\n".join(["| type | value | bytes |", "|---|---|---|", *value_rows()]),
        "recorded: unary": f"```text\n{(FOLDER / 'unary.txt').read_text()}```",
    }


def with_blocks(page: str) -> str:
    """The page with its examples as they should be."""
    for marker, text in blocks().items():
        head = f"<!-- {marker} -->\n"
        start = page.index(head) + len(head)
        old = re.compile(r"```text\n.*?```|(?:\|[^\n]*\n)*\|[^\n]*", re.DOTALL).match(page, start)
        assert old is not None, marker
        page = page[:start] + text + page[old.end() :]
    return page


def table(header: str) -> list[list[str]]:
    """The rows of a table of the page, by its first line."""
    lines = PAGE.read_text().splitlines()
    rows = []
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize("marker", blocks())
def test_the_examples_are_those_of_the_code(marker: str) -> None:
    assert f"<!-- {marker} -->\n{blocks()[marker]}\n" in PAGE.read_text(), MEND


def test_every_frame_is_listed_with_its_number() -> None:
    rows = table("| type | name | sent by | stream | last | body |")
    assert [(int(row[0]), row[1]) for row in rows] == list(enumerate(FRAME_NAMES))


def test_every_flag_is_listed_with_its_bit() -> None:
    rows = table("| flag | name | on | says |")
    assert {int(row[0].strip("`"), 16): row[1] for row in rows} == FLAGS


def test_every_setting_is_listed_with_its_default() -> None:
    rows = table("| entry | type | default in rpcfw | what the sender of this HELLO accepts |")
    listed = {row[0].strip("`"): row[2] for row in rows}
    settings = {field.name: f"{getattr(Settings(), field.name):,}" for field in dataclasses.fields(Settings)}
    assert listed == {"version": str(frames.VERSION), **settings, "services": ""}
    assert f"at least {MIN_FRAME_BYTES:,}" in rows[1][1]
    assert MAX_SIZE == (1 << 31) - 1


def test_the_codes_named_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    for number, name in re.findall(r"is (\d+) \(`([A-Z_]+)`\)", page):
        assert Code[name] == int(number)
    for name in re.findall(r"`([A-Z]{2,}(?:_[A-Z]+)+)`", page):
        assert name in Code.__members__


if __name__ == "__main__":
    PAGE.write_text(with_blocks(PAGE.read_text()))
    print(f"wrote {PAGE}")
