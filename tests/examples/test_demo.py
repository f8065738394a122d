"""The search demo: its processes, the registry it finds, what it shows, and the whole of it as it is run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

import rpcfw
from examples.search import discovery
from examples.search.cluster import ServerFailed, ServerProcess, Setting, running, start_all
from examples.search.contract import Count
from examples.search.demo import commands_to_try, registry_to_try
from examples.search.discovery import OWN, Found, meeting_place, problem_of
from examples.search.fleet import Fleet
from examples.search.index import Index
from examples.search.screen import screen
from examples.search.server import SearchServer
from examples.search.stubs import SearchStub
from examples.search.timeline import Timeline
from examples.search.traffic import Traffic
from examples.search.workload import count_question
from rpcfw.breaker import ConsecutiveFailures
from rpcfw.registry import MemoryRegistry, MemoryStore
from rpcfw.transport import MemoryTransport

PROJECT = Path(__file__).parents[2]


# the processes


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with meeting_place() as found:
        yield Setting(found.url, tmp_path / "index", max_files=1)


async def test_no_server_process_is_left_when_the_demo_is_cancelled_even_if_one_is_stopped(
    setting: Setting,
) -> None:
    pids: list[int] = []
    stopped: list[ServerProcess] = []
    started = asyncio.Event()

    async def demonstrate() -> None:
        async with running({"a": 100, "b": 100}, setting) as servers:
            await start_all(servers)
            pids.extend(server.pid for server in servers)
            servers[1].send(signal.SIGSTOP)
            stopped.append(servers[1])
            started.set()
            await asyncio.get_running_loop().create_future()

    demo = asyncio.create_task(demonstrate())
    await started.wait()
    assert all(is_alive(pid) for pid in pids)
    demo.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demo
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(ServerFailed, match="ended with 0"):
        await stopped[0].check()


async def test_a_server_that_ends_by_itself_is_named_with_its_last_words(setting: Setting) -> None:
    async with running({"a": 100}, setting) as (server,):
        await start_all([server])
        await server.check()
        server.kill()
        await server.gone()
        with pytest.raises(
            ServerFailed, match=rf"server a \(pid {server.pid}\) ended with -9.*\n +serving at tcp:"
        ):
            await server.check()


async def test_a_server_that_is_killed_and_started_again_is_found_through_the_registry(
    setting: Setting,
) -> None:
    async with running({"a": 300}, setting) as (server,), rpcfw.connect(setting.registry) as client:
        stub = SearchStub(client)
        await start_all([server])
        assert (await stub.status()).pid == server.pid
        (node,) = client.nodes
        assert (dict(node.endpoint.labels), node.endpoint.weight) == ({"node": "a"}, 300)
        server.kill()
        await server.gone()
        first = server.pid
        await start_all([server])
        assert (await stub.status()).pid == server.pid != first


async def test_a_server_ends_with_the_process_that_holds_its_stdin(setting: Setting) -> None:
    command = [sys.executable, "-m", "examples.search.server", "--registry", setting.registry, "--files", "1"]
    server = await asyncio.create_subprocess_exec(
        *command, "--attached", cwd=PROJECT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        await server.stdout.readline()
        server.stdin.close()
        assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
        await server.communicate()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# the registry


async def test_where_multicast_does_not_work_the_demo_says_so_and_starts_a_registry_of_rpcfws_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none(_: str) -> str:
        return "nothing was heard in 3 s"

    real = discovery.problem_of
    monkeypatch.setattr(discovery, "problem_of", none)
    async with meeting_place() as found:
        assert found.url.startswith(OWN)
        assert "multicast DNS does not work" in found.why
        assert "nothing was heard in 3 s" in found.why
        assert await real(found.url) == "", "and what is told there is heard"


async def test_a_registry_that_cannot_be_used_is_found_out(tmp_path: Path) -> None:
    services = tmp_path / "services.toml"
    services.write_text("")
    assert await problem_of(f"file://{services}") != ""


async def test_a_registry_that_is_wanted_is_taken_as_it_is() -> None:
    async with meeting_place("etcd://127.0.0.1:1") as found:
        assert found.url == "etcd://127.0.0.1:1"


# what is shown


class Shown:
    """One server in memory that a client finds through a registry, one call made to it, and the screen of the demo."""

    def __init__(self, *, terminal: bool) -> None:
        self.console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)

    async def show(self) -> str:
        memory = {"mem": MemoryTransport()}
        store = MemoryStore()
        timeline = Timeline()
        server = ServerProcess("a", 100, Setting("", Path(), None))
        fleet = Fleet([server], timeline)
        options = rpcfw.ClusterOptions(on_event=fleet.heard, breaker=ConsecutiveFailures)
        implementation = SearchServer(Index(), "a")
        async with (
            rpcfw.serve(implementation, listen="mem://a", transports=memory) as served,
            rpcfw.register(served, MemoryRegistry(store), labels={"node": "a"}) as place,
            rpcfw.connect(MemoryRegistry(store), transports=memory, cluster=options) as client,
        ):
            fleet.watch(client)
            question = count_question("animal", [Count(0, 0)])
            traffic = Traffic(SearchStub(client), [question], callers=1)
            async with screen(self.console, timeline, fleet, traffic):
                timeline.begin("A part")
                up = fleet.expect(rpcfw.EventKind.UP, "a")
                await traffic.ask(question)
                await up
                timeline.tell("something is done")
                (row,) = fleet.rows(traffic)
                assert (row.name, row.address, row.state, row.breaker) == ("a", "mem://a", "up", "closed")
                assert (row.in_flight, row.calls, row.share) == (0, 1, 1.0)
                down = fleet.expect(rpcfw.EventKind.DOWN, "a")
                await place.leave()
                await served.drain()
                await down
                (row,) = fleet.rows(traffic)
                assert row.state in ("down", "gone")
        file = self.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


async def test_where_there_is_no_terminal_each_thing_is_a_line_as_it_happens() -> None:
    lines = (await Shown(terminal=False).show()).splitlines()
    texts = [line.split(" s  ")[1] for line in lines if line]
    assert texts[:3] == ["A part", ". a at mem://a: up: connected", "> something is done"]
    assert texts[3].startswith(". a at mem://a: down: ")
    assert "\x1b" not in "".join(lines)


async def test_on_a_terminal_the_servers_are_a_table_above_the_last_events() -> None:
    shown = await Shown(terminal=True).show()
    last = shown.rpartition("A part")[2]
    assert "mem://a" in last
    assert "something is done" in last
    assert "\x1b[" in shown


# the demo as it is run


async def start(*command: str) -> Process:
    """A process that is no terminal's, in the project's folder."""
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT, env=env, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )


async def test_the_demo_loses_no_call_and_prints_its_tables() -> None:
    demo = await start(sys.executable, "-m", "examples.search.demo", "--seconds", "0.2", "--files", "100")
    said = (await demo.communicate())[0].decode()
    lines = said.splitlines()
    assert demo.returncode == 0, said
    assert "failed calls: 0" in lines, said
    assert not any(character < " " and character != "\n" for character in said), repr(said)
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "zeroconf://" in said or "multicast DNS does not work" in said
    live, tables = said.split("[4/4]")
    for event in (
        "b at tcp://127.0.0.1:.*: down: no heartbeat for",
        "server b answers calls again",
        "c at tcp://127.0.0.1:.*: breaker: closed -> open",
        "c at tcp://127.0.0.1:.*: breaker: half-open -> closed",
        *(f"server {node} has left and ended; it is started again" for node in "abcd"),
        "SIGKILL to server [abcd]",
    ):
        assert len(re.findall(event, live)) >= 1, (event, said)
    for method in ("count", "find", "refine", "upload"):
        assert (
            sum(line.startswith(f"{method} ") and line.endswith(" 0") for line in map(str.rstrip, lines)) == 1
        ), said
    shares = {
        row[0]: row[2:]
        for line in tables.splitlines()
        if (row := line.split()) and row[1:2] in (["300"], ["100"])
    }
    assert list(shares) == ["a", "b", "c", "d"], said
    weighted = {node: float(row[2]) for node, row in shares.items()}
    assert weighted["a"] == pytest.approx(50, abs=5)
    assert weighted["b"] == pytest.approx(100 / 6, abs=5)
    power_of_two = {node: float(row[8]) for node, row in shares.items()}
    assert power_of_two["d"] < 15, said


async def test_the_demo_ends_with_its_servers_when_it_is_told_to() -> None:
    demo = await start(sys.executable, "-m", "examples.search.demo", "--files", "100")
    assert demo.stdout is not None
    async for line in demo.stdout:
        if line.startswith(b"[2/4]"):
            demo.terminate()
    assert await demo.wait() == 143


async def test_the_command_lines_that_the_demo_ends_with_work() -> None:
    async with meeting_place() as found:
        (_, (serve,)), (_, calls) = commands_to_try(found.url)[-2:]
        server = await start(*in_venv(serve))
        assert server.stdout is not None
        try:
            async for line in server.stdout:
                if line.startswith(b"registered"):
                    break
            outputs = await asyncio.gather(*(output_of(command) for command in calls))
        finally:
            server.terminate()
            await server.communicate()
    assert "search.Search" in outputs[0]
    assert json.loads(outputs[1])["files"] > 0
    assert len([json.loads(line)["path"] for line in outputs[2].splitlines()]) == 5
    assert "async def count(query: str) -> Count" in outputs[3]
    assert server.returncode == 0


async def output_of(command: str) -> str:
    call = await start(*in_venv(command))
    output = (await call.communicate())[0].decode()
    assert call.returncode == 0, output
    return output


def in_venv(command: str) -> list[str]:
    _, *arguments = shlex.split(command)
    return [sys.executable, "-m", "rpcfw", *arguments]


def test_after_the_demo_one_goes_on_where_others_can_be_met_too() -> None:
    assert registry_to_try(Found("zeroconf://127.0.0.1?group=demo-1", "")) == "zeroconf://"
    assert registry_to_try(Found("etcd://10.0.0.5:2379", "")) == "etcd://10.0.0.5:2379"
    own = registry_to_try(Found("rpcfw://127.0.0.1:45678", ""))
    (_, (registry,)), *_ = commands_to_try(own)
    assert registry.endswith("registry --listen tcp://127.0.0.1:7400")
