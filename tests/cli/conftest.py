"""Real processes of the command line, and their output line by line; commands run inside the test's process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rpcfw.cli.main import app

RPCFW = [sys.executable, "-m", "rpcfw"]
TIMEOUT_S = 20.0
"""Only a hang takes so long."""
SETTLE_S = 5.0
"""For workers to end after their supervisor."""

SHOP = '''
import asyncio, dataclasses, datetime, decimal, enum, os, signal, uuid
from collections.abc import AsyncIterator
import msgspec
import rpcfw

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclasses.dataclass
class Item:
    """Something to sell."""
    sku: str
    count: int = 1
    picture: bytes = b""

class Card(msgspec.Struct, tag=True):
    number: bytes

class Cash(msgspec.Struct, tag=True):
    amount: decimal.Decimal

class OutOfStock(rpcfw.ServiceError):
    sku: str
    left: int = 0

class Closed(Exception):
    pass

@rpcfw.service("shop.Orders", version="2.1")
class Orders:
    """Takes orders.

    Of all kinds.
    """

    @rpcfw.idempotent
    async def get(self, order_id: int, color: Color = Color.RED) -> Item:
        """One order."""
        return Item(f"{color.value}-{order_id}", order_id)

    @rpcfw.method(raises=[OutOfStock, Closed], timeout_s=2.5)
    async def place(self, item: Item, pay: Card | Cash | None = None) -> str:
        if item.sku == "closed":
            raise Closed("until", "Monday")
        if item.count > 5:
            raise OutOfStock(item.sku, left=5)
        return f"{item!r} {pay!r}"

    async def kinds(self, when: datetime.datetime, wait: datetime.timedelta, key: uuid.UUID, price: decimal.Decimal,
                    data: bytes, sure: bool, rate: float, note: str | None, parts: dict[int, bytes],
                    pair: tuple[int, bytes], seen: set[int], mixed: int | str) -> list[str]:
        given = dict(locals())
        return [repr(value) for name, value in given.items() if name != "self"]

    async def back(self, data: bytes, times: int = 1) -> dict[str, object]:
        return {"data": data * times, "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), "more": (1.5, None)}

    def watch(self, count: int = 3) -> AsyncIterator[Item]:
        """Orders as they come in."""
        return self._watch(count)

    async def _watch(self, count: int) -> AsyncIterator[Item]:
        for number in range(count):
            yield Item("x", number)

    async def upload(self, items: AsyncIterator[Item], note: str = "") -> str:
        found = [item async for item in items]
        return f"{sum(item.count for item in found)} in {len(found)}{note}"

    async def double(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield number * 2

    @rpcfw.method(oneway=True)
    async def tell(self, what: str) -> None:
        print("told", what, flush=True)

    async def nothing(self) -> None:
        rpcfw.set_reply_metadata({"served-by": rpcfw.current_call().metadata.get("caller", "nobody")})

    async def fail(self) -> None:
        raise ZeroDivisionError("no")

    async def forever(self) -> None:
        print("waiting", flush=True)
        await asyncio.Event().wait()

    def held(self, fifo: str) -> str:
        print("holding", flush=True)
        with open(fifo) as reader:
            return reader.read()

    async def loop(self) -> str:
        return type(asyncio.get_running_loop()).__module__

    async def pid(self) -> int:
        return os.getpid()

    async def crash(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
'''


REGISTRY = '''
"""A registry for tests: a folder with a file for each registration; the URL is folder:///path."""
import asyncio, contextlib, pathlib, urllib.parse
import rpcfw
from rpcfw.registry import Registration


class FolderRegistry:
    problem = ""

    def __init__(self, url):
        self.folder = pathlib.Path(url.removeprefix("folder://"))

    @contextlib.asynccontextmanager
    async def register(self, registration):
        if not self.folder.is_dir():
            raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "there is no folder")
        if self.folder.name == "silent":
            print("the folder is silent", flush=True)
            await asyncio.Event().wait()
        path = self.folder / urllib.parse.quote(registration.key, safe="")
        new = path.with_suffix(".new")
        new.write_bytes(registration.to_json())
        new.rename(path)
        try:
            yield
        finally:
            path.unlink()
            print("left the folder", flush=True)

    def read(self):
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix != ".new":
                    yield Registration.from_json(path.read_bytes())

    async def watch(self, service):
        seen = None
        while True:
            found = frozenset(one for one in self.read() if one.service == service)
            if found != seen:
                seen = found
                yield found
            await asyncio.sleep(0.01)  # a folder tells nobody that it has changed

    async def services(self):
        if not self.folder.is_dir():
            raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "there is no folder")
        return frozenset(one.service for one in self.read())

    async def close(self):
        pass
'''


@dataclasses.dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Running:
    """A process whose lines, of stdout and stderr together, are waited for."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            arguments,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str) -> str:
        """The next line that holds the text."""
        while (line := self._queue.get(timeout=TIMEOUT_S)) is not None:
            self.lines.append(line)
            if text in line:
                return line
        pytest.fail(f"ended without saying {text!r}:\n" + "\n".join(self.lines))

    def serving(self) -> tuple[str, int]:
        """The endpoint and the pid of the next line that tells of serving."""
        line = self.wait_for("serving")
        found = re.search(r"at (\S+) \(pid (\d+)\)", line)
        assert found, line
        return found[1], int(found[2])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        """Wait for the end of the process and of all that share its output. Returns the exit code."""
        code = self.process.wait(TIMEOUT_S)
        while (line := self._queue.get(timeout=TIMEOUT_S)) is not None:
            self.lines.append(line)
        self._queue.put(None)
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def end(self) -> None:
        """For the end of a test: whatever happened, nothing stays."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(SETTLE_S)
        if self._reader.is_alive():  # workers hold the output: a supervisor that failed has left them
            for pid in re.findall(r"serving .*\(pid (\d+)\)", "\n".join([*self.lines, *self._rest()])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        self._reader.join(TIMEOUT_S)

    def _rest(self) -> Iterator[str]:
        with contextlib.suppress(queue.Empty):
            while (line := self._queue.get_nowait()) is not None:
                yield line


Start = Callable[..., Running]
Rpcfw = Callable[..., Done]


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(*arguments: str, **environment: str) -> Running:
        started.append(Running([*RPCFW, *arguments], folder, environment))
        return started[-1]

    try:
        yield begin
    finally:
        for running in started:
            running.end()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with shop.py, the current one."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RPCFW_ENDPOINT", raising=False)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts `rpcfw` with arguments as a process in the folder."""
    with processes(folder) as begin:
        yield begin


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server of shop.py that runs during a module's tests."""
    place = tmp_path_factory.mktemp("shop")
    (place / "shop.py").write_text(SHOP)
    with processes(place) as begin:
        running = begin("run", "shop.py", "--listen", "tcp://127.0.0.1:0")
        yield running.serving()[0]


@pytest.fixture
def rpcfw(monkeypatch: pytest.MonkeyPatch) -> Rpcfw:
    """Runs a command to its end, in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")

    def run(*arguments: str, stdin: str = "", **environment: str) -> Done:
        result = CliRunner().invoke(app, arguments, input=stdin, env=environment, prog_name="rpcfw")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def at_shop(rpcfw: Rpcfw, shop: str) -> Rpcfw:
    """Runs a command that asks the module's server."""

    def run(*arguments: str, stdin: str = "") -> Done:
        return rpcfw(*arguments, stdin=stdin, RPCFW_ENDPOINT=shop)

    return run


@pytest.fixture
def listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is a registry, known to this process and those it starts by an entry point."""
    site = folder / "site"
    (site / "folder_registry-1.0.dist-info").mkdir(parents=True)
    (site / "folder_registry.py").write_text(REGISTRY)
    about = site / "folder_registry-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: folder-registry\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rpcfw.registries]\nfolder = folder_registry:FolderRegistry\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    (folder / "listed").mkdir()
    return folder / "listed"
