"""A simulated host: a disk, a clock that may be wrong, and processes that crash, restart, pause and stop.

What a crash means follows from its three parts: the network host loses its power, the disk keeps what a disk keeps, and
no code of the old life ever runs again. After FoundationDB's simulated machines (Zhou et al., SIGMOD 2021).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, Protocol, TypeVar

from rpcfw.testing.clock import START_S, context_on, current_host
from rpcfw.testing.disk import Disk
from rpcfw.testing.loop import SimLoop
from rpcfw.testing.network import Network

T = TypeVar("T")
Main = Callable[["Host"], Coroutine[Any, Any, Any]]
"""What a host runs; called again after each restart."""


_MOST_WAITS = 1000
"""How often a coroutine that is being closed may wait for something new."""


class Crashed(Exception):
    """The host that was to give a result has crashed."""


class Watcher(Protocol):
    """Who is told what happens to hosts."""

    def saw(self, kind: str, host: str, text: str = "") -> None:
        """Note it."""

    def failed(self, host: str, error: BaseException) -> None:
        """The main of a host has raised an error."""


class Life:
    """A host from one boot to the next crash: the identity that tasks, timers and callbacks carry.

    Attributes:
        host: whose life it is.
        dead: its power is gone; the loop runs nothing of it any more.
        mains: what was started on it from outside.
        results: what they are to give.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.dead = False
        self.mains: set[asyncio.Task[Any]] = set()
        self.results: set[asyncio.Future[Any]] = set()

    def __repr__(self) -> str:
        return f"<life of {self.name}{', over' if self.dead else ''}>"

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    def local(self, true_s: float, /) -> float:
        """What the host's clock shows at a true time."""
        return self.host.local(true_s)

    def true(self, local_s: float, /) -> float:
        """When the host's clock shows that time."""
        return self.host.true(local_s)


class Host:
    """One machine of a simulated cluster. Make it with `Simulation.host`.

    Attributes:
        name: how others reach it: ``tcp://name:7000``.
        disk: what it keeps over a crash, as far as it was synced.
        crashes: how often it has crashed.
    """

    def __init__(
        self, name: str, loop: SimLoop, network: Network, rng: random.Random, watcher: Watcher
    ) -> None:
        self.name = name
        self.disk = Disk(rng)
        self.crashes = 0
        self._loop = loop
        self._network = network
        self._watcher = watcher
        self._address = network.host(name).address
        self._main: Main | None = None
        self._life: Life | None = None
        self._paused = False
        self._rate, self._true_from, self._local_from = 1.0, START_S, START_S

    def __repr__(self) -> str:
        state = "down" if self._life is None else "paused" if self._paused else "up"
        return f"<Host {self.name} ({self._address}), {state}>"

    @property
    def is_up(self) -> bool:
        """Whether it has power; a paused host has."""
        return self._life is not None

    # ------------------------------------------------------------------------------------------- the clock

    def local(self, true_s: float) -> float:
        """What its clock shows at a true time."""
        return self._local_from + (true_s - self._true_from) * self._rate

    def true(self, local_s: float) -> float:
        """When its clock shows that time."""
        return self._true_from + (local_s - self._local_from) / self._rate

    def drift(self, rate: float) -> None:
        """Let its clock count `rate` seconds in each true one from now on; 1 is right."""
        if not rate > 0:
            raise ValueError(f"rate={rate!r} must be above 0: a clock does not stand still or go back")
        now = self._loop.global_time()
        self._local_from, self._true_from, self._rate = self.local(now), now, rate
        if self._life is not None:
            self._loop.clock_changed(self._life)

    # ------------------------------------------------------------------------------------------ life and death

    def run(self, main: Main) -> asyncio.Future[Any]:
        """Switch it on, or use it as it runs, and run `main(host)` on it, again after each restart.

        Returns a future of what this run gives; a crash fails it with `Crashed`. An error that it raises fails the
        whole simulation, as a service that ends by itself is a fault of its own.
        """
        self._main = main
        result = self._start(main, f"main of {self.name}")
        result.add_done_callback(self._main_ended)
        return result

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run one coroutine function on it, such as a client's calls. What it raises is its caller's affair."""
        return self._start(lambda _: function(), f"call on {self.name}")

    def _start(self, main: Main, name: str) -> asyncio.Future[Any]:
        if self._life is None:
            self._life = Life(self)
            self.disk.powered = True
            if not self._network.host(self.name).alive:
                self._network.restore(self.name)
        result: asyncio.Future[Any] = self._loop.create_future()
        context = context_on(self._life)
        task = self._loop.create_task(main(self), name=name, context=context)
        self._life.results.add(result)
        result.add_done_callback(self._life.results.discard)
        self._life.mains.add(task)  # nobody else need know of it, and asyncio itself does not keep tasks
        task.add_done_callback(self._life.mains.discard)
        task.add_done_callback(lambda ended: _pass_on(ended, result), context=Context())
        return result

    def _main_ended(self, result: asyncio.Future[Any]) -> None:
        error = None if result.cancelled() else result.exception()
        if error is not None and not isinstance(error, Crashed):
            self._watcher.failed(self.name, error)

    def crash(self, *, torn: bool = True, bit_rot: float | None = None) -> None:
        """Take its power: nothing it was doing goes on, its links vanish, its disk keeps what was synced.

        `torn` and `bit_rot` are those of `Disk.crash`. Coroutines are closed where they wait; what their ``finally``
        blocks do goes nowhere.
        """
        life = self._life
        if life is None:
            return
        self._check_outside(life, "crash")
        self._watcher.saw("crash", self.name)
        self.crashes += 1
        self._life, self._paused, life.dead = None, False, True
        self._network.cut(self.name)
        for line in self.disk.crash(torn=torn, bit_rot=bit_rot):
            self._watcher.saw("disk", self.name, line)
        self.disk.powered = False  # what the old life still writes goes nowhere
        self._loop.bury(life)
        context = context_on(life)
        ended: set[asyncio.Task[Any]] = set()
        with _no_logs():
            while left := [task for task in self._loop.tasks(life) if task not in ended]:
                for task in left:  # and those that the end of others begins
                    context.copy().run(_close, task)
                    ended.add(task)
        for result in [*life.results]:
            result.set_exception(Crashed(f"{self.name} crashed"))
            result.exception()  # nobody may be waiting

    def restart(self) -> asyncio.Future[Any]:
        """Switch it on again after a crash, and run its main on what the disk kept. Raises RuntimeError if it is up."""
        if self._life is not None:
            raise RuntimeError(f"{self.name} is up; crash() or stop() it first")
        if self._main is None:
            raise RuntimeError(f"{self.name} never ran anything; give it a main with run(main)")
        self._watcher.saw("restart", self.name)
        return self.run(self._main)

    def pause(self) -> None:
        """Stop its processor, as SIGSTOP does; the network goes on to deliver into its buffers."""
        if self._life is not None and not self._paused:
            self._paused = True
            self._watcher.saw("pause", self.name)
            self._loop.hold(self._life)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._life is not None and self._paused:
            self._paused = False
            self._watcher.saw("resume", self.name)
            self._loop.release(self._life)

    async def stop(self) -> None:
        """Cancel what runs on it and wait for its end, as SIGTERM does; then it is off. Call it from outside."""
        life = self._life
        if life is None:
            return
        self._check_outside(life, "stop")
        self.resume()
        while tasks := self._loop.tasks(life):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self._watcher.saw("stop", self.name)
        self._life, life.dead = None, True
        self._network.cut(self.name)
        self._loop.bury(life)

    def _check_outside(self, life: Life, what: str) -> None:
        if current_host() is life:
            raise RuntimeError(
                f"{self.name} cannot {what} itself: call {what}() from outside, such as the scenario"
            )


@contextlib.contextmanager
def _no_logs() -> Iterator[None]:
    """Let nothing be logged: no line of a log comes from a host without power, and one would keep its frames alive."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _close(task: asyncio.Task[Any]) -> None:
    """End a task where it waits, and where it waits for something at its end, there too."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it ends nowhere, and that is meant
    running: Any = task.get_coro()
    for _ in range(_MOST_WAITS):
        with contextlib.suppress(BaseException):  # it will not run on, whatever it says
            running.close()
        if inspect.getcoroutinestate(running) == inspect.CORO_CLOSED:
            return


def _pass_on(task: asyncio.Task[Any], result: asyncio.Future[Any]) -> None:
    if result.done():
        return
    if task.cancelled():
        result.cancel()
    elif (error := task.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(task.result())
