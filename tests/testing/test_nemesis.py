"""Faults in a cluster that only notes what is done to it: when, in what order, and that all of it is undone."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from rpcfw.testing.nemesis import HEAL, Nemesis
from rpcfw.testing.schedule import Schedule, random_schedule
from tests.calls.virtual import now, virtual_time

HOSTS = ("a", "b", "c", "d", "e")
EVERY_KIND = Schedule.parse(
    """
    1 s  crash      a         for 2 s
    2 s  pause      b         for 2 s
    3 s  partition  a,b | c   for 2 s
    4 s  one_way    a -> b,c  for 2 s
    5 s  slow       c         for 2 s  factor 10
    6 s  drift      a         for 2 s  rate 1.5
    7 s  lossy      *         for 2 s  probability 0.25
    """
)


class NotedCluster:
    """A cluster that notes what is done to it, holds the state this leads to, and refuses what no nemesis may do."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.done: list[str] = []
        self.recorded: list[tuple[float, str, str]] = []
        self.down: set[str] = set()
        self.paused: set[str] = set()
        self.parted: set[tuple[str, str]] = set()
        self.slowness: dict[str, float] = {}
        self.rates: dict[str, float] = {}
        self.loss = 0.0
        self.refuses = ""

    async def crash(self, host: str) -> None:
        assert host not in self.down
        self.note(f"crash {host}")
        self.down.add(host)
        self.paused.discard(host)
        await asyncio.sleep(self.takes_s)
        self.note(f"crashed {host}")

    async def restart(self, host: str) -> None:
        assert host in self.down
        self.note(f"restart {host}")
        await asyncio.sleep(self.takes_s)
        if host == self.refuses:
            raise OSError(f"{host} does not start")
        self.down.remove(host)

    def pause(self, host: str) -> None:
        assert host not in self.paused | self.down
        self.note(f"pause {host}")
        self.paused.add(host)

    def resume(self, host: str) -> None:
        assert host in self.paused
        self.note(f"resume {host}")
        self.paused.remove(host)

    def partition(self, group_a: tuple[str, ...], group_b: tuple[str, ...], one_way: bool) -> None:
        self.note(f"partition {','.join(group_a)} {'->' if one_way else '|'} {','.join(group_b)}")
        self.parted.update(itertools.product(group_a, group_b))
        if not one_way:
            self.parted.update(itertools.product(group_b, group_a))

    def heal(self, group_a: tuple[str, ...], group_b: tuple[str, ...]) -> None:
        self.note(f"heal {','.join(group_a)} | {','.join(group_b)}")
        self.parted.difference_update(
            itertools.product(group_a, group_b), itertools.product(group_b, group_a)
        )

    def slow(self, host: str, factor: float) -> None:
        self.note(f"slow {host} {factor:g}")
        self.slowness[host] = factor

    def drift(self, host: str, rate: float) -> None:
        self.note(f"drift {host} {rate:g}")
        self.rates[host] = rate

    def lossy(self, probability: float) -> None:
        self.note(f"lossy {probability:g}")
        self.loss = probability

    def record(self, kind: str, host: str, text: str) -> None:
        self.recorded.append((round(now(), 9), kind, host))
        assert text

    def note(self, what: str) -> None:
        self.done.append(f"{round(now(), 9):g} {what}")

    def is_whole(self) -> bool:
        usual = set(self.slowness.values()) | set(self.rates.values()) <= {1.0} and self.loss == 0.0
        return usual and not self.down and not self.paused and not self.parted


async def done_by(text: str) -> list[str]:
    """What a schedule does to a cluster, which must be whole afterwards."""
    cluster = NotedCluster()
    await Nemesis().run(cluster, Schedule.parse(text))
    assert cluster.is_whole()
    return [what for what in cluster.done if "crashed" not in what]


# ------------------------------------------------------------------------------------------------- injection


@virtual_time
async def test_each_fault_comes_at_its_time_and_is_undone_at_its_end() -> None:
    cluster = NotedCluster()
    await Nemesis().run(cluster, EVERY_KIND)
    assert cluster.done == [
        "1 crash a",
        "1 crashed a",
        "2 pause b",
        "3 restart a",
        "3 partition a,b | c",
        "4 resume b",
        "4 partition a -> b,c",
        "5 heal a,b | c",
        "5 partition a -> b,c",
        "5 slow c 10",
        "6 heal a | b,c",
        "6 drift a 1.5",
        "7 slow c 1",
        "7 lossy 0.25",
        "8 drift a 1",
        "9 lossy 0",
    ]
    assert cluster.is_whole()
    assert now() == pytest.approx(9.0)


@virtual_time
async def test_the_trace_has_each_fault_and_its_end_on_the_host_or_on_the_network() -> None:
    cluster = NotedCluster()
    await Nemesis().run(cluster, EVERY_KIND)
    assert [event for event in cluster.recorded if event[1] != HEAL] == [
        (1.0, "crash", "a"),
        (2.0, "pause", "b"),
        (3.0, "partition", ""),
        (4.0, "one_way", ""),
        (5.0, "slow", "c"),
        (6.0, "drift", "a"),
        (7.0, "lossy", ""),
    ]
    assert [event for event in cluster.recorded if event[1] == HEAL] == [
        (float(at), HEAL, host)
        for at, host in zip(range(3, 10), ["a", "b", "", "", "c", "a", ""], strict=True)
    ]


@virtual_time
async def test_times_count_from_the_start_of_the_run_and_a_slow_crash_delays_only_what_it_must() -> None:
    await asyncio.sleep(5)
    cluster = NotedCluster(takes_s=2.0)
    schedule = Schedule.parse("1 s crash a for 1 s\n2.5 s slow b for 5 s factor 2")
    await Nemesis().run(cluster, schedule)
    assert cluster.done == ["6 crash a", "8 crashed a", "8 restart a", "10 slow b 2", "12.5 slow b 1"]


@virtual_time
async def test_a_schedule_without_faults_does_nothing() -> None:
    assert await done_by("") == []


# ---------------------------------------------------------------------------------------------------- overlap


@virtual_time
async def test_a_host_that_is_down_is_not_crashed_again_and_stays_down_until_the_last_crash_ends() -> None:
    assert await done_by("1 s crash a,b for 4 s\n2 s crash a for 1 s\n4 s crash b for 4 s") == [
        "1 crash a",
        "1 crash b",
        "5 restart a",
        "8 restart b",
    ]


@virtual_time
async def test_a_pause_waits_for_the_restart_of_a_host_that_is_down() -> None:
    assert await done_by("1 s crash a for 4 s\n2 s pause a for 5 s") == [
        "1 crash a",
        "5 restart a",
        "5 pause a",
        "7 resume a",
    ]


@virtual_time
async def test_a_pause_that_ends_while_the_host_is_down_leaves_nothing_to_resume() -> None:
    assert await done_by("1 s pause a for 3 s\n2 s crash a for 4 s") == [
        "1 pause a",
        "2 crash a",
        "6 restart a",
    ]


@virtual_time
async def test_a_crash_takes_a_pause_with_it_which_comes_back_with_the_host() -> None:
    assert await done_by("1 s pause a for 9 s\n2 s crash a for 2 s") == [
        "1 pause a",
        "2 crash a",
        "4 restart a",
        "4 pause a",
        "10 resume a",
    ]


@virtual_time
async def test_two_pauses_are_one_until_the_last_ends() -> None:
    assert await done_by("1 s pause a for 3 s\n2 s pause a,b for 4 s") == [
        "1 pause a",
        "2 pause b",
        "6 resume a",
        "6 resume b",
    ]


@virtual_time
async def test_the_last_value_holds_and_the_one_before_comes_back() -> None:
    assert await done_by(
        "1 s slow a for 9 s factor 5\n2 s slow a for 2 s factor 50\n1 s lossy * for 2 s probability 0.5\n"
        "2 s lossy * for 2 s probability 0.1\n1 s drift a for 1 s rate 2\n2 s drift a for 1 s rate 0.5"
    ) == [
        "1 slow a 5",
        "1 lossy 0.5",
        "1 drift a 2",
        "2 drift a 1",
        "2 slow a 50",
        "2 lossy 0.1",
        "2 drift a 0.5",
        "3 lossy 0.1",
        "3 drift a 1",
        "4 slow a 5",
        "4 lossy 0",
        "10 slow a 1",
    ]


@virtual_time
async def test_what_two_partitions_have_in_common_stays_parted_until_both_have_ended() -> None:
    cluster = NotedCluster()
    running = asyncio.ensure_future(
        Nemesis().run(cluster, Schedule.parse("1 s partition a | b,c for 2 s\n2 s one_way c -> a,b for 3 s"))
    )
    await asyncio.sleep(1.5)
    assert cluster.parted == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
    await asyncio.sleep(2)
    assert cluster.parted == {("c", "a"), ("c", "b")}
    await running
    assert cluster.is_whole()


@virtual_time
async def test_random_schedules_leave_the_cluster_as_it_was_and_obey_its_contract() -> None:
    for seed in range(200):
        print("seed", seed)
        schedule = random_schedule(random.Random(seed), HOSTS, 60.0, mean_gap_s=1.0)
        cluster = NotedCluster()
        start_s = now()
        await Nemesis().run(cluster, schedule)
        assert cluster.is_whole()
        assert now() - start_s < 60.0


# --------------------------------------------------------------------------------------- cancellation, errors


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5])
def test_cancellation_undoes_what_is_in_force_and_leaves_the_rest(after_s: float) -> None:
    @virtual_time
    async def cancelled() -> None:
        cluster = NotedCluster()
        running = asyncio.ensure_future(Nemesis().run(cluster, EVERY_KIND))
        await asyncio.sleep(after_s)
        before = len(cluster.done)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert cluster.is_whole()
        assert now() == pytest.approx(after_s)
        assert before == len(cluster.done) if after_s < 1 else before < len(cluster.done)

    cancelled()


@virtual_time
async def test_what_is_in_force_is_undone_from_the_last_to_the_first() -> None:
    cluster = NotedCluster()
    schedule = Schedule.parse("1 s slow a for 9 s factor 2\n2 s pause b for 9 s\n3 s crash a for 9 s")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4):
            await Nemesis().run(cluster, schedule)
    assert cluster.done[-3:] == ["4 restart a", "4 resume b", "4 slow a 1"]


@virtual_time
async def test_a_crash_that_is_under_way_is_completed_before_cancellation_undoes_it() -> None:
    cluster = NotedCluster(takes_s=1.0)
    running = asyncio.ensure_future(Nemesis().run(cluster, Schedule.parse("1 s crash a,b for 9 s")))
    await asyncio.sleep(1.5)
    running.cancel()
    await asyncio.sleep(3)
    running.cancel()  # while it restarts the hosts
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cluster.done == [
        "1 crash a",
        "2 crashed a",
        "2 crash b",
        "3 crashed b",
        "3 restart a",
        "4 restart b",
    ]
    assert cluster.is_whole()


@virtual_time
async def test_an_error_of_the_cluster_is_raised_after_the_rest_has_been_undone() -> None:
    cluster = NotedCluster()
    cluster.refuses = "a"
    schedule = Schedule.parse(
        "1 s slow c for 9 s factor 2\n1 s crash a,b for 2 s\n2 s lossy * for 9 s probability 0.5"
    )
    with pytest.raises(OSError, match="a does not start"):
        await Nemesis().run(cluster, schedule)
    assert cluster.done[-4:] == ["3 restart a", "3 lossy 0", "3 slow c 1", "3 restart b"]
    assert cluster.down == {"a"}
