"""What the documentation shows is what happens: every snippet of every page is run, and its output compared."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of, matches, pages

_LANGUAGES = {"python", "console", "text", "toml", "json", ""}
"""What is run, and what needs no running. A `sh` or `pycon` would be code that nobody runs."""
_MOST_NOT_RUN = 6
"""Illustrations are few: a snippet that is not run is one that will be wrong."""


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
async def test_the_snippets_of_a_page_run_and_print_what_it_says(page: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "codegen")])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.docs.run_page", str(page)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env=environ,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_block_of_code_is_of_a_kind_that_is_run(page: Path) -> None:
    unknown = [block.line for block in blocks_of(page) if block.language not in _LANGUAGES]
    assert not unknown, f"{page.name}, lines {unknown}: write python or console, which are run, or text"


def test_few_snippets_are_not_run() -> None:
    left_out = [
        f"{page.name}:{block.line}"
        for page in pages()
        for block in blocks_of(page)
        if block.marker == "not run"
    ]
    assert len(left_out) <= _MOST_NOT_RUN, left_out


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("a 1\nb\n", "a 1\nb\n", True),
        ("a ...\nb\n", "a 17\nb\n", True),
        ("...\nb\n", "x\ny\nb\n", True),
        ("a\n...\n", "a\n", True),
        ("a.c\n", "abc\n", False),
        ("a\n", "a\nb\n", False),
        ("", "a\n", False),
    ],
)
def test_three_dots_stand_for_what_changes_and_nothing_else_does(
    expected: str, actual: str, same: bool
) -> None:
    assert matches(expected, actual) is same
