"""What `rpcfw run TARGET` can name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rpcfw
from rpcfw.cli.output import CommandError
from rpcfw.cli.target import implementations_of, load

MODULE = """
import abc
from typing import Protocol
import rpcfw

@rpcfw.service("a.Contract")
class Contract(Protocol):
    async def one(self) -> int: ...

class Fulfils(Contract):
    async def one(self) -> int:
        return 1

@rpcfw.service
class Alone:
    def __init__(self, count: int = 0) -> None:
        self.count = count
    async def two(self) -> int:
        return 2

@rpcfw.service
class Abstract(abc.ABC):
    @abc.abstractmethod
    async def three(self) -> int: ...

class Needy(Contract):
    def __init__(self, database: str) -> None: ...
    async def one(self) -> int:
        return 1

class Plain:
    pass

class Box:
    alone = Alone(5)

instance = Alone(7)
several = [Alone, Fulfils()]
server = rpcfw.serve(Alone(), listen="mem://target")

def factory():
    return Alone(8)

async def later():
    return [Alone(9), Fulfils()]

def needy(database):
    return Alone()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module as target.py and as package.inner, in the current folder, forgotten afterwards."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(MODULE)
    (tmp_path / "targets.py").write_text(MODULE)
    (tmp_path / "json.py").write_text("")
    (tmp_path / "broken.py").write_text("\n1/0\n")
    (tmp_path / "needs.py").write_text("import not_installed_at_all\n")
    (tmp_path / "contract.py").write_text("from targets import Alone\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def served(target: str) -> list[str]:
    """The classes of what is served, with what tells instances apart."""
    found = await implementations_of(load(target))
    assert isinstance(found, list)
    return [f"{type(thing).__name__}{getattr(thing, 'count', '')}" for thing in found]


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        ("Alone", ["Alone0"]),
        ("Fulfils", ["Fulfils"]),
        ("instance", ["Alone7"]),
        ("Box.alone", ["Alone5"]),
        ("several", ["Alone0", "Fulfils"]),
        ("factory", ["Alone8"]),
        ("later", ["Alone9", "Fulfils"]),
    ],
)
@pytest.mark.parametrize(
    "where", ["targets", "targets.py", "./targets.py", "package.inner", "package/inner.py"]
)
async def test_a_thing_of_a_module_or_file_is_served(where: str, thing: str, expected: list[str]) -> None:
    assert await served(f"{where}:{thing}") == expected


async def test_a_server_is_taken_as_it_is() -> None:
    assert isinstance(await implementations_of(load("targets:server")), rpcfw.Server)


async def test_without_a_thing_the_concrete_service_classes_of_the_module_are_served(tmp_path: Path) -> None:
    path = tmp_path / "targets.py"
    path.write_text(path.read_text().replace("class Needy(Contract)", "class Needy"))
    assert await served("targets.py") == ["Fulfils", "Alone0"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("targets", "Fulfils and Needy of targets both serve 'a.Contract'; name one of them: targets:Needy"),
        ("targets:Nothing", "targets has no 'Nothing'; its services are Fulfils, Alone, Needy"),
        (
            "targets:Needy",
            "targets:Needy cannot be made without arguments: missing a required argument: 'database'",
        ),
        ("targets:needy", "targets:needy cannot be called without arguments"),
        ("targets:Contract", "targets:Contract is an interface; name a class that implements it"),
        ("targets:Abstract", "targets:Abstract is an interface"),
        ("targets:Plain", "targets:Plain cannot be served; name a class decorated with @rpcfw.service"),
        ("contract", "contract defines no class to serve"),
        ("nowhere", "no module named 'nowhere'"),
        ("nowhere.py", "no file"),
        ("", "'' names no module"),
        ("broken.py", "broken.py:2: ZeroDivisionError: division by zero"),
        ("needs.py", "needs.py:1: ModuleNotFoundError: No module named 'not_installed_at_all'"),
        ("json.py", "json is the name of"),
    ],
)
async def test_what_cannot_be_served_is_told_with_the_mend(target: str, said: str) -> None:
    with pytest.raises(CommandError) as caught:
        await implementations_of(load(target))
    assert said in str(caught.value)
