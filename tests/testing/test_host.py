"""Simulated hosts: what a crash, a restart, a pause and a drift mean to the code that runs on them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import rpcfw
from rpcfw.testing import Crashed, Fault, Host, Schedule, Simulation, current_host, simulate

Main = Callable[[Host], Coroutine[Any, Any, None]]


class Diary:
    """What code on hosts has done, with the host and the time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, what: str) -> None:
        host = current_host()
        self.lines.append(f"{what} on {'no host' if host is None else host.name}")


class Box:
    """Holds a generator, and itself, so that only the garbage collector finds it."""

    def __init__(self, generator: AsyncGenerator[int, None]) -> None:
        self.generator = generator
        self.me = self


async def numbers(diary: Diary, name: str) -> AsyncGenerator[int, None]:
    try:
        for number in range(100):
            yield number
    finally:
        diary.note(f"{name} ends")
        await asyncio.sleep(0.01)
        diary.note(f"{name} has ended")


# ------------------------------------------------------------------------------------------------ a crash


def test_a_crash_ends_what_runs_and_a_restart_runs_main_again_on_what_the_disk_kept() -> None:
    async def main(host: Host) -> None:
        with host.disk.open("boots") as file:
            file.append(b"x")
            file.fsync()
            host.disk.fsync_dir()
        await asyncio.sleep(5.0)
        with host.disk.open("late") as file:
            file.append(b"x")

    async def scenario(simulation: Simulation) -> tuple[list[str], bytes]:
        host = simulation.host("store", main)
        await asyncio.sleep(1.0)
        host.crash()
        assert not host.is_up
        await asyncio.sleep(10.0)
        host.restart()
        await asyncio.sleep(1.0)
        return host.disk.listdir(), host.disk.open("boots").read()

    assert simulate(scenario) == (["boots"], b"xx")


def test_whoever_waits_for_a_result_of_a_crashed_host_is_told() -> None:
    async def scenario(simulation: Simulation) -> None:
        host = simulation.host("client")
        working = host.call(lambda: asyncio.sleep(10.0, "done"))
        await asyncio.sleep(1.0)
        host.crash()
        with pytest.raises(Crashed, match="client crashed"):
            await working

    simulate(scenario)


@pytest.mark.parametrize("kept_by", ["a frame", "a cycle", "others"])
def test_no_generator_of_a_crashed_host_runs_on_whoever_drops_it(kept_by: str) -> None:
    diary, others = Diary(), list[AsyncGenerator[int, None]]()

    async def main(host: Host) -> None:
        generator = numbers(diary, "it")
        await anext(generator)
        if kept_by == "a cycle":
            generator = Box(generator).generator
        elif kept_by == "others":
            others.append(generator)
        await asyncio.Event().wait()

    async def scenario(simulation: Simulation) -> None:
        host = simulation.host("store", main)
        await asyncio.sleep(1.0)
        host.crash()
        gc.collect()
        await asyncio.sleep(1.0)
        others.clear()
        gc.collect()
        await asyncio.sleep(1.0)

    simulate(scenario)
    assert diary.lines == []


def test_a_generator_of_a_crashed_host_is_not_run_at_the_end_of_the_run() -> None:
    diary, others = Diary(), list[AsyncGenerator[int, None]]()

    async def main(host: Host) -> None:
        others.append(numbers(diary, "it"))
        await anext(others[0])

    async def scenario(simulation: Simulation) -> None:
        host = simulation.host("store", main)
        await asyncio.sleep(1.0)
        host.crash()

    simulate(scenario)
    assert diary.lines == []


def test_a_generator_that_is_dropped_ends_on_the_host_that_began_it() -> None:
    diary, given = Diary(), list[Any]()

    async def main(host: Host) -> None:
        given.append(numbers(diary, "in a list"))
        await anext(given[0])
        given.append(Box(numbers(diary, "in a cycle")))
        await anext(given[1].generator)
        await asyncio.Event().wait()

    async def scenario(simulation: Simulation) -> None:
        simulation.host("store", main)
        await asyncio.sleep(1.0)
        while given:
            del given[-1]
            gc.collect()
            await asyncio.sleep(1.0)

    simulate(scenario)
    assert diary.lines == [
        f"in a {where} {what} on store" for where in ("cycle", "list") for what in ("ends", "has ended")
    ]


@rpcfw.service("tests.Flow")
class Flow:
    async def count(self) -> AsyncIterator[int]:
        for number in range(1_000):
            yield number
            await asyncio.sleep(0.1)

    async def add(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])


async def serve_flow(host: Host) -> None:
    async with rpcfw.serve(Flow(), listen="tcp://0.0.0.0:7000") as server:
        await server.wait_closed()


@pytest.mark.parametrize("victim", ["server", "client"])
@pytest.mark.parametrize("seed", range(5))
def test_a_crash_amid_streams_is_silent(
    victim: str, seed: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def count_slowly() -> AsyncIterator[int]:
        for number in range(1_000):
            yield number
            await asyncio.sleep(0.05)

    async def read(stub: Flow) -> None:
        async for _ in stub.count():
            pass

    async def call() -> None:
        async with rpcfw.connect("tcp://server:7000") as client:
            stub = client.stub(Flow)
            await asyncio.gather(read(stub), stub.add(count_slowly()), read(stub), return_exceptions=True)

    async def scenario(simulation: Simulation) -> None:
        simulation.host("server", serve_flow)
        working = simulation.host("client").call(call)
        await asyncio.sleep(3.0)
        simulation.hosts[victim].crash()
        gc.collect()
        await asyncio.sleep(100.0)
        assert working.done()
        gc.collect()
        await asyncio.sleep(1.0)

    simulate(scenario, seed)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


@pytest.mark.parametrize("what", ["crash", "stop"])
def test_a_host_cannot_end_itself(what: str) -> None:
    async def main(host: Host) -> None:
        await asyncio.sleep(1.0)
        ended = getattr(host, what)()
        if what == "stop":
            await ended

    async def scenario(simulation: Simulation) -> None:
        simulation.host("store", main)
        await asyncio.sleep(5.0)

    with pytest.raises(RuntimeError, match=f"store cannot {what} itself: call {what}"):
        simulate(scenario)


def test_an_orderly_stop_lets_code_tidy_up() -> None:
    diary = Diary()

    async def main(host: Host) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1.0)
            diary.note("tidied up")

    async def scenario(simulation: Simulation) -> float:
        host = simulation.host("store", main)
        await asyncio.sleep(1.0)
        host.pause()
        await host.stop()
        assert not host.is_up
        return simulation.elapsed_s

    assert simulate(scenario) == 2.0
    assert diary.lines == ["tidied up on store"]


def test_an_error_of_a_main_ends_the_run_and_one_of_a_call_is_its_callers() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def called(simulation: Simulation) -> None:
        with pytest.raises(ValueError, match="broken"):
            await simulation.host("client").call(fail)

    async def ran(simulation: Simulation) -> None:
        simulation.host("store", lambda host: fail())
        await asyncio.sleep(10.0)

    simulate(called)
    with pytest.raises(ValueError, match="broken") as caught:
        simulate(ran, 17)
    assert caught.value.__notes__ == ["seed 17"]


# ------------------------------------------------------------------------------------------------ pauses, clocks, disks


def test_a_paused_host_does_what_has_become_due_when_it_goes_on() -> None:
    async def scenario(simulation: Simulation) -> list[float]:
        done: list[float] = []

        async def main(host: Host) -> None:
            for _ in range(3):
                await asyncio.sleep(1.0)
                done.append(simulation.elapsed_s)

        host = simulation.host("store", main)
        await asyncio.sleep(1.5)
        host.pause()
        await asyncio.sleep(5.0)
        host.resume()
        await asyncio.sleep(5.0)
        return done

    assert simulate(scenario) == [1.0, 6.5, 7.5]


def test_a_clock_that_drifts_takes_its_timers_along() -> None:
    async def scenario(simulation: Simulation) -> list[tuple[float, float]]:
        slept: list[tuple[float, float]] = []

        async def main(host: Host) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(2):
                began_s = loop.time()
                await asyncio.sleep(10.0)
                slept.append((round(loop.time() - began_s, 6), round(simulation.elapsed_s, 6)))

        host = simulation.host("store")
        host.drift(2.0)
        running = host.run(main)
        await asyncio.sleep(7.0)
        host.drift(0.5)
        await running
        return slept

    assert simulate(scenario) == [(10.0, 5.0), (10.0, 19.0)]


def test_a_disk_that_rots_does_so_in_the_crashes_of_a_schedule() -> None:
    async def scenario(simulation: Simulation) -> bytes:
        async def main(host: Host) -> None:
            await asyncio.Event().wait()

        host = simulation.host("store", main)
        host.disk.bit_rot = 1.0
        with host.disk.open("data") as file:
            file.write(bytes(2_048))
            file.fsync()
        host.disk.fsync_dir()
        await simulation.inject(Schedule((Fault(1.0, "crash", ("store",), 1.0),)))
        return host.disk.open("data").read()

    rotten = simulate(scenario)
    assert sum(byte.bit_count() for byte in rotten) == 4  # one bit of each sector


def test_a_failure_names_the_seed_and_the_faults_in_the_text_of_a_schedule() -> None:
    schedule = Schedule.parse("1 s  pause  store  for 0.5 s\n2 s  lossy  *  for 1 s  probability 0.5")

    async def scenario(simulation: Simulation) -> None:
        simulation.host("store", lambda host: asyncio.sleep(1_000.0))
        await simulation.inject(schedule)
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong") as caught:
        simulate(scenario, 7)
    (note,) = caught.value.__notes__
    head, _, text = note.partition("\n")
    assert head == "seed 7, faults:"
    assert Schedule.parse(text) == schedule


async def test_a_simulation_cannot_be_played_from_a_coroutine() -> None:
    async def scenario(simulation: Simulation) -> None:
        raise AssertionError("it is not played")

    with pytest.raises(RuntimeError, match="play it from plain code"):
        simulate(scenario)
