"""Generated files on disk: written, or compared with what is there. A file that the generator did not make stays."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.generate import GeneratedFile

_MARK = re.compile(r"^Made by `(rpcfw gen (\S+) -o [^`]+)`\.$", re.MULTILINE)
_HEAD_CHARACTERS = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class StaleFile:
    """A file that is not as generating now would leave it.

    Attributes:
        reason: "stale" when its text differs, "missing", or "left over" when its source has no interface any more.
        diff: unified, from what is there to what should be.
        command: the command line that mends it, to be run in the project's root.
    """

    path: Path
    reason: Literal["stale", "missing", "left over"]
    diff: str
    command: str


def write(files: Sequence[GeneratedFile]) -> list[Path]:
    """Bring the output folder up to date: write what differs, remove what is left over. The paths that changed.

    Raises:
        CodegenError: a file there was not made by the generator, or from another target. Nothing has been written then.
    """
    changes = stale(files)
    texts = {file.path: file.text for file in files}
    for change in changes:
        if change.reason == "left over":
            change.path.unlink()
        else:
            change.path.parent.mkdir(parents=True, exist_ok=True)
            change.path.write_text(texts[change.path], encoding="utf-8", newline="\n")
    return [change.path for change in changes]


def stale(files: Sequence[GeneratedFile]) -> list[StaleFile]:
    """What `write` would change, in the order of the paths; empty when everything is up to date.

    Raises:
        CodegenError: a file there was not made by the generator, or from another target.
    """
    found: list[StaleFile] = []
    for file in files:
        present = _read(file.path)
        if present is not None:
            _check_ours(file, present)
        if present != file.text:
            reason: Literal["stale", "missing"] = "stale" if present is not None else "missing"
            found.append(
                StaleFile(file.path, reason, _diff(file.path, present or "", file.text), file.command)
            )
    for folder in {file.path.parent for file in files}:
        for path in sorted(set(folder.glob("*.py")) - {file.path for file in files}):
            text = _read(path) or ""
            if _is_related(_target_in(text), _target_in(files[0].text)):
                found.append(StaleFile(path, "left over", _diff(path, text, ""), files[0].command))
    return sorted(found, key=lambda change: change.path)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _check_ours(file: GeneratedFile, present: str) -> None:
    if not present.strip():
        return
    target = _target_in(present)
    if target is None:
        raise CodegenError(
            f"{file.path} was not made by `rpcfw gen`, and would be overwritten; move it, or choose another folder"
        )
    if not _is_related(target, _target_in(file.text)):
        raise CodegenError(
            f"{file.path} was made from {target}, and one folder holds what is made from one target; choose another "
            f"folder, generate from the package that has both, or delete {file.path.parent} if {target} is gone"
        )


def _is_related(one: str | None, other: str | None) -> bool:
    """Whether two targets are spellings of one, or one is a part of the other: ``src/shop`` and ``shop.contract``."""
    if one is None or other is None:
        return False
    short, long = sorted(
        ((text.removesuffix(".py").replace("/", ".").split(".")) for text in (one, other)), key=len
    )
    return any(long[start : start + len(short)] == short for start in range(len(long)))


def _target_in(text: str) -> str | None:
    mark = _MARK.search(text[:_HEAD_CHARACTERS])
    return mark[2] if mark else None


def _diff(path: Path, old: str, new: str) -> str:
    name = path.name
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        f"{name} (on disk)",
        f"{name} (generated now)",
    )
    return "".join(lines)
