"""An event loop in which waiting takes no time and every run with one seed is the same.

The network lies under this loop: what asyncio and the transports ask of a loop reaches simulated hosts. Nothing here
knows how that network behaves, or what a host is beyond its clock. After trio's MockClock with autojump, and
FoundationDB's simulator (Zhou et al., "FoundationDB: A Distributed Unbundled Transactional Key Value Store", 2021, 4).
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

from rpcfw.testing.clock import context_on, current_host, settle
from rpcfw.testing.refusals import refusing
from rpcfw.testing.sockets import SimSockets
from rpcfw.testing.tasks import GeneratorsInOrder, SimFuture, SimTask
from rpcfw.testing.virtual import Stuck, VirtualLoop, steady_garbage

if TYPE_CHECKING:
    from rpcfw.testing.trace import Trace

__all__ = ["SimLoop", "Stuck", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_EAGER = getattr(asyncio, "eager_task_factory", None)  # from Python 3.12 on
_GRACE_S = 3_600.0
"""How long what is cancelled at the end may take."""


@refusing
class SimLoop(SimSockets, VirtualLoop):
    """asyncio's loop in virtual time, deterministic in its seed across processes and PYTHONHASHSEED.

    When nothing is ready the clock jumps to the next timer; when there is none either, running it raises `Stuck`. What
    would touch the real world raises `Unsimulated`, but ``time.sleep`` and other calls that block without the loop
    cannot be caught: they hold the whole simulation up for as long. Nor can the loop order sets of strings, which
    iterate by PYTHONHASHSEED, sets of objects that hash by address, or chance that comes from elsewhere than the seed.

    Args:
        seed: of all that is drawn here; `rng` derives further sources from it.
        permute: run what is ready in an order drawn from the seed: steps of tasks go anywhere within a turn, and so
            do timers that hosts have set, due in one turn. Plain callbacks keep their order among themselves, which
            asyncio promises. Sets of tasks and futures iterate in an order drawn from the seed as well.
        limit_s: true seconds after which running raises `Stuck`, and may go on as long again; None: no limit.
    """

    _executor_shutdown_called: bool

    def __init__(self, seed: int = 0, *, permute: bool = False, limit_s: float | None = None) -> None:
        super().__init__(seed, permute=permute, limit_s=limit_s)
        self.trace: Trace | None = None
        hashes = self.rng("hashes")
        self.next_hash: Callable[[], int] = (
            (lambda: hashes.getrandbits(60)) if permute else itertools.count(1).__next__
        )
        """A hash for a task or future."""
        self.next_task = itertools.count(1).__next__
        """A number for a task."""
        self._asyncgens = GeneratorsInOrder()

    # ------------------------------------------------------------------------------------------------ tasks

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future."""
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Make a task, as the task factory does if one is set; asyncio's eager one makes those of this loop."""
        if context is not None:
            settle(context)
        factory = self.get_task_factory()
        if factory is not None and factory is _EAGER:
            options["eager_start"] = True
        elif factory is not None:
            return super().create_task(coro, name=name, context=context, **options)
        self._check_closed()
        return SimTask(coro, loop=self, name=name, context=context, **options)

    def start_task(
        self, coro: Coroutine[Any, Any, T], *, loop: object = None, name: str | None = None
    ) -> asyncio.Task[T]:
        """Make a task that runs at once until it first waits, where Python can; as the server does for handlers."""
        eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        return SimTask(coro, loop=self, name=name, **eager)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call a function in the next turn, in a copy of this context; no executor and no thread runs it.

        As in a thread there is no running loop in the function, but one that waits for the loop waits for ever.
        """
        self._check_closed()
        if executor is None and self._executor_shutdown_called:
            raise RuntimeError("the default executor has been shut down; call it before the loop is closed")
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(self._run_in_line, future, func, args, context=contextvars.copy_context())
        return future

    def _run_in_line(self, future: asyncio.Future[T], func: Callable[..., T], args: tuple[Any, ...]) -> None:
        if future.cancelled():
            return
        asyncio._set_running_loop(None)
        try:
            result = func(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except StopIteration as error:  # no future takes one, and whoever waits would wait for ever
            told = RuntimeError(f"a function in an executor raised {error!r}")
            told.__cause__ = error
            future.set_exception(told)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            asyncio._set_running_loop(self)

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """End a generator that was dropped half way, on the host that began it; where that has crashed, not at all."""
        may_run, host = self._asyncgens.take(agen)
        if may_run and not self.is_closed():
            self.call_soon_threadsafe(self._end_generator, agen, context=context_on(host))

    def _end_generator(self, agen: AsyncGenerator[Any, Any]) -> None:
        self.create_task(agen.aclose())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell what went wrong, unless it is what a host that has crashed had left undone."""
        task = context.get("task") or context.get("future")
        host = task.host if isinstance(task, SimTask) else current_host()
        if host is None or not host.dead:
            super().call_exception_handler(context)

    # ------------------------------------------------------------------------------------------------ the end

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's
        """Refuse further calls of `run_in_executor` without an executor."""
        self._executor_shutdown_called = True

    def finish(self) -> None:
        """Cancel what is left, in the order it was made, wait for its end, and close the loop.

        Raises:
            Stuck: it does not end.
        """
        for host in [*self._held]:
            self.release(host)
        self._limit_s, self._ends_at = _GRACE_S, self.global_time() + _GRACE_S
        with steady_garbage():
            try:
                while left := self.tasks():
                    for task in left:
                        task.cancel()
                    self.run_until_complete(asyncio.wait(left))
                self.run_until_complete(self.shutdown_asyncgens())
            finally:
                self.close()


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    seed: int = 0,
    *,
    permute: bool = False,
    limit_s: float | None = None,
) -> T:
    """Run a coroutine function on a loop of its own, end what it leaves behind, and return what it returns.

    Raises:
        Stuck: it waits for what never happens.
    """
    with steady_garbage():
        loop = SimLoop(seed, permute=permute, limit_s=limit_s)
        try:
            return loop.run_until_complete(main())
        finally:
            loop.finish()
