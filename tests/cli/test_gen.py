"""`rpcfw gen` and `rpcfw check` as commands: what they print and how they exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Rpcfw

CONTRACT = """
from typing import Protocol
import rpcfw

@rpcfw.service("shop.Stock")
class Stock(Protocol):
    async def count(self, sku: str) -> int: ...
"""


@pytest.fixture(autouse=True)
def stock(folder: Path) -> Iterator[None]:
    """stock.py in the current folder, imported anew by each test."""
    (folder / "stock.py").write_text(CONTRACT)
    yield
    sys.modules.pop("stock", None)


def test_files_are_written_told_and_up_to_date_afterwards(rpcfw: Rpcfw, folder: Path) -> None:
    first = rpcfw("gen", "stock.py", "-o", "stubs")
    assert (first.code, first.err) == (0, "")
    assert first.out == "wrote stubs/__init__.py\nwrote stubs/stock.py\n"
    assert (folder / "stubs" / "stock.py").exists()
    assert rpcfw("gen", "stock.py", "-o", "stubs").out == "stubs is up to date\n"
    assert rpcfw("gen", "stock.py", "-o", "stubs", "--check") == rpcfw("gen", "stock.py", "-o", "stubs")


def test_stale_files_exit_with_5_and_are_told_with_the_command_that_mends_them(
    rpcfw: Rpcfw, folder: Path
) -> None:
    rpcfw("gen", "stock.py", "-o", "stubs")
    path = folder / "stubs" / "stock.py"
    path.write_text(path.read_text() + "# changed\n")
    done = rpcfw("gen", "stock.py", "-o", "stubs", "--check")
    assert done.code == 5
    assert done.out.startswith("stubs/stock.py: stale\n")
    assert "-# changed" in done.out
    assert "rpcfw gen stock -o stubs" in done.err
    (told,) = json.loads(rpcfw("gen", "stock.py", "-o", "stubs", "--check", "--json").out)
    assert told["reason"] == "stale"


def test_a_target_that_cannot_be_read_is_an_error_in_words(rpcfw: Rpcfw) -> None:
    done = rpcfw("gen", "nowhere.py", "-o", "stubs")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no file or folder 'nowhere.py'")
    assert rpcfw("gen", "stock.py").code == 2


def test_breaking_changes_exit_with_5_and_safe_ones_with_0(rpcfw: Rpcfw, folder: Path) -> None:
    (folder / "released.json").write_text(rpcfw("gen", "stock.py", "--schema").out)
    assert rpcfw("check", "released.json", "stock.py").code == 0
    (folder / "stock.py").write_text(CONTRACT.replace("sku: str", "sku: str, place: str = ''"))
    safe = rpcfw("check", "released.json", "stock.py")
    assert safe.code == 0
    assert "safe" in safe.out
    (folder / "stock.py").write_text(CONTRACT.replace("sku: str", "sku: int"))
    breaking = rpcfw("check", "released.json", "stock.py")
    assert breaking.code == 5
    assert "BREAKING" in breaking.out
    told = rpcfw("check", "released.json", "stock.py", "--json")
    assert told.code == 5
    assert json.loads(told.out)["breaking"] == 1
