"""A project folder for a test: modules written into it, generated from, imported, and forgotten afterwards."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rpcfw_codegen import GeneratedFile, generate, write

FIXTURES = Path(__file__).parent / "fixtures"
REPOSITORY = Path(__file__).parents[2]

HEAD = """
from __future__ import annotations
import abc
import dataclasses
import enum
from collections.abc import AsyncIterator
from typing import *
import rpcfw

@dataclasses.dataclass
class Order:
    id: int

"""


@dataclasses.dataclass
class Project:
    """A folder that stands on the import path while the test runs."""

    root: Path

    def module(self, path: str, text: str, *, head: str = HEAD) -> Path:
        """Write a module; `head` has the imports and the message that most of them need."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(head + textwrap.dedent(text))
        return file

    def package(self, path: str) -> None:
        self.module(f"{path}/__init__.py", "", head="")

    def generate(self, target: str, output: str, **options: Any) -> dict[str, str]:
        """The generated texts by their paths relative to the output folder."""
        files = self.files(target, output, **options)
        return {str(file.path.relative_to(self.root / output)): file.text for file in files}

    def files(self, target: str, output: str, **options: Any) -> list[GeneratedFile]:
        self.forget()
        return generate(target, Path(output), directory=self.root, **options)

    def write(self, target: str, output: str) -> list[str]:
        """Generate, write, and give the paths that changed."""
        return [str(path.relative_to(self.root)) for path in write(self.files(target, output))]

    def contract(self, text: str) -> str:
        """What is generated from a module called contract, into stubs/."""
        self.module("contract.py", text)
        return self.generate("contract", "stubs")["contract.py"]

    def load(self, name: str) -> ModuleType:
        """Import a module of the project anew."""
        self.forget()
        return importlib.import_module(name)

    def loaded(self, name: str) -> ModuleType:
        """A module of the project, imported together with the one that was loaded last."""
        return importlib.import_module(name)

    def forget(self) -> None:
        """Make imports read the files again."""
        importlib.invalidate_caches()
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            path = str(file) if file else str(next(iter(getattr(module, "__path__", ())), ""))
            if path.startswith(str(self.root)):
                del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(tmp_path)
    # Files change within the second that a .pyc tells apart.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    project = Project(tmp_path)
    yield project
    project.forget()


@pytest.fixture
def bazaar(project: Project) -> Project:
    """The package with every feature, without its stubs, in a folder of its own."""
    shutil.copytree(
        FIXTURES / "bazaar", project.root / "bazaar", ignore=shutil.ignore_patterns("stubs", "__pycache__")
    )
    return project


def run_tool(*arguments: str, cwd: Path) -> str:
    """What a development tool prints, after an assertion that it found nothing to complain about."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout
