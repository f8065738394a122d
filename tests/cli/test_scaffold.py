"""`rpcfw new`: the project it makes runs as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Rpcfw, Start


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_project_serves_answers_and_passes_its_tests(rpcfw: Rpcfw, start: Start, folder: Path) -> None:
    made = rpcfw("new", "hello-world")
    assert made.code == 0
    assert "wrote hello-world/server.py\n" in made.out
    assert "rpcfw run server.py" in made.err
    project = folder / "hello-world"
    endpoint, _ = start("run", "hello-world/server.py", "--listen", "tcp://127.0.0.1:0").serving()
    client = project / "client.py"
    client.write_text(client.read_text().replace("tcp://127.0.0.1:7000", endpoint))
    expected = [
        "Hello, Ada!",
        "Hello, Ada!",
        "Hello, Grace!",
        "Hello, Barbara!",
        "no tlh; there are en, fr, zh",
    ]
    assert python(project, "client.py").splitlines() == expected
    assert (
        rpcfw("call", "HelloWorld.hello_all", "-e", endpoint, stdin='"Ada"\n').out.count("Hello, Ada!") == 1
    )
    assert "2 passed" in python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_nothing_is_overwritten(rpcfw: Rpcfw, folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "mine.txt").write_text("mine")
    done = rpcfw("new", "taken")
    assert done.code == 2
    assert "is there already; nothing was written" in done.err
    assert [path.name for path in (folder / "taken").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["../up", "7up", "", "a b", "none", "a/b"])
def test_a_name_that_cannot_name_a_project_is_refused(rpcfw: Rpcfw, folder: Path, name: str) -> None:
    before = sorted(folder.iterdir())
    done = rpcfw("new", name)
    assert done.code == 2
    assert "cannot name a project" in done.err
    assert sorted(folder.iterdir()) == before
