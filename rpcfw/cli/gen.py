"""`rpcfw gen` and `rpcfw check`: what the generator finds, told to a person or a program."""

from __future__ import annotations

import os
from pathlib import Path

from rpcfw.cli.output import CommandError, Exit, put, say, to_json
from rpcfw_codegen import check, generate, schema_document, stale, write


def generate_files(target: str, output: Path, *, width: int, as_json: bool) -> None:
    """Write stubs and skeletons, and say what changed."""
    files = generate(target, output, width=width)
    changed = write(files)
    if as_json:
        put(
            to_json({"files": [str(file.path) for file in files], "changed": [str(path) for path in changed]})
        )
        return
    for path in changed:
        put(f"{'wrote' if path.exists() else 'removed'} {_shown(path)}")
    if not changed:
        put(f"{_shown(files[0].path.parent)} is up to date")


def check_files(target: str, output: Path, *, width: int, as_json: bool) -> None:
    """Compare the files with what would be written; exit with `Exit.DIFFERS` when they are stale."""
    found = stale(generate(target, output, width=width))
    if as_json:
        put(to_json([{"path": str(file.path), "reason": file.reason, "diff": file.diff} for file in found]))
    elif not found:
        put(f"{_shown(output)} is up to date")
    else:
        for file in found:
            put(f"{_shown(file.path)}: {file.reason}\n{file.diff}".rstrip())
        say(f"to mend it: {found[0].command}")
    if found:
        raise SystemExit(Exit.DIFFERS)


def print_schema(target: str) -> None:
    """Print the schemas of a target: what `rpcfw check` takes in place of its code."""
    put(schema_document(target).rstrip())


def check_versions(old: str, new: str, *, as_json: bool) -> None:
    """Tell what changed between two versions; exit with `Exit.DIFFERS` when a change breaks."""
    report = check(old, new)
    put(to_json(report.document()) if as_json else report.text().rstrip())
    if report.breaking:
        raise SystemExit(Exit.DIFFERS)


def output_folder(output: Path | None) -> Path:
    """The folder that was named. Raises CommandError when none was."""
    if output is None:
        raise CommandError(
            "-o DIR is missing: say where the files are to go, or print the schema with --schema", Exit.USAGE
        )
    return output


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
