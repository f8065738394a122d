"""What blocks, or would reach the real world, is refused by name on a simulated loop, and nowhere else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging.handlers
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

import rpcfw
from rpcfw.testing import Host, Simulation, Unsimulated, run, simulate, unguarded
from rpcfw.testing.guard import CALLS

SOMETHING = object()
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "time.sleep": (0.001,),
    "select.select": ([], [], [], 1.0),
    "threading.Thread.join": (threading.main_thread(),),
    "threading.Event.wait": (threading.Event(), 1.0),
    "threading.Condition.wait": (threading.Condition(), 1.0),
}


def doze(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # it is what is tested


def say(word: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"print({word!r})"], capture_output=True, text=True, check=True
    ).stdout


def dial(port: int) -> None:
    with socket.socket() as link:
        link.connect(("127.0.0.1", port))


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[call.label for call in CALLS])
def test_what_blocks_or_reaches_the_real_world_is_refused_by_name(number: int) -> None:
    call = CALLS[number]

    async def main() -> None:
        getattr(call.owner, call.name)(*ARGUMENTS.get(call.label, (SOMETHING,)))

    with pytest.raises(Unsimulated, match=f"^{call.label} has no place in a simulation: "):
        run(main)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("time.sleep", lambda: doze(30)),
        ("socket.create_connection", lambda: socket.create_connection(("127.0.0.1", 9))),
        ("socket.create_connection", lambda: urllib.request.urlopen("http://127.0.0.1:9/")),
        ("socket.socket.connect", lambda: dial(9)),
        ("socket.getaddrinfo", lambda: socket.getaddrinfo("localhost", 9)),
        ("subprocess.Popen", lambda: say("true")),
        ("os.system", lambda: os.system("true")),
        ("threading.Thread.start", lambda: threading.Thread(target=len).start()),
        ("threading.Thread.start", lambda: concurrent.futures.ThreadPoolExecutor(1).submit(len, "")),
        ("threading.Condition.wait", lambda: concurrent.futures.Future[None]().result()),
        ("threading.Condition.wait", lambda: queue.Queue[None]().get()),
        ("socket.socketpair", lambda: socket.socketpair(socket.AF_UNIX)),
    ],
)
def test_what_users_write_is_refused_on_the_loop_and_in_functions_it_runs_in_line(
    name: str, act: Callable[[], Any]
) -> None:
    async def on_the_loop() -> None:
        act()

    async def in_line() -> None:
        await asyncio.to_thread(act)

    for main in (on_the_loop, in_line):
        with pytest.raises(Unsimulated, match=f"^{name} has no place"):
            run(main)


def test_what_does_not_wait_is_let_through() -> None:
    ended = threading.Thread(target=len, args=("",))
    ended.start()
    ended.join()

    async def main() -> None:
        doze(0)
        happened, condition = threading.Event(), threading.Condition()
        assert not happened.wait(0)
        happened.set()
        assert happened.wait()
        with condition:
            assert not condition.wait(0)
        assert select.select([], [], [], 0) == ([], [], [])
        ended.join()

    run(main)


def test_the_replaced_functions_are_put_back_and_are_their_own_meanwhile_in_other_threads() -> None:
    before = [vars(call.owner).get(call.name) for call in CALLS]
    begin, said = threading.Event(), list[str]()

    def elsewhere() -> None:
        begin.wait()
        doze(0.001)
        one, other = socket.socketpair()
        one.sendall(b"x")
        said.append(other.recv(1).decode())
        one.close()
        other.close()
        said.append(run(lambda: asyncio.sleep(5, "nested")))

    thread = threading.Thread(target=elsewhere)
    thread.start()

    async def main() -> None:
        begin.set()
        with unguarded():
            thread.join()
        with pytest.raises(Unsimulated):
            doze(1)

    run(main)
    assert said == ["x", "nested"]
    assert [vars(call.owner).get(call.name) for call in CALLS] == before
    assert not any(hasattr(getattr(call.owner, call.name), "__wrapped__") for call in CALLS)
    assert "connect" not in vars(socket.socket)


def test_code_that_has_to_may_reach_the_real_world() -> None:
    async def main() -> None:
        with unguarded():
            assert say("7") == "7\n"
        with pytest.raises(Unsimulated):
            say("8")

    run(main)


def test_a_debugger_may_wait_for_its_user() -> None:
    waits = compile("def wait():\n    time.sleep(0.001)\n", "pydevd.py", "exec")
    names: dict[str, Any] = {"__name__": "pydevd_frame", "time": time}
    exec(waits, names)

    async def main() -> None:
        names["wait"]()

    run(main)


def test_a_log_may_go_to_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        logger = logging.getLogger("tests.guard")
        handler = logging.handlers.SysLogHandler(syslog.getsockname())
        logger.addHandler(handler)

        async def main() -> None:
            logger.error("from a simulation")

        run(main)
        logger.removeHandler(handler)
        handler.close()
        syslog.settimeout(5)
        assert b"from a simulation" in syslog.recv(1_000)
    assert capsys.readouterr().err == ""


def test_a_server_in_a_simulation_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    @rpcfw.service("tests.Greeter")
    class Greeter:
        async def hello(self, name: str) -> str:
            return f"Hello, {name}!"

    async def serve(host: Host) -> None:
        async with rpcfw.serve(Greeter(), listen="tcp://0.0.0.0:7000") as server:
            await server.wait_closed()

    async def scenario(simulation: Simulation) -> str:
        simulation.host("greeter", serve)
        async with rpcfw.connect("tcp://greeter:7000") as client:
            await asyncio.sleep(60.0)
            return await client.stub(Greeter).hello("Ada")

    threads = threading.active_count()
    assert simulate(scenario) == "Hello, Ada!"
    assert threading.active_count() == threads
