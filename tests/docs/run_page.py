"""One page of the documentation, run from its first block to its last: `python -m tests.docs.run_page docs/calls.md`.

Blocks of Python share a module and a running loop; those that await something run on it, the others in a thread, as
code of a reader who has no loop. Lines of a console block are run by bash, `rpcfw run` in the background. Output is
compared where the page shows it. The working folder is a new one; port 7000 is a free port in disguise.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import linecache
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import traceback
import types
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import ROOT, Block, blocks_of, matches

_PORTS = re.compile(r"(?<=:)7\d{3}\b")
_LIMIT_S = 60.0
"""A page that takes longer hangs. Generous: it ends what would not end."""

_SHIM = """\
#!{python}
import rpcfw.cli.notation
rpcfw.cli.notation.DEFAULT_ENDPOINT = "tcp://127.0.0.1:{port}"
from rpcfw.cli.main import main
if __name__ == "__main__":  # not in the processes that `rpcfw sim` spawns
    main()
"""
"""The command, with another default port: two runs of the suite may meet on one machine."""


class Mismatch(AssertionError):
    """A block did not do what its page says."""


class Ports:
    """Ports as the page has them, 7000 and its like, and the free ones that take their place while it runs."""

    def __init__(self, text: str) -> None:
        self._free: dict[str, str] = {}
        with contextlib.ExitStack() as taken:
            for port in sorted({"7000", *_PORTS.findall(text)}):
                holder = taken.enter_context(socket.socket())
                holder.bind(("127.0.0.1", 0))
                self._free[port] = str(holder.getsockname()[1])

    def real(self, text: str) -> str:
        """The text with the free ports."""
        return _PORTS.sub(lambda found: self._free[found[0]], text)

    def shown(self, text: str) -> str:
        """The text with the ports of the page."""
        for port, free in self._free.items():
            text = text.replace(f":{free}", f":{port}")
        return text


class Page:
    """A page on its way: the namespace of its Python, the folder and the server of its console."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._blocks = list(blocks_of(page))
        self._ports = Ports(page.read_text(encoding="utf-8"))
        self._module = types.ModuleType("page")
        sys.modules["page"] = self._module
        self._folder = self._cwd = folder
        self._status = 0
        self._server: Process | None = None
        commands = folder / ".bin"
        commands.mkdir()
        shim = commands / "rpcfw"
        shim.write_text(_SHIM.format(python=sys.executable, port=self._ports.real(":7000")[1:]))
        shim.chmod(0o755)
        path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environ = {
            **os.environ,
            "PATH": path,
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }

    async def run(self) -> None:
        """Run all blocks. Raises Mismatch, or whatever a block raises unasked."""
        try:
            for block, following in itertools.zip_longest(self._blocks, self._blocks[1:]):
                if block.marker == "file":
                    path = self._folder / block.note
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(self._ports.real(block.text), encoding="utf-8")
                elif block.marker == "not run":
                    continue
                elif block.language == "python":
                    shows = following is not None and following.language == "text" and not following.marker
                    await self._python(block, following if shows else None)
                elif block.language == "console":
                    await self._console(block, following)
            await self._stop_server()
        finally:
            if self._server is not None and self._server.returncode is None:
                self._server.kill()
                await self._server.wait()

    # python

    async def _python(self, block: Block, output: Block | None) -> None:
        # Line numbers as in the page, so that a traceback points there.
        source = "\n" * block.line + self._ports.real(block.text)
        name = str(self._page)
        code = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        printed, raised = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            try:
                if code.co_flags & inspect.CO_COROUTINE:
                    await eval(code, self._module.__dict__)
                else:
                    await asyncio.to_thread(exec, code, self._module.__dict__)
            except Exception as error:
                if output is None:
                    raise
                printed.write("".join(traceback.format_exception_only(error)))
                raised = error
        try:
            self._compare(output or block, output.text if output else "", printed.getvalue())
        except Mismatch as mismatch:
            raise mismatch from raised

    # console

    async def _console(self, block: Block, following_block: Block | None) -> None:
        steps = list(_steps(block))
        if following_block is not None and following_block.marker == "output":
            steps[-1] = steps[-1][0], following_block.text
        for (command, expected), following in zip(steps, [*steps[1:], ("", "")], strict=True):
            if command == "^C":
                await self._stop_server(signal.SIGINT, block, expected)
            elif re.match(r"rpcfw (?:run|registry)\b", command) and "serving" in expected:
                await self._start_server(block, command, expected)
            else:
                printed = await self._command(command)
                self._compare(block, expected, printed)
                if self._status and following[0] != "echo $?":
                    raise Mismatch(f"{self._at(block)}: {command!r} exited with {self._status}\n{printed}")

    async def _command(self, command: str) -> str:
        where = self._folder / ".cwd"
        ending = f"status=$?; pwd > {shlex.quote(str(where))}; exit $status"
        script = f"(exit {self._status})\n{self._ports.real(command)}\n{ending}"
        process = await self._spawn(script)
        printed, _ = await process.communicate()
        self._status = process.returncode or 0
        self._cwd = Path(where.read_text().rstrip("\n"))
        if command.startswith("rpcfw new "):
            for path in self._cwd.rglob("*.py"):
                path.write_text(self._ports.real(path.read_text(encoding="utf-8")), encoding="utf-8")
        return printed.decode()

    async def _start_server(self, block: Block, command: str, expected: str) -> None:
        await self._stop_server()
        self._server = await self._spawn(f"exec {self._ports.real(command)}")
        assert self._server.stdout is not None
        printed = ""
        while not matches(expected, self._ports.shown(printed)):
            line = await self._server.stdout.readline()
            if not line:
                raise Mismatch(f"{self._at(block)}: {command!r} ended before it printed that\n{printed}")
            printed += line.decode()
            if len(printed.splitlines()) > 20:
                self._compare(block, expected, printed)

    async def _stop_server(
        self, number: signal.Signals = signal.SIGTERM, block: Block | None = None, expected: str = ""
    ) -> None:
        server, self._server = self._server, None
        if server is None:
            if block is not None:
                raise Mismatch(f"{self._at(block)}: ^C, and no server runs")
            return
        server.send_signal(number)
        printed, _ = await server.communicate()
        if server.returncode:
            raise Mismatch(
                f"a server exited with {server.returncode} after {number.name}\n{printed.decode()}"
            )
        if block is not None:
            self._compare(block, expected, printed.decode())

    async def _spawn(self, script: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", script), stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, cwd=self._cwd,
            env=self._environ,
        )  # fmt: skip

    # words

    def _compare(self, block: Block, expected: str, printed: str) -> None:
        actual = self._ports.shown(printed)
        if not matches(expected, actual):
            raise Mismatch(
                f"{self._at(block)}: the page has\n{expected.rstrip()}\n--- and this was printed\n{actual.rstrip()}"
            )

    def _at(self, block: Block) -> str:
        return f"{self._page.relative_to(ROOT)}:{block.line}"


def _steps(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that follows; `^C` stands for itself."""
    command, output = "", ""
    for line in block.text.splitlines(keepends=True):
        if command.endswith("\\\n"):
            command += line
        elif line.startswith("$ ") or line == "^C\n":
            if command:
                yield command.strip(), output
            command, output = line.removeprefix("$ "), ""
        elif not command:
            raise ValueError(f"line {block.line}: a console block begins with '$ ' and a command")
        else:
            output += line
    yield command.strip(), output


async def run_page(page: Path) -> None:
    """Run a page in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="rpcfw-docs-") as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        async with asyncio.timeout(_LIMIT_S):
            await Page(page, folder).run()


if __name__ == "__main__":
    asyncio.run(run_page(Path(sys.argv[1]).resolve()))
