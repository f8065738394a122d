"""What the documentation says in tables is what the code has, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import rpcfw
import rpcfw.balancer
import rpcfw.breaker
import rpcfw.detector
import rpcfw.middleware
import rpcfw.router
from benchmarks import balancers, plots
from benchmarks.page import filled
from benchmarks.results import load
from rpcfw.breaker import Recovery
from rpcfw.cli.main import app
from rpcfw.cli.output import EXIT_CODES
from rpcfw.detector import OutlierRules
from rpcfw.limiter import Gradient
from rpcfw.middleware import ConcurrencyLimit, Hedge, RateLimit, Retry
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
    if value is None or value == ():
        return "never" if name.endswith("_s") else "none"
    if callable(value):
        return f"`{value.__name__}`"
    if dataclasses.is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if name.endswith("_bytes"):
        return f"{value // _MIB} MiB" if value >= _MIB else f"{value // _KIB} KiB"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


@pytest.mark.parametrize(
    ("page", "header", "options"),
    [
        ("docs/servers.md", "`rpcfw.Limits`", rpcfw.Limits),
        ("docs/servers.md", "`rpcfw.Settings`", rpcfw.Settings),
        ("docs/servers.md", "`rpcfw.ConnectionOptions`", rpcfw.ConnectionOptions),
        ("docs/clusters.md", "`rpcfw.ClusterOptions`", rpcfw.ClusterOptions),
        ("docs/failures.md", "`OutlierRules`", OutlierRules),
        ("docs/failures.md", "`Recovery`", Recovery),
    ],
)
def test_every_option_is_listed_with_its_default(page: str, header: str, options: type[Any]) -> None:
    listed = {row[0].strip("`"): row[1] for row in table(page, header)}
    made = options()
    assert listed == {
        field.name: shown(field.name, getattr(made, field.name)) for field in dataclasses.fields(made)
    }


@pytest.mark.parametrize(
    ("page", "made", "elsewhere"),
    [
        ("docs/retries.md", Retry, {"budget": "`RetryBudget()`"}),
        ("docs/retries.md", Hedge, {"budget": "one of its own", "percentile": "0.95"}),
        ("docs/overload.md", ConcurrencyLimit, {}),
        ("docs/overload.md", RateLimit, {}),
        ("docs/overload.md", Gradient, {}),
    ],
)
def test_every_parameter_is_listed_with_its_default(
    page: str, made: Callable[..., Any], elsewhere: dict[str, str]
) -> None:
    # `elsewhere` has those whose default the signature does not say; sources of chance are for tests
    listed = {row[0].strip("`"): row[1] for row in table(page, f"`{made.__name__}(...)`")}
    parameters = inspect.signature(made).parameters.values()
    assert listed == {
        parameter.name: elsewhere.get(
            parameter.name,
            "" if parameter.default is parameter.empty else shown("", parameter.default),
        )
        for parameter in parameters
        if parameter.name != "rng"
    }


@pytest.mark.parametrize(
    ("page", "header", "package"),
    [
        ("docs/balancing.md", "balancer", rpcfw.balancer),
        ("docs/balancing.md", "router", rpcfw.router),
        ("docs/failures.md", "breaker", rpcfw.breaker),
        ("docs/failures.md", "detector", rpcfw.detector),
    ],
)
def test_every_policy_is_listed(page: str, header: str, package: Any) -> None:
    listed = {re.split(r"\W", row[0].strip("`"))[0] for row in table(page, header)}
    method = {"balancer": "pick", "router": "route", "breaker": "enter", "detector": "heartbeat"}[header]
    policies = {
        name
        for name in package.__all__
        if hasattr(getattr(package, name), method)
        and not getattr(getattr(package, name), "_is_protocol", False)
    }
    assert listed == policies


def test_every_middleware_is_told_of() -> None:
    text = "".join(
        (ROOT / page).read_text(encoding="utf-8") for page in ("docs/retries.md", "docs/overload.md")
    )
    # in memory is what `Dedupe` has unless it is given a store
    untold = [name for name in rpcfw.middleware.__all__ if f"`{name}" not in text and name != "DedupeMemory"]
    assert not untold


def test_every_event_is_listed() -> None:
    listed = {name for row in table("docs/clusters.md", "event") for name in _CODE.findall(row[0])}
    assert listed == {kind.name for kind in rpcfw.EventKind}


def test_the_table_of_balancers_is_that_of_the_committed_results() -> None:
    document = json.loads(plots.RESULTS.read_text(encoding="utf-8"))
    expected = []
    for result in plots.ordered(document):
        *fast, slow = (share * 100 for share in result["shares"])
        expected.append(
            [
                result["policy"],
                f"{min(fast):.1f} to {max(fast):.1f} %",
                f"{slow:.1f} %",
                f"{result['p50_ms']:.1f} ms",
                f"{result['p99_ms']:.1f} ms",
                f"{document['pick_us'][result['policy']]['10']:.1f} µs",
            ]
        )
    assert table("docs/balancing.md", "policy") == expected


def test_the_committed_results_are_what_the_benchmark_gives() -> None:
    document = json.loads(plots.RESULTS.read_text(encoding="utf-8"))
    setting = balancers.Setting(**document["setting"])
    assert [result["policy"] for result in document["results"]] == list(balancers.POLICIES)
    for committed in document["results"]:
        made = balancers.simulate(committed["policy"], balancers.POLICIES[committed["policy"]], setting)
        assert made.shares == pytest.approx(committed["shares"], abs=0.01)
        assert made.p99_ms == pytest.approx(committed["p99_ms"], rel=0.1)


def test_the_plots_are_drawn_from_the_committed_results() -> None:
    document = json.loads(plots.RESULTS.read_text(encoding="utf-8"))
    assert plots.SHARES.read_text(encoding="utf-8") == plots.shares(document)
    assert plots.LATENCIES.read_text(encoding="utf-8") == plots.latencies(document)


def test_the_figures_of_the_page_of_benchmarks_are_those_of_the_committed_results() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    found = load(ROOT / "benchmarks/results/latest.json")
    assert filled(text, found) == text, (
        "python -m benchmarks.page benchmarks/results/latest.json docs/benchmarks.md"
    )
    plots_of_page = re.findall(r"\]\((benchmark-[\w-]+\.svg)\)", text)
    assert len(plots_of_page) == 5
    for name in plots_of_page:
        assert f"rpcfw benchmark of {found.date}:" in (ROOT / "docs" / name).read_text(encoding="utf-8"), name
        assert (ROOT / "docs" / name).with_suffix(".png").exists()


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
