"""Virtual time and the turns of a loop: what runs next, when, and in which order.

Hosts are clocks here, and owners of what is held back; tasks, futures and the network belong to `SimLoop`. After
trio's MockClock with autojump.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

from rpcfw.testing.clock import START_S, SimHost, current_host, host_of
from rpcfw.testing.guard import guarded
from rpcfw.testing.refusals import Unsimulated
from rpcfw.testing.tasks import in_order, waiting
from rpcfw.testing.timers import SimTimer, Timers

Ts = TypeVarTuple("Ts")

_RESTLESS_TURNS = 1_000_000
"""So many turns without having to wait for anything are a busy wait that would never end."""
_BUSY_TURNS, _BUSY_S = 1_000, 0.001
"""So many of them take so long, as what is waited for may need time. That ends no timeout of a second."""
_COLLECTED_EVERY = ((1_000_000, 2), (20_000, 1), (1_000, 0))
"""After how many turns which generation of garbage is collected; see `steady_garbage`."""


class Stuck(RuntimeError):
    """Nothing will ever happen again, or nothing new; the message lists what each task waits for."""


@contextlib.contextmanager
def steady_garbage() -> Iterator[None]:
    """Keep Python from collecting garbage when it likes: the loop does, after fixed numbers of turns.

    Finalizers schedule callbacks, and when Python collects by itself depends on all that the process did before. Who
    runs a loop more than once should stand in this context all the while.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class VirtualLoop(asyncio.BaseEventLoop):
    """The time and the turns of `SimLoop`, which says what its arguments mean."""

    is_simulated = True
    """What asks the running loop for this, such as a watchdog, lets its threads be."""
    _ready: deque[asyncio.Handle]
    _stopping: bool
    _closed: bool
    _debug: bool
    _thread_id: int | None

    if TYPE_CHECKING:

        def _check_closed(self) -> None: ...

    def __init__(self, seed: int = 0, *, permute: bool = False, limit_s: float | None = None) -> None:
        self.seed = seed
        self.turns = 0
        """How often the loop has turned."""
        self._now = START_S
        self._limit_s = math.inf if limit_s is None else limit_s
        self._ends_at = START_S + self._limit_s
        self._rested_at = 0  # the turn in which there was nothing to do but to wait
        self._timers = Timers()
        self._held: dict[SimHost, list[asyncio.Handle]] = {}
        self._buried = False
        self._rngs = 0
        self._order = self.rng("order") if permute else None
        super().__init__()

    def rng(self, name: str) -> random.Random:
        """A source of chance of its own, the same for one seed and name in every process."""
        return random.Random(f"{self.seed}/{name}")

    def new_rng(self) -> random.Random:
        """One more source of chance, for whoever asks first, second and so on; rpcfw's clients ask here for theirs."""
        self._rngs += 1
        return self.rng(f"asked for {self._rngs}")

    @contextlib.contextmanager
    def in_order(self) -> Iterator[None]:
        """Let what is ready run in asyncio's own order meanwhile, for code that relies on more than is promised."""
        order, self._order = self._order, None
        try:
            yield
        finally:
            self._order = order

    # ------------------------------------------------------------------------------------------------ time

    @property
    def host(self) -> SimHost | None:
        """The host that the running code belongs to."""
        return current_host()

    def time(self) -> float:
        """Seconds on the current host's clock; true time outside of hosts."""
        host = current_host()
        return self._now if host is None else host.local(self._now)

    def global_time(self) -> float:
        """Seconds of true time, which began at `START_S`."""
        return self._now

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call after so many seconds on the current host's clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call when the current host's clock shows `when`."""
        self._check_closed()
        timer = SimTimer(when, callback, args, self, context)
        timer.clock = current_host()
        self._timers.set(timer)
        return timer

    def call_at_global(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call at a true time, in a context without a host unless one is given. Equal times keep their order."""
        self._check_closed()
        timer = SimTimer(when, callback, args, self, contextvars.Context() if context is None else context)
        timer.clock = None
        self._timers.set(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]  # not one that has run, or is about to
            self._timers.cancelled()

    # ------------------------------------------------------------------------------------------------ hosts

    def clock_changed(self, host: SimHost) -> None:
        """A host's clock runs otherwise from now on: what it has set is due at another true time."""
        self._timers.clock_changed(host)

    def hold(self, host: SimHost) -> None:
        """Run nothing that belongs to a host until `release`; what becomes ready is kept, in order."""
        self._held.setdefault(host, [])

    def release(self, host: SimHost) -> None:
        """Let a host that was held run again, at once what has become ready."""
        self._ready.extend(self._held.pop(host, ()))

    def bury(self, host: SimHost) -> None:
        """Run nothing that belongs to a host ever again, as after a loss of power. It must be `dead` already."""
        self._buried = True
        self.drop_timers(host)
        self._held.pop(host, None)

    def drop_timers(self, host: SimHost) -> None:
        """Cancel every timer that a host has set."""
        self._timers.drop(host)

    def tasks(self, host: SimHost | None = None) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, of one host or of all, in the order they were made."""
        tasks = in_order(asyncio.all_tasks(self))
        hosts = ((task, getattr(task, "host", None)) for task in tasks)
        return [
            task for task, its in hosts if (its is host if host is not None else its is None or not its.dead)
        ]

    # ------------------------------------------------------------------------------------------------ turns

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call in the next turn."""
        if self._debug or self._closed:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As call_soon, from this thread only. Raises Unsimulated in another one."""
        if self._thread_id not in (None, threading.get_ident()):
            raise Unsimulated("a thread of its own", "use asyncio.to_thread, which the loop runs in line")
        return self.call_soon(callback, *args, context=context)

    def run_forever(self) -> None:
        """Run until `stop`. What would block or leave the simulation meanwhile raises Unsimulated. Raises Stuck."""
        with steady_garbage(), guarded():
            super().run_forever()

    def _run_once(self) -> None:
        turns = self.turns = self.turns + 1
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        restless = turns - self._rested_at
        if restless and not restless % _BUSY_TURNS:
            self._go_on(restless)
        if not turns % _COLLECTED_EVERY[-1][0]:
            gc.collect(next(generation for every, generation in _COLLECTED_EVERY if not turns % every))
        self._timers.move_due(self._now, ready)
        if self._order is not None and len(ready) > 1:
            _permute(ready, self._order)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if not ((self._held or self._buried) and self._holds_back(handle)):
                handle._run()

    def _holds_back(self, handle: asyncio.Handle) -> bool:
        host = host_of(handle._context)  # type: ignore[attr-defined]  # a handle always has one
        if host is None:
            return False
        if host.dead:
            return True
        if host not in self._held:
            return False
        self._held[host].append(handle)
        return True

    def _jump(self) -> None:
        due = self._timers.next_due()
        if due == math.inf:
            raise self._stuck("nothing is ready and there is no timer: nothing will ever happen")
        if due > self._ends_at:
            raise self._stuck(f"the limit of {self._limit_s:g} s has passed")
        if due > self._now:
            self._now, self._rested_at = due, self.turns

    def _go_on(self, turns: int) -> None:
        """There has been something to do in so many turns on end."""
        if turns >= _RESTLESS_TURNS:
            raise self._stuck(f"there was something to do in {turns} turns on end: something waits busily")
        self._now += _BUSY_S

    def _stuck(self, why: str) -> Stuck:
        self._rested_at = self.turns  # what is left gets turns and time to end in
        self._ends_at = self._now + self._limit_s
        lines = [f"{why} ({self._now - START_S:g} s after the start, seed {self.seed})"]
        lines += [f"  {waiting(task)}" for task in self.tasks()]
        lines += [f"  {host.name} is held, {len(kept)} callbacks ready" for host, kept in self._held.items()]
        return Stuck("\n".join(lines))

    # ------------------------------------------------------------------------------------------------ the end

    def close(self) -> None:
        """Close the loop, which must not be running; what was set or ready is dropped."""
        super().close()
        self._timers.clear()
        self._held.clear()

    def _process_events(self, event_list: object) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""


def _permute(ready: deque[asyncio.Handle], rng: random.Random) -> None:
    """Draw an order: what may move goes anywhere, the rest takes the places left, in its own order."""
    free = [_may_move(handle) for handle in ready]
    if not any(free):
        return
    fixed = iter([handle for handle, is_free in zip(ready, free, strict=True) if not is_free])
    drawn = [handle if is_free else None for handle, is_free in zip(ready, free, strict=True)]
    rng.shuffle(drawn)
    ready.clear()
    ready.extend(handle or next(fixed) for handle in drawn)


def _may_move(handle: asyncio.Handle) -> bool:
    if isinstance(handle, SimTimer):
        return handle.clock is not None  # those of the network stay in order, or its links would not
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]
