"""nats-py: requests and replies by way of a broker, a private nats-server; bytes alone, and so an order as msgpack."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.peers.contents import BLOB, KEPT, order_fields
from benchmarks.peers.links import HOST, AsyncioPeer, Link

REQUEST_TIMEOUT_S = 30.0
CONFIGURATION = f"""
host: {HOST}
port: -1
max_payload: 8MB
"""
_LISTENING = re.compile(r"Listening for client connections on \S+:(\d+)")


@contextlib.contextmanager
def broker() -> Iterator[tuple[int, int]]:
    """A nats-server; its port and process. It ends with the thread that started it, however that ends.

    Raises RuntimeError when it is not installed or does not start.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    program = shutil.which("nats-server", path=path)
    if program is None:
        raise RuntimeError("nats-server is not installed; .ci/bench-servers.sh does it")
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "nats.conf")
        configuration.write_text(CONFIGURATION)
        process = _start(["setpriv", "--pdeathsig", "KILL", program, "--config", str(configuration)])
        try:
            port = _port(process)
        except BaseException:
            process.kill()
            raise
    try:
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _start(command: list[str]) -> subprocess.Popen[str]:
    """Start a process that may use any core, whereas this one, from which it would inherit, may be kept on one."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, own)


def _port(process: subprocess.Popen[str]) -> int:
    """The port that it says it listens on."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        if listening := _LISTENING.search(line):
            return int(listening[1])
        lines.append(line)
    raise RuntimeError(f"nats-server did not start: {''.join(lines[-3:])}")


class NatsLink(Link):
    """A client's connection to the broker."""

    order_type = dict

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get_order(self, number: int) -> Any:
        reply = await self._client.request("get_order", str(number).encode(), timeout=REQUEST_TIMEOUT_S)
        return msgpack.unpackb(reply.data)

    async def echo(self, body: bytes) -> bytes:
        return (await self._client.request("echo", body, timeout=REQUEST_TIMEOUT_S)).data

    async def download(self, size: int) -> bytes:
        return (await self._client.request("download", str(size).encode(), timeout=REQUEST_TIMEOUT_S)).data

    async def upload(self, body: bytes) -> int:
        return int((await self._client.request("upload", body, timeout=REQUEST_TIMEOUT_S)).data)

    async def close(self) -> None:
        await self._client.close()


class Nats(AsyncioPeer):
    """nats-py, with the broker beside the server. IDLE counts the broker's memory, to which clients connect."""

    name = "nats-py"
    packages = ("nats-py", "msgpack", "uvloop")
    setting = "on uvloop, msgpack of a dict, one connection; nats-server beside the server, on any core"

    def serve(self, ready: Callable[[str], None]) -> None:
        with broker() as self._broker:
            super().serve(ready)

    async def start(self) -> tuple[int, int]:
        orders = [order_fields(number) for number in range(KEPT)]
        methods: dict[str, Callable[[bytes], bytes]] = {
            "get_order": lambda data: msgpack.packb(orders[int(data)]),
            "echo": lambda data: data,
            "download": lambda data: BLOB[: int(data)],
            "upload": lambda data: str(len(data)).encode(),
        }
        port, pid = self._broker
        self._client = await _connect(port)
        for subject, method in methods.items():
            await self._client.subscribe(subject, cb=_responder(method))
        await self._client.flush()  # the broker knows them now
        return port, pid

    async def connect(self, port: int) -> Link:
        return NatsLink(await _connect(port))


async def _connect(port: int) -> Client:
    return await nats.connect(f"nats://{HOST}:{port}", allow_reconnect=False)


def _responder(method: Callable[[bytes], bytes]) -> Callable[[Msg], Awaitable[None]]:
    async def respond(request: Msg) -> None:
        await request.respond(method(request.data))

    return respond


SUBJECT = Nats()
