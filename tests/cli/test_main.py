"""The command as a whole: help, version, completion, how light it starts."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.cli.conftest import TIMEOUT_S, Rpcfw

COMMANDS = ["run", "call", "list", "describe", "services", "bench", "new", "gen", "check"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_examples_and_exit_codes(rpcfw: Rpcfw, command: str) -> None:
    done = rpcfw(command, "--help")
    assert done.code == 0
    assert re.search(rf"\n Examples: *\n   rpcfw {command} ", done.out)
    assert "Exit codes: 0 done, 1 failed" in done.out


def test_the_help_lists_every_command(rpcfw: Rpcfw) -> None:
    done = rpcfw("--help")
    for command in COMMANDS:
        assert f"│ {command} " in done.out
    assert "--install-completion" in done.out
    assert re.search(r"\n +5  breaking changes found \(check\)", done.out)


def test_the_version_is_that_of_the_package(rpcfw: Rpcfw) -> None:
    import rpcfw as package

    assert rpcfw("--version").out == f"rpcfw {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["call"], ["dance"], ["run", "app.py", "--workers", "0"], ["list", "--what"]]
)
def test_wrong_options_exit_with_2(rpcfw: Rpcfw, arguments: list[str]) -> None:
    assert rpcfw(*arguments).code == 2


def test_a_shell_can_complete_commands() -> None:
    code = "from rpcfw.cli.main import main; main()"
    environment = {"_RPCFW_COMPLETE": "complete_bash", "COMP_WORDS": "rpcfw de", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("describe\n", "")


def test_help_needs_neither_the_generator_nor_the_engines_of_commands() -> None:
    code = """if True:
        import sys
        import rpcfw.cli.main
        heavy = {"rpcfw_codegen", "uvloop", "pydantic", "orjson", "rpcfw.cli.run", "rpcfw.cli.call", "rich.table"}
        heavy |= {"aiohttp", "rich.live", "zeroconf", "rpcfw.cli.services", "rpcfw.cli.reach", "rpcfw.probes"}
        heavy |= {"rpcfw.cli.bench", "rpcfw.cli.load"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("arguments", [["run", "a.py", "--weight", "heavy"], ["list", "--timeout", "heavy"]])
def test_a_value_that_cannot_be_read_is_shown(rpcfw: Rpcfw, arguments: list[str]) -> None:
    done = rpcfw(*arguments)
    assert done.code == 2
    assert "'heavy'" in done.err
