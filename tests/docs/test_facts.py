"""What the documentation says in tables is what the code has, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import rpcfw
from rpcfw.cli.main import app
from rpcfw.cli.output import EXIT_CODES
from tests.docs.pages import ROOT, pages

_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")
_KIB, _MIB = 1024, 1024 * 1024


def table(page: str, header: str) -> list[list[str]]:
    """The rows of the table whose first column is headed so."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"| {header} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def shown(name: str, value: Any) -> str:
    """A default as the tables write it."""
    if value is None:
        return "never"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if name.endswith("_bytes"):
        return f"{value // _MIB} MiB" if value >= _MIB else f"{value // _KIB} KiB"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


@pytest.mark.parametrize("options", [rpcfw.Limits, rpcfw.Settings, rpcfw.ConnectionOptions])
def test_every_limit_is_listed_with_its_default(options: type[Any]) -> None:
    listed = {row[0].strip("`"): row[1] for row in table("docs/servers.md", f"`rpcfw.{options.__name__}`")}
    made = options()
    assert listed == {
        field.name: shown(field.name, getattr(made, field.name)) for field in dataclasses.fields(made)
    }


def test_every_code_is_listed_with_its_number() -> None:
    listed = {row[0].strip("`"): int(row[1]) for row in table("docs/calls.md", "code")}
    assert listed == {code.name: code.value for code in rpcfw.Code}


def test_the_exit_codes_are_those_of_the_help() -> None:
    described = " ".join(EXIT_CODES.split())
    for code, meaning in table("docs/cli.md", "code"):
        assert f"{code} {meaning.replace('`', '')}" in described


def test_every_command_is_listed() -> None:
    commands = {
        name.removeprefix("rpcfw ")
        for row in table("docs/cli.md", "command")
        for name in _CODE.findall(row[0])
    }
    group = typer.main.get_group(app)
    assert commands == set(group.commands)


def test_every_option_of_a_method_is_listed() -> None:
    listed = {
        name.partition("=")[0]
        for row in table("docs/interfaces.md", "option")
        for name in _CODE.findall(row[0])
    }
    assert listed == set(inspect.signature(rpcfw.method).parameters)


def test_the_layers_are_those_of_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    # In parentheses are what has no row: the module that starts the command, and what does not exist yet.
    expected = [{name for name in layer.split(" | ") if "(" not in name} for layer in layers]
    place = {name: number for number, layer in enumerate(expected) for name in layer}
    order = []
    for row in table("docs/architecture.md", "where"):
        names = [Path(name).stem for name in _CODE.findall(row[0])]
        assert len({place[name] for name in names}) == 1, f"{names} are not of one layer"
        order += names
    assert sorted(order) == sorted(place)
    assert [place[name] for name in order] == sorted(place.values()), (
        "the table does not go from the top layer down"
    )


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in _LINK.findall(_without_code(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, and there is no such file"
        if anchor:
            assert anchor in _anchors(file), (
                f"{page.name} links to {target}, and that page has no such heading"
            )


def _without_code(page: Path) -> str:
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"(?m)^#+ (.+)$", _without_code(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
