"""Private servers of etcd and Redis for tests, on free ports of loopback with a folder of their own, and a relay.

A server can be killed without warning and started again at the same address, with its data or without. The relay
stands between one registry and its server: cutting it is how that registry's process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rpcfw.registry import Registry, open_registry
from rpcfw.testing.registry_places import registration

STARTING_S = 15.0
_POLL_S = 0.02
_PORTS = range(20_000, 32_000)
ETCD, REDIS = "/usr/bin/etcd", "/usr/bin/redis-server"


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment.

    It lies below those that systems give to outgoing connections, which come and go, and is drawn by chance, since
    other processes may be looking for one too.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1; end what holds them")


class RealServer:
    """A server's process: its port, its folder, its end and its beginning."""

    def __init__(self) -> None:
        self.port = free_port()
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="rpcfw-registry-", dir=shm if shm.is_dir() else None))
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """How it is started."""
        raise NotImplementedError

    async def answers(self) -> bool:
        """True when it does its work."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start it, unless it runs already, and wait until it works."""
        self._spawn()
        async with asyncio.timeout(STARTING_S):
            while not await self.answers():
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
                await asyncio.sleep(_POLL_S)

    def _spawn(self) -> None:
        if self._process is None:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
                )

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Throw its data away."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    async def ask(self, request: bytes) -> bytes:
        """Send something on a connection of its own; what comes back first, or nothing."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return b""
        try:
            writer.write(request)
            return await reader.read(65536)
        except OSError:
            return b""
        finally:
            writer.close()


class Etcd(RealServer):
    """One member, a cluster of its own, with short elections so that leases may be as short as a second."""

    def __init__(self) -> None:
        super().__init__()
        self._peers = free_port()

    def command(self) -> Sequence[str]:
        clients, peers = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self._peers}"
        return (
            ETCD,
            *("--name", "test", "--data-dir", str(self.folder / "data")),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"test={peers}"),
            *("--heartbeat-interval", "20", "--election-timeout", "200"),
        )

    async def answers(self) -> bool:
        return b'"true"' in await self.ask(b"GET /health HTTP/1.0\r\n\r\n")


class Redis(RealServer):
    """A Redis that keeps nothing on disk."""

    def command(self) -> Sequence[str]:
        return (
            REDIS,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", str(self.folder)),
        )

    async def answers(self) -> bool:
        return await self.ask(b"PING\r\n") == b"+PONG\r\n"


S = TypeVar("S", bound=RealServer)


@contextlib.contextmanager
def owned(server: S) -> Iterator[S]:
    """A server that is not running yet; at the end it and its folder are gone."""
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


class Relay:
    """Passes bytes between who connects and a server, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections and take no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for _ in range(3):
                await asyncio.sleep(0)  # those being accepted are known then
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        # Not in the task: one that is cancelled before it begins runs nothing of its own.
        task.add_done_callback(lambda _: writer.transport.abort())
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._target_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, there))
                group.create_task(_pass(back, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            if there is not None:
                there.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


class ServerPlace:
    """A store for the contract of registries: one real server, and for each registry a relay of its own.

    Args:
        server: runs already.
        make: a registry whose server is at a port of loopback.
        forgets: whether an outage loses the data.
    """

    patience_s = 10.0

    def __init__(self, server: RealServer, make: Callable[[int], Registry], *, forgets: bool) -> None:
        self._server = server
        self._make = make
        self._forgets = forgets
        self._relays: list[Relay] = []
        self._used: dict[Registry, Relay] = {}

    async def __aenter__(self) -> ServerPlace:
        await self._server.start()
        for _ in range(6):
            relay = Relay(self._server.port)
            await relay.open()
            self._relays.append(relay)
        return self

    async def __aexit__(self, *error: object) -> None:
        for relay in self._relays:
            await relay.cut()

    def relay_of(self, registry: Registry) -> Relay:
        """What stands between a registry and the server."""
        return self._used[registry]

    def open(self) -> Registry:
        relay = self._relays[len(self._used)]
        registry = self._make(relay.port)
        self._used[registry] = relay
        return registry

    async def crash(self, registry: Registry) -> None:
        await self._used[registry].cut()

    async def stop_backend(self) -> None:
        self._server.kill()
        if self._forgets:
            self._server.forget()

    async def start_backend(self) -> None:
        await self._server.start()


class Dying:
    """A process of its own that registers `registration` at a URL, and can be killed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Dying:
        """Returns once it is registered."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.registry.servers", self._url),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(STARTING_S):
            assert await self._process.stdout.readline() == b"registered\n"
        return self

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def __aexit__(self, *error: object) -> None:
        await self.kill()


async def _register(url: str) -> None:
    async with open_registry(url).register(registration()):
        print("registered", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_register(sys.argv[1]))
