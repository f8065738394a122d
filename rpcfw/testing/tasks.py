"""Tasks and futures that hash alike in every run, and what can be said of a task that waits.

asyncio keeps tasks in sets, and so do services; a plain task hashes by its address, so that a set of them would
iterate differently in each process. What asyncio.gather returns is asyncio's own, and stays so.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from rpcfw.testing.clock import SimHost, current_host, host_of

if TYPE_CHECKING:
    from rpcfw.testing.loop import SimLoop

T = TypeVar("T")
_SHOWN_FRAMES = 4
_FEW_GENERATORS = 100
"""Generators that may have died unnoticed before the others are counted."""


class SimFuture(asyncio.Future[T]):
    """A future whose hash its loop gives out, when it is first asked for."""

    __slots__ = ("_hash",)
    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            loop: SimLoop = self.get_loop()  # type: ignore[assignment]  # made by this loop only
            self._hash = loop.next_hash()
            return self._hash

    def set_exception(self, exception: type | BaseException, /) -> None:
        """Fail it. What code does while its host crashes is nobody's to retrieve, so that is not asked for."""
        super().set_exception(exception)
        host = current_host()
        if host is not None and host.dead:
            self._log_traceback = False


class SimTask(asyncio.Task[T]):
    """A task whose hash, and name unless it is given one, its loop gives out; it knows its host.

    `number` counts the tasks of a loop, in the order they were made.
    """

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: SimLoop,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> None:
        self._hash = loop.next_hash()
        self.number = loop.next_task()
        self.host: SimHost | None = current_host() if context is None else host_of(context)
        own_name = f"Task-{self.number}" if name is None else str(name)
        super().__init__(coro, loop=loop, name=own_name, context=context, **options)

    def __hash__(self) -> int:
        return self._hash


class GeneratorsInOrder:
    """The asynchronous generators that still live, in the order they were first iterated, each with its host.

    Those of a host that has crashed are left out: nobody may run them on.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[AsyncGenerator[Any, Any]], weakref.ref[SimHost] | None]] = {}
        self._swept = 0

    def add(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep it, for as long as it lives, as one of the current host."""
        if len(self._kept) > 2 * self._swept + _FEW_GENERATORS:
            self._kept = {number: entry for number, entry in self._kept.items() if entry[0]() is not None}
            self._swept = len(self._kept)
        self.discard(generator)  # one that had this number before has died, and its place is not this one's
        host = current_host()
        self._kept[id(generator)] = weakref.ref(generator), None if host is None else weakref.ref(host)

    def discard(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Forget it."""
        self._kept.pop(id(generator), None)

    def take(self, generator: AsyncGenerator[Any, Any]) -> tuple[bool, SimHost | None]:
        """Forget one that is being finalized: whether it may still be run, and whose it is."""
        _, host = self._kept.pop(id(generator), (None, None))
        return _may_run(host), None if host is None else host()

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[AsyncGenerator[Any, Any]]:
        living = [(ref(), host) for ref, host in self._kept.values()]
        return (generator for generator, host in living if generator is not None and _may_run(host))


def _may_run(host: weakref.ref[SimHost] | None) -> bool:
    """Whether its code may: outside of hosts, or on one that has not crashed, let alone been forgotten since."""
    if host is None:
        return True
    known = host()
    return known is not None and not known.dead


def in_order(tasks: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Tasks in the order they were made; those that bypassed the loop come last, by name."""
    return sorted(tasks, key=lambda task: (getattr(task, "number", float("inf")), task.get_name()))


def waiting(task: asyncio.Task[Any]) -> str:
    """One line on a task: its name, its host, and what it waits for, outermost call first."""
    host = getattr(task, "host", None)
    on = "" if host is None else f" on {host.name}"
    steps: list[str] = []
    awaited: object = task.get_coro()
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        steps.append(
            f"{frame.f_code.co_qualname} ({PurePath(frame.f_code.co_filename).name}:{frame.f_lineno})"
        )
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    if len(steps) > _SHOWN_FRAMES:
        steps = [steps[0], "...", *steps[1 - _SHOWN_FRAMES :]]
    return f"{task.get_name()}{on}: {' > '.join(steps)}"


def _first(awaited: object, *names: str) -> Any:
    return next((found for name in names if (found := getattr(awaited, name, None)) is not None), None)
