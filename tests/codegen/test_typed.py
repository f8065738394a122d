"""Generated code before the tools that users run on theirs: mypy --strict, pyright, ruff; and the types it promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.codegen.conftest import REPOSITORY, Project, run_tool

# A wrong call must be an error: an ignore comment that ignores nothing is one itself, for both checkers.
USAGE = '''
"""What a user writes against the generated classes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, assert_type

from bazaar import stubs
from bazaar.catalog import Cat, Colour, Dog, Item, ItemId
from bazaar.contract import Users
from bazaar.stubs import MarketBlockingStub, MarketSkeleton, MarketStub, UsersSkeleton, UsersStub
from bazaar._shapes import Page


async def documents() -> AsyncIterator[bytes]:
    yield b"one"


async def words() -> AsyncIterable[str]:
    return (word async for word in several())


async def several() -> AsyncIterator[str]:
    yield "word"


async def call(market: MarketStub) -> None:
    assert_type(await market.get(ItemId(1)), Item)
    assert_type(await market.place(Item(ItemId(1)), 2, colour=Colour.BLUE, note=""), Item)
    assert_type(await market.upload(documents()), int)
    assert_type(await market.list([ItemId(1)], [1]), list[Item])
    assert_type(await market.pets(Cat()), Cat | Dog | None)
    async for item in market.watch("ada"):
        assert_type(item, Item)
    async for word in market.talk(await words()):
        assert_type(word, str | None)
    await market.get("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await market.place(Item(ItemId(1)), 2, Colour.RED)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await market.ping(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def call_blocking(market: MarketBlockingStub) -> None:
    assert_type(market.get(ItemId(1)), Item)
    assert_type(market.upload([b"one", b"two"]), int)
    for item in market.watch("ada"):
        assert_type(item, Item)
    for word in market.talk(["a", "b"]):
        assert_type(word, str | None)


def stands_for_its_interface(users: UsersStub) -> Users:
    return users


class Accounts(UsersSkeleton):
    async def load(self, key: int | str) -> Item:
        return Item(ItemId(1))

    async def search(self, like: Item, limit: int = 10) -> Page[Item]:
        return Page([like])

    async def rename(_self, self: str, *, match: bool) -> None:
        return None


class Shop(MarketSkeleton):
    async def ping(self, n: int) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return None

    async def watch(self, user: str, since: Any = None) -> AsyncIterator[Item]:
        yield Item(ItemId(1))


def fulfils(accounts: Accounts) -> Users:
    return accounts


accounts = Accounts()
shop = Shop()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
nothing = stubs.ClockSkeleton  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
'''


@pytest.fixture
def written(bazaar: Project) -> Path:
    (bazaar.root / "pyproject.toml").write_text("[tool.ruff]\nline-length = 110\n")
    bazaar.write("bazaar", "bazaar/stubs")
    return bazaar.root


@pytest.mark.time_limit(300)
def test_generated_code_is_clean_under_mypy_strict(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written / "usage.py").write_text(USAGE)
    monkeypatch.setenv("MYPYPATH", str(REPOSITORY))
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--cache-dir", str(written / "cache")]
    run_tool("mypy", *options, "-p", "bazaar", "-m", "usage", cwd=written)


@pytest.mark.time_limit(300)
def test_generated_code_is_clean_under_pyright(written: Path) -> None:
    (written / "usage.py").write_text(USAGE)
    settings = {
        "include": ["bazaar", "usage.py"],
        "extraPaths": [str(REPOSITORY)],
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": False,
    }
    (written / "pyrightconfig.json").write_text(json.dumps(settings))
    run_tool("pyright", "--project", str(written), "--pythonpath", sys.executable, cwd=written)


@pytest.mark.parametrize("width", [60, 88, 110])
def test_generated_code_is_formatted_and_free_of_findings(bazaar: Project, width: int) -> None:
    (bazaar.root / "pyproject.toml").write_text(f"[tool.ruff]\nline-length = {width}\n")
    for file in bazaar.files("bazaar", "bazaar/stubs", width=width):
        file.path.parent.mkdir(exist_ok=True)
        file.path.write_text(file.text)
    run_tool("ruff", "format", "--no-cache", "--diff", "bazaar/stubs", cwd=bazaar.root)
    rules = "A,ANN,ARG,B,C4,D1,D2,E,F,FA,FBT003,FURB,I,INT,N,PERF,PGH,PIE,PL,PYI,RET,RUF,SIM,SLF,TRY,UP,W"
    # The fixture itself has undocumented methods, Any, methods called like builtins and many parameters.
    ignored = "A003,ANN401,D102,D203,D205,D213,E501,PLR0913,PLR0917,N805,RUF067,PLR0904"
    run_tool(
        "ruff", "check", "--no-cache", "--select", rules, "--ignore", ignored, "bazaar/stubs", cwd=bazaar.root
    )
