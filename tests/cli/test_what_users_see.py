"""Errors as a user reads them: the place is the user's own, and nothing that was added or left out is hidden."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main as benchmarks
from rpcfw import Code, RpcError
from rpcfw.cli.output import CommandError
from rpcfw.cli.report import _EXAMPLE, _cut
from rpcfw.cli.target import _import


def test_an_error_shows_what_was_added_to_its_message() -> None:
    error = RpcError(Code.UNAVAILABLE, "the connection was lost")
    error.message += " (not repeated: it may have run)"
    assert "(not repeated: it may have run)" in repr(error)


def test_a_mistake_in_a_users_file_is_told_with_its_line_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    path = tmp_path / "odd_one.py"
    path.write_text("import rpcfw\n\n\nrpcfw.oneway\n")
    with pytest.raises(CommandError, match=r"odd_one\.py:4: AttributeError"):
        _import(str(path), str(path))


def test_a_long_example_is_cut_where_it_can_be_seen() -> None:
    assert _cut("x" * _EXAMPLE) == "x" * _EXAMPLE
    cut = _cut("x" * 500)
    assert (len(cut), cut[-4:]) == (_EXAMPLE, " ...")


def test_results_to_compare_with_that_are_not_there_are_an_error_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "--compare", "nothere.json"])
    assert benchmarks() == 2
    assert "nothere.json" in capsys.readouterr().err
