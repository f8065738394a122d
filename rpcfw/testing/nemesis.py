"""The one who injects the faults of a schedule into a cluster, each at its time, and undoes them.

What a fault does to hosts and network is the cluster's affair; here is when, and what happens where faults overlap.
The name and the idea are Jepsen's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from rpcfw.testing.schedule import KINDS, Fault, Group, Kind, Schedule, random_schedule

__all__ = ["HEAL", "KINDS", "Cluster", "Fault", "Kind", "Nemesis", "Schedule", "random_schedule"]

HEAL = "heal"
"""What the trace calls the end of a fault, of whatever kind."""


class Cluster(Protocol):
    """What faults happen to. Only `crash` and `restart` take turns of the loop; the others act at once.

    Faults of the same host may overlap; the nemesis then calls these so that each is in force until its own end.
    """

    async def crash(self, host: str) -> None:
        """Cut its power. A host that is paused is no longer so afterwards: its pause went with its process."""
        ...

    async def restart(self, host: str) -> None:
        """Start it again after a crash, not paused. Its network is as slow and its clock as wrong as before."""
        ...

    def pause(self, host: str) -> None:
        """Stop its processor. Not called for a host that is paused or down."""
        ...

    def resume(self, host: str) -> None:
        """Let it go on after `pause`."""
        ...

    def partition(self, group_a: Group, group_b: Group, one_way: bool) -> None:
        """Lose what passes between the groups, if `one_way` only what `group_a` sends; they may be apart already."""
        ...

    def heal(self, group_a: Group, group_b: Group) -> None:
        """Let messages pass between the groups again, both ways."""
        ...

    def slow(self, host: str, factor: float) -> None:
        """Make its network so many times slower than usual; 1 is the usual. Also called while it is down."""
        ...

    def drift(self, host: str, rate: float) -> None:
        """Let its clock count so many seconds in a true one from now on; 1 is right. Also called while it is down."""
        ...

    def lossy(self, probability: float) -> None:
        """Lose so many more messages, everywhere, than the network's own conditions do; 0 is the usual."""
        ...

    def record(self, kind: str, host: str, text: str) -> None:
        """Note a fault in the trace; `host` is "" where it befalls more than hosts of their own."""
        ...


class Nemesis:
    """Injects faults. It keeps nothing between runs, and may run several schedules at a time if these share no host."""

    async def run(self, cluster: Cluster, schedule: Schedule) -> None:
        """Inject each fault at its time from now, and return when the last has been undone.

        When cancelled, and when the cluster raises, what is in force is undone before this ends; a crash or a restart
        that has begun is completed first. Run it outside of all hosts, where the loop's time is the true one.
        """
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        injection = _Injection(cluster)
        try:
            for when_s, begins, fault in _edges(schedule):
                wait_s = start_s + when_s - loop.time()
                if wait_s > 0.0:
                    await asyncio.sleep(wait_s)
                await _finish(injection.begin(fault) if begins else injection.end(fault))
        finally:
            await _finish(injection.end_all())


def _edges(schedule: Schedule) -> list[tuple[float, bool, Fault]]:
    """The beginnings and ends of faults in order: at the same time what ends goes before what begins."""
    begins = [(fault.at_s, True, fault) for fault in schedule]
    ends = [(fault.ends_s, False, fault) for fault in schedule]
    return sorted(begins + ends, key=lambda edge: edge[:2])


class _Injection:
    """The faults in force in one run, and the state they put the cluster in.

    A host is down, or paused, as long as any fault has it so. Of two values for one thing the one that came last holds.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._active: list[Fault] = []
        self._down: set[str] = set()
        self._paused: set[str] = set()

    async def begin(self, fault: Fault) -> None:
        self._record(fault, fault.kind, fault.columns()[3])
        self._active.append(fault)
        if fault.kind in ("partition", "one_way"):
            self._part(fault)
        else:
            await self._settle(fault)

    async def end(self, fault: Fault) -> None:
        self._record(fault, HEAL, f"{fault.kind} is over")
        self._active.remove(fault)
        if fault.kind in ("partition", "one_way"):
            self._cluster.heal(*fault.groups)
            # What two partitions have in common stays parted until both have ended.
            for other in self._active:
                if other.kind in ("partition", "one_way") and not set(fault.hosts).isdisjoint(other.hosts):
                    self._part(other)
        else:
            await self._settle(fault)

    async def end_all(self) -> None:
        """Undo what is still in force, the last first, and what an end that failed has left undone."""
        for fault in reversed(self._active.copy()):
            await self.end(fault)
        for host in sorted(self._down):
            await self._settle_power(host)

    def _part(self, fault: Fault) -> None:
        self._cluster.partition(*fault.groups, fault.kind == "one_way")

    async def _settle(self, fault: Fault) -> None:
        """Bring what this fault has begun or ceased to act on into the state that the faults in force ask for."""
        if fault.kind == "lossy":
            self._cluster.lossy(self._value(fault.kind, None, usual=0.0))
        for host in fault.hosts:
            if fault.kind == "slow":
                self._cluster.slow(host, self._value(fault.kind, host, usual=1.0))
            elif fault.kind == "drift":
                self._cluster.drift(host, self._value(fault.kind, host, usual=1.0))
            elif fault.kind == "crash":
                await self._settle_power(host)
            self._settle_pause(host)

    async def _settle_power(self, host: str) -> None:
        wanted = self._holds("crash", host)
        if wanted and host not in self._down:
            self._down.add(host)
            self._paused.discard(host)
            await self._cluster.crash(host)
        elif not wanted and host in self._down:
            self._down.remove(host)
            await self._cluster.restart(host)

    def _settle_pause(self, host: str) -> None:
        wanted = self._holds("pause", host) and host not in self._down
        if wanted and host not in self._paused:
            self._paused.add(host)
            self._cluster.pause(host)
        elif not wanted and host in self._paused:
            self._paused.remove(host)
            self._cluster.resume(host)

    def _holds(self, kind: Kind, host: str) -> bool:
        return any(fault.kind == kind and host in fault.hosts for fault in self._active)

    def _value(self, kind: Kind, host: str | None, *, usual: float) -> float:
        values = [f.value for f in self._active if f.kind == kind and (host is None or host in f.hosts)]
        return values[-1] if values else usual

    def _record(self, fault: Fault, kind: str, text: str) -> None:
        if fault.kind in ("partition", "one_way"):
            self._cluster.record(kind, "", f"{fault.columns()[2]}  {text}")
        else:
            for host in fault.hosts or ("",):
                self._cluster.record(kind, host, text)


async def _finish(act: Coroutine[Any, Any, None]) -> None:
    """Carry an act through, even if cancelled meanwhile, and only then be cancelled."""
    task = asyncio.ensure_future(act)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    task.result()
