"""Real ``rpcfw registry`` processes that are killed under load, and the command itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import rpcfw
from tests.faults.load import Load, Outcome
from tests.faults.office import Office
from tests.faults.processes import Server, running
from tests.naming.places import RegistryProcess
from tests.registry.servers import owned

RATE = 300


@contextlib.asynccontextmanager
async def called(client: rpcfw.Client) -> AsyncIterator[Outcome]:
    """Calls all the while; none may fail."""
    office = client.stub(Office)
    await office.length("warm")
    load = Load(office, RATE, orders=True)
    calling = asyncio.create_task(load.run())
    try:
        yield load.outcome
    finally:
        load.stop()
        await calling
    assert load.outcome.calls > 100
    assert not load.outcome.failed, load.outcome.problems
    assert not load.outcome.unknown


def office(url: str, folder: Path) -> Server:
    command = ["-m", "tests.faults.office", "--registry", url, "--ledger", str(folder / "ledger")]
    return Server(command, ready="serving at")


@pytest.fixture
def registries() -> Iterator[tuple[RegistryProcess, RegistryProcess]]:
    with owned(RegistryProcess(lease_s=2.0)) as one, owned(RegistryProcess(lease_s=2.0)) as other:
        yield one, other


async def test_a_registry_is_killed_and_restarted_under_load_without_a_failed_call(
    registries: tuple[RegistryProcess, RegistryProcess], tmp_path: Path
) -> None:
    registry, _ = registries
    await registry.start()
    async with (
        running([office(registry.url, tmp_path) for _ in range(2)]),
        rpcfw.connect(registry.url) as client,
        called(client) as outcome,
    ):
        for _ in range(2):
            registry.kill()
            before = outcome.calls
            while outcome.calls < before + RATE * 2.5:  # longer than a lease
                await asyncio.sleep(0.05)
            await registry.start()
            async with rpcfw.connect(registry.url) as another:  # that knew nothing before
                assert await another.stub(Office).length("four") == 4
            before = outcome.calls
            while outcome.calls < before + RATE * 1.0:
                await asyncio.sleep(0.05)


async def test_one_of_two_registries_is_killed_and_a_server_that_comes_meanwhile_is_found(
    registries: tuple[RegistryProcess, RegistryProcess], tmp_path: Path
) -> None:
    one, other = registries
    await asyncio.gather(one.start(), other.start())
    url = f"{one.url},{other.url.removeprefix('rpcfw://')}"
    async with (
        running([office(url, tmp_path)]),
        rpcfw.connect(url) as client,
        called(client),
    ):
        one.kill()
        late = office(url, tmp_path)
        async with running([late]):
            while len(client.nodes) < 2:
                await asyncio.sleep(0.02)
            async with rpcfw.connect(url) as another:
                assert await another.stub(Office).length("four") == 4
            await one.start()
            async with rpcfw.connect(one.url) as another:  # that knows of this one only
                assert await another.stub(Office).length("four") == 4
            other.kill()
            async with rpcfw.connect(url) as another:
                assert await another.stub(Office).length("four") == 4
            assert await late.leave() == 0


# ------------------------------------------------------------------------------------------------ the command


@contextlib.asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rpcfw", "registry", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_command_at_once_although_somebody_watches(number: signal.Signals) -> None:
    async with command("--listen", "tcp://127.0.0.1:0", "--lease", "3") as process:
        assert process.stdout is not None
        serving = (await process.stdout.readline()).decode()
        address = next(word for word in serving.split() if word.startswith("tcp://"))
        assert serving == f"serving rpcfw.Registry 1.0 at {address} (pid {process.pid})\n"
        url = address.replace("tcp", "rpcfw")
        assert (await process.stdout.readline()).decode() == f"servers: rpcfw run app.py --register {url}\n"
        assert (await process.stdout.readline()).decode() == f"clients: rpcfw.connect('{url}')\n"
        registry = rpcfw.open_registry(url)
        watch = asyncio.ensure_future(anext(registry.watch("shop.Orders")))
        entry = rpcfw.Registration("shop.Orders", rpcfw.Endpoint.parse("tcp://127.0.0.1:7000"))
        async with registry.register(entry):
            assert await watch == {entry}
            process.send_signal(number)
            async with asyncio.timeout(8.0):  # the grace is 10 s
                assert await process.wait() == 0
        await registry.close()
        assert f"{number.name}: draining" in (await process.stdout.read()).decode()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--listen", "http://127.0.0.1:7400"), "is not an endpoint"),
        (("--lease", "0"), "'--lease': '0'"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rpcfw", "registry", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert why in done.stderr
