"""Runs handlers: those that arrive together in one task, one after the other, until one of them has to wait.

A task costs more than many a handler does, and most handlers that are called often answer at once. One that waits keeps
the task to itself, and those after it get another. Nothing that a handler may leave in its task reaches the next one: a
changed context, a cancellation, or a reference to the task, by which others keep what belongs to it (sessions of a
database, cancel scopes), ends it. See docs/decisions/0003-dispatch.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from asyncio import Task
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from sys import getrefcount
from typing import Any, Protocol
from weakref import getweakrefcount

from rpcfw.call import Call, enter_call
from rpcfw.connection.exchange import Entry, ServerExchange

_ALONE = 32
"""So many calls of a method have a task each after one that had to wait."""


class Owner(Protocol):
    """Whose call it is."""

    async def run(self, exchange: ServerExchange, entry: Entry, call: Call, stream: int, /) -> None:
        """Run the handler, send what comes of it."""
        ...


Job = tuple[Owner, ServerExchange, Entry, Call, int]


class Runner:
    """Runs the handlers of one server, on the running loop, each in its turn. A `ServerExchange` knows its task.

    A call whose exchange has `ended` before its turn came is passed over.
    """

    __slots__ = ("_checking", "_context", "_entry", "_loop", "_make_task", "_queue", "_task", "_unbegun")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._make_task: Callable[..., Task[None]] | None = None
        self._context: Context
        self._queue: deque[Job] = deque()
        self._task: Task[None] | None = None
        """The one that takes from the queue: it has yet to begin, is at it, or waits in a handler."""
        self._unbegun = False
        self._entry: Entry | None = None
        """What `_task` runs."""
        self._checking = False
        """Somebody will look at what is queued, after the turn of `_task`."""

    def open(self) -> None:
        """Belong to the running loop. Must have been called before the first `add`; may be called again."""
        if self._make_task is None:
            self._loop = asyncio.get_running_loop()
            make_task: Any = getattr(self._loop, "make_task", Task)  # simulated loops have one
            self._make_task = make_task
            # of its own, for tasks would inherit that of whoever made the first call of a read
            self._context = copy_context()

    def add(self, job: Job) -> None:
        """Run a call after those that have come before it."""
        entry = job[2]
        if self._unbegun or self._queue:
            self._queue.append(job)
            if not self._checking:
                self._look_later()
        elif entry.alone:
            entry.alone -= 1
            self._make(self._work_alone(job), entry)
        else:
            self._start(job)

    def _start(self, job: Job) -> None:
        """With this call begins a task that takes from the queue."""
        if self._task is not None:
            self._leave()
        self._task, self._unbegun = self._make(self._work(job), job[2]), True

    def _make(self, work: Coroutine[Any, Any, None], entry: Entry) -> Task[None]:
        make, context = self._make_task, self._context.copy()
        assert make is not None
        return make(work, loop=self._loop, name=entry.codec.path, context=context)

    async def _work_alone(self, job: Job) -> None:
        owner, exchange, entry, call, stream = job
        if not exchange.ended:
            exchange.task = asyncio.current_task()
            enter_call(call)
            await owner.run(exchange, entry, call, stream)

    async def _work(self, job: Job) -> None:
        task, queue = self._task, self._queue
        assert task is not None
        self._unbegun = False
        if queue and not self._checking:
            self._look_later()
        references, weak_references = getrefcount(task), getweakrefcount(task)
        while True:
            owner, exchange, entry, call, stream = job
            if not exchange.ended:
                exchange.task = task
                self._entry = entry
                enter_call(call)
                before = copy_context()
                await owner.run(exchange, entry, call, stream)
                if self._task is not task:  # it had to wait
                    return
                if not queue or not (
                    copy_context() == before
                    and getrefcount(task) == references
                    and getweakrefcount(task) == weak_references
                    and not task.cancelling()
                ):
                    break
            elif not queue:
                break
            job = queue.popleft()
        self._task = None

    def _look_later(self) -> None:
        self._checking = True
        self._loop.call_soon(self._look, context=self._context)

    def _look(self) -> None:
        """After the turn of the task: what it has left is for others."""
        self._checking = False
        task, queue = self._task, self._queue
        if self._unbegun and task is not None:
            if not task.done():
                return  # it will look itself
            self._task, self._unbegun = None, False  # cancelled by somebody
        elif task is not None:
            self._leave()
        while queue:
            job = queue.popleft()
            if job[2].alone:
                self._make(self._work_alone(job), job[2])
                continue
            self._start(job)  # which looks for the others once it has begun
            return

    def _leave(self) -> None:
        """The task waits in a handler: it is that one's alone."""
        task, entry = self._task, self._entry
        assert task is not None
        self._task = None
        if entry is not None:
            entry.alone = _ALONE
            task.set_name(entry.codec.path)


@dataclasses.dataclass(slots=True)
class Load:
    """What all connections of a server share: what may run, and what runs now."""

    max_running: int
    dev: bool = False
    draining: bool = False
    running: int = 0
    served: int = 0
    refused: int = 0
    runner: Runner = dataclasses.field(default_factory=Runner)
