"""`rpcfw run` as real processes: what it says, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import rpcfw
from rpcfw.generic import generic_stub
from tests.cli.conftest import RPCFW, TIMEOUT_S, Rpcfw, Running, Start

TEN_LINES = """
import rpcfw

@rpcfw.service
class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}!"
"""
FREE_PORT = ("--listen", "tcp://127.0.0.1:0")


def test_a_file_is_served_and_called_with_what_it_says_itself(folder: Path, start: Start) -> None:
    (folder / "app.py").write_text(TEN_LINES)
    running = start("run", "app.py", *FREE_PORT)
    line = running.wait_for("serving")
    endpoint = f"tcp://127.0.0.1:{line.split(':')[2].split(' ')[0]}"
    assert line == f"serving Greeter 1.0 at {endpoint} (pid {running.process.pid})"
    hint = running.wait_for("call it: ").removeprefix("call it: ")
    assert hint == f"rpcfw call Greeter.hello name=text --endpoint {endpoint}"
    command = [*RPCFW, *hint.replace("name=text", "name=Ada").split()[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, Ada!\n", "")


def test_every_endpoint_is_served_and_told(folder: Path, start: Start, rpcfw: Rpcfw) -> None:
    running = start("run", "shop.py", "--listen", f"unix://{folder}/shop.sock", *FREE_PORT, "--no-uvloop")
    endpoints = [running.serving()[0], running.serving()[0]]
    assert endpoints[0] == f"unix://{folder}/shop.sock"
    for endpoint in endpoints:
        assert rpcfw("call", "shop.Orders.loop", "-e", endpoint).out == "asyncio.unix_events\n"


def test_uvloop_is_used_where_it_is_installed_and_tracebacks_are_sent_in_dev_mode(
    start: Start, rpcfw: Rpcfw
) -> None:
    endpoint, _ = start("run", "shop.py", *FREE_PORT, "--dev").serving()
    assert rpcfw("call", "shop.Orders.loop", "-e", endpoint).out == "uvloop\n"
    failed = rpcfw("call", "shop.Orders.fail", "-e", endpoint)
    assert 'raise ZeroDivisionError("no")' in failed.err


def test_a_taken_port_is_told_with_the_mend(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = start("run", "shop.py", "--listen", f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        assert running.code() == 1
    assert "address already in use; another server has it: stop that one" in running.text
    assert "Traceback" not in running.text


async def call_in_progress(
    running: Running, method: str, said: str, **arguments: object
) -> asyncio.Task[object]:
    """A call that the server has begun to handle, and says so."""
    endpoint, _ = await asyncio.to_thread(running.serving)

    async def call() -> object:
        async with rpcfw.connect(endpoint, timeout_s=None) as client:
            return await (await generic_stub(client, "shop.Orders")).call(method, **arguments)

    task = asyncio.create_task(call())
    await asyncio.to_thread(running.wait_for, said)
    return task


async def test_a_signal_lets_calls_in_progress_end_and_the_exit_code_is_0(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "fifo")
    running = start("run", "shop.py", *FREE_PORT)
    call = await call_in_progress(running, "held", "holding", fifo=str(folder / "fifo"))
    running.signal(signal.SIGTERM)
    await asyncio.to_thread(running.wait_for, "SIGTERM: draining 1 call, for up to 10 s")
    assert not call.done()
    await asyncio.to_thread((folder / "fifo").write_text, "released")
    assert await call == "released"
    assert await asyncio.to_thread(running.code) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_at_once(start: Start, number: signal.Signals, code: int) -> None:
    running = start("run", "shop.py", *FREE_PORT)
    call = await call_in_progress(running, "forever", "waiting")
    running.signal(number)
    await asyncio.to_thread(running.wait_for, "draining 1 call")
    running.signal(number)
    assert await asyncio.to_thread(running.code) == code
    assert "again: ending at once, 1 call cut off" in running.text
    with pytest.raises(rpcfw.RpcError) as caught:
        await call
    assert caught.value.code is rpcfw.Code.UNAVAILABLE


async def test_a_handler_that_does_not_end_is_cut_off_at_the_end_of_the_grace(start: Start) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--grace", "0.05")
    call = await call_in_progress(running, "forever", "waiting")
    running.signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.code) == 0
    with pytest.raises(rpcfw.RpcError):
        await call


async def test_a_handler_that_blocks_its_thread_does_not_keep_the_process(folder: Path, start: Start) -> None:
    os.mkfifo(folder / "fifo")
    running = start("run", "shop.py", *FREE_PORT, "--grace", "0.05")
    call = await call_in_progress(running, "held", "holding", fifo=str(folder / "fifo"))
    running.signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.code) == 0
    assert "a handler blocks its thread beyond the grace" in running.text
    with pytest.raises(rpcfw.RpcError):
        await call


@pytest.mark.parametrize("option", [("--listen", "tcp://127.0.0.1:0"), ("--dev",)])
def test_a_target_that_is_a_server_refuses_options_that_are_its_own(
    folder: Path, start: Start, option: tuple[str, ...]
) -> None:
    (folder / "served.py").write_text(
        "import rpcfw, shop\nserver = rpcfw.serve(shop.Orders(), listen='tcp://127.0.0.1:0', grace_s=3)\n"
    )
    refused = start("run", "served:server", *option)
    assert refused.code() == 2
    assert f"leave out {option[0]}" in refused.text
    running = start("run", "served:server")
    running.serving()
    running.signal(signal.SIGTERM)
    assert running.code() == 0
    assert "for up to 3 s" in running.text
