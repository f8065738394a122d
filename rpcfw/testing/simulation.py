"""A cluster of simulated hosts: loop, network, trace and hosts of one seed, and the scenario that plays on them.

The scenario runs on a host of its own, ``test``, and may make calls as any client does. What it does to the others
(crash, partition, pause) it does through the simulation, which is also the cluster of a `Nemesis`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from rpcfw.testing.clock import START_S, context_on
from rpcfw.testing.conditions import Conditions
from rpcfw.testing.host import Host, Main
from rpcfw.testing.loop import SimLoop
from rpcfw.testing.nemesis import Nemesis
from rpcfw.testing.network import Network
from rpcfw.testing.schedule import Schedule
from rpcfw.testing.trace import Trace
from rpcfw.testing.virtual import steady_garbage

T = TypeVar("T")
Group = str | Iterable[str]
SCENARIO = "test"
"""The host that the scenario runs on."""


class Simulation:
    """Everything of one run.

    Args:
        seed: of all chance; the same seed gives the same run.
        permute: also draw the order in which tasks that are ready run.
        conditions: of the network.
        limit_s: virtual seconds after which the run fails, as it waits for what never happens.
        keep_events: how many of the latest events the trace keeps in memory.

    Attributes:
        loop: the event loop.
        network: the network under it.
        trace: what happened.
        rng: chance for the scenario itself.
        hosts: by name.
        schedules: the faults that were injected, for whoever reports a failure.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        permute: bool = True,
        conditions: Conditions | None = None,
        limit_s: float | None = 86_400.0,
        keep_events: int = 100_000,
    ) -> None:
        self.seed = seed
        self.loop = SimLoop(seed, permute=permute, limit_s=limit_s)
        self.trace = Trace(self.loop.global_time, keep=keep_events)
        self.network = Network(self.loop.rng("network"), trace=self.trace, default=conditions)
        self.loop.network = self.network
        self.rng = self.loop.rng("scenario")
        self.hosts: dict[str, Host] = {}
        self.schedules: list[Schedule] = []
        self._failure: asyncio.Future[BaseException] | None = None

    @property
    def elapsed_s(self) -> float:
        """True seconds since the start."""
        return self.loop.global_time() - START_S

    def host(self, name: str, main: Main | None = None) -> Host:
        """The host of that name, made when it is first asked for; with `main` it runs that at once."""
        host = self.hosts.get(name)
        if host is None:
            host = Host(name, self.loop, self.network, self.loop.rng(f"disk of {name}"), self)
            self.hosts[name] = host
        if main is not None:
            host.run(main)
        return host

    def run(self, scenario: Callable[[Simulation], Coroutine[Any, Any, T]]) -> T:
        """Play a scenario to its end, end what it leaves behind, and return what it returns. Once only.

        The `random` module is seeded meanwhile, and put back as it was.
        """
        _refuse_in_coroutines()
        before = random.getstate()
        random.seed(f"{self.seed}/random")
        try:
            with steady_garbage():
                try:
                    return self.loop.run_until_complete(self._play(scenario))
                finally:
                    for host in self.hosts.values():
                        host.resume()
                    self.loop.finish()
        finally:
            random.setstate(before)

    async def _play(self, scenario: Callable[[Simulation], Coroutine[Any, Any, T]]) -> T:
        playing = self.host(SCENARIO).call(lambda: scenario(self))
        self._failure = failure = self.loop.create_future()
        await asyncio.wait([playing, failure], return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            raise failure.result()
        return await playing

    # ------------------------------------------------------------------------------- what happens to the cluster

    async def crash(self, host: str) -> None:
        """Take a host's power."""
        self.hosts[host].crash()

    async def restart(self, host: str) -> None:
        """Switch a host on again after a crash."""
        self.hosts[host].restart()

    def pause(self, host: str) -> None:
        """Stop a host's processor."""
        self.hosts[host].pause()

    def resume(self, host: str) -> None:
        """Let it go on."""
        self.hosts[host].resume()

    def partition(self, group_a: Group, group_b: Group, one_way: bool = False) -> None:
        """Lose what passes between two groups of hosts; if `one_way` only what the first sends."""
        self.network.partition(group_a, group_b, one_way)

    def heal(self, group_a: Group = (), group_b: Group = ()) -> None:
        """Let messages pass between two groups again, both ways; between all hosts when none are given."""
        self.network.heal(group_a, group_b)

    def slow(self, host: str, factor: float) -> None:
        """Make a host's network so many times slower; 1 is the usual."""
        self.network.slow(host, factor)

    def drift(self, host: str, rate: float) -> None:
        """Let a host's clock count so many seconds in each true one; 1 is right."""
        self.hosts[host].drift(rate)

    def lossy(self, probability: float) -> None:
        """Lose so many more messages than usual, everywhere; 0 is the usual."""
        self.network.lossy(probability)

    def record(self, kind: str, host: str, text: str = "") -> None:
        """Note what the nemesis, or a scenario, says of a fault; what comes of it is noted where it happens."""
        self.trace.record("note", host, f"{kind}: {text}" if text else kind)

    def saw(self, kind: str, host: str, text: str = "") -> None:
        """A host tells what happened to it."""
        self.trace.record(kind, host, text)

    def failed(self, host: str, error: BaseException) -> None:
        """The main of a host has raised an error: end the run with it."""
        self.trace.record("failed", host, f"{type(error).__name__}: {error}")
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)

    def faults(self) -> str:
        """The schedules injected so far, in the text that `Schedule.parse` reads; empty where there were none."""
        return "\n\n".join(str(schedule) for schedule in self.schedules)

    def inject(self, schedule: Schedule) -> asyncio.Task[None]:
        """Let the faults of a schedule befall the cluster from now on; the task ends when the last is undone."""
        self.schedules.append(schedule)
        run = Nemesis().run(self, schedule)
        return self.loop.create_task(run, name="nemesis", context=context_on(None))


def simulate(
    scenario: Callable[[Simulation], Coroutine[Any, Any, T]],
    seed: int = 0,
    *,
    permute: bool = True,
    conditions: Conditions | None = None,
    limit_s: float | None = 86_400.0,
) -> T:
    """Play a scenario on a cluster of its own; the same seed plays the same.

    Raises what the scenario raises, with a note that names the seed and the faults that were injected.
    """
    _refuse_in_coroutines()
    simulation = Simulation(seed, permute=permute, conditions=conditions, limit_s=limit_s)
    try:
        return simulation.run(scenario)
    except Exception as error:
        faults = simulation.faults()
        error.add_note(f"seed {seed}, faults:\n{faults}" if faults else f"seed {seed}")
        raise


def _refuse_in_coroutines() -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "a simulation runs a loop of its own: play it from plain code, not from a coroutine"
        )
