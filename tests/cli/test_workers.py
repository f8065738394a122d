"""`rpcfw run --workers`: one port, several processes, and none of them left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TIMEOUT_S, Rpcfw, Running, Start

FREE_PORT = ("--listen", "tcp://127.0.0.1:0")


def serving(running: Running, count: int) -> tuple[str, set[int]]:
    """The one endpoint of all workers, and their pids, once all of them serve."""
    told = [running.serving() for _ in range(count)]
    running.wait_for(f"{count} workers serve")
    running.wait_for("call them: ")
    endpoints = {endpoint for endpoint, _ in told}
    assert len(endpoints) == 1
    return endpoints.pop(), {pid for _, pid in told}


def test_workers_share_a_port_and_a_crashed_one_is_replaced_after_a_growing_delay(
    start: Start, rpcfw: Rpcfw
) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--workers", "2")
    endpoint, pids = serving(running, 2)
    assert running.process.pid not in pids
    assert int(rpcfw("call", "shop.Orders.pid", "-e", endpoint).out) in pids
    crashed: list[int] = []
    for _ in range(3):
        assert rpcfw("call", "shop.Orders.crash", "-e", endpoint).code == 3
        line = running.wait_for("was ended by SIGKILL; a new one starts in")
        number, pid, delay_s = int(line.split()[1]), int(line.split()[3][:-1]), float(line.split()[-2])
        crashed.append(number)
        assert delay_s == 0.1 * 2 ** (crashed.count(number) - 1)
        told, new = running.serving()
        assert told == endpoint
        assert pid in pids
        assert new not in pids
        pids = pids - {pid} | {new}
        assert int(rpcfw("call", "shop.Orders.pid", "-e", endpoint).out) in pids
    assert max(crashed.count(1), crashed.count(2)) > 1  # so that a delay has grown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers(start: Start, number: signal.Signals) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--workers", "2")
    serving(running, 2)
    running.signal(number)
    assert running.code() == 0
    assert f"{number.name}: draining 2 workers, up to 10 s" in running.text
    assert "ended" not in running.text


def test_a_second_signal_ends_workers_that_still_drain(start: Start) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--workers", "2")
    endpoint, _ = serving(running, 2)
    caller = start("call", "shop.Orders.forever", "--endpoint", endpoint)
    running.wait_for("waiting")
    running.signal(signal.SIGTERM)
    running.wait_for("SIGTERM: draining")
    running.signal(signal.SIGTERM)
    assert running.code() == 143
    assert "SIGTERM again: ending" in running.text
    assert caller.code() == 3


def test_workers_end_when_their_supervisor_is_killed(start: Start) -> None:
    running = start("run", "shop.py", *FREE_PORT, "--workers", "2")
    _, pids = serving(running, 2)
    running.signal(signal.SIGKILL)
    assert running.code() == -signal.SIGKILL  # after the end of all who share its output
    for pid in pids:
        assert f"the supervisor is gone: worker {pid} drains and ends" in running.text


def test_a_worker_ends_even_if_its_supervisor_died_before_it_had_listened(folder: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        options = json.dumps({"target": "shop.py", "listen": ["tcp://127.0.0.1:0"]})
        worker = subprocess.Popen(
            [sys.executable, "-m", "rpcfw.cli.worker", str(theirs.fileno()), options],
            cwd=folder,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
    try:
        assert ours.recv(1, socket.MSG_PEEK)  # it serves and said so, which nobody has read
        ours.close()
        assert worker.wait(TIMEOUT_S) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_a_target_that_cannot_be_served_ends_the_supervisor_with_its_code(folder: Path, start: Start) -> None:
    (folder / "broken.py").write_text("raise RuntimeError('no database')\n")
    running = start("run", "broken.py", *FREE_PORT, "--workers", "2")
    assert running.code() == 1
    assert "broken.py:1: RuntimeError: no database" in running.text
    assert "ended with exit code 1 before it served; stopping" in running.text


@pytest.mark.parametrize("endpoint", ["unix:///run/shop.sock", "udp://127.0.0.1:0", "mem://shop"])
def test_what_cannot_be_shared_is_refused_before_anything_starts(rpcfw: Rpcfw, endpoint: str) -> None:
    done = rpcfw("run", "nothing.py", "--listen", endpoint, "--workers", "2")
    assert (done.code, done.out) == (2, "")
    assert f"{endpoint} cannot be shared by several processes" in done.err


def test_a_taken_port_is_told_even_where_its_owner_would_share_it(rpcfw: Rpcfw) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = rpcfw(
            "run", "nothing.py", "--listen", f"tcp://127.0.0.1:{taken.getsockname()[1]}", "--workers", "2"
        )
    assert done.code == 1
    assert "address already in use" in done.err
