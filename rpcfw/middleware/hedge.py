"""Hedge: a call that takes longer than usual is made a second time at another node, and the first answer counts.

Dean & Barroso, "The Tail at Scale" (CACM 2013): a copy sent after the 95th percentile costs some 5 % more calls and
cuts the tail. Failures and pushback are treated as gRPC's A6 has them: an answer ends the race, a failure does not.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Coroutine
from typing import Any

import msgspec

from rpcfw.call import Call, Handler, Route
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.interface import CallKind, MethodSpec
from rpcfw.limiter.budget import RetryBudget
from rpcfw.mistakes import check_instance, check_number

_FAILURES = frozenset(
    {
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)
"""What speaks against the node rather than the call; everything else is an answer, and the same at any node."""
_LATENCIES = 128
_ENOUGH = 20
"""So many calls of a method are to be seen before their percentile is believed."""
_EACH = 16
"""The percentile is worked out anew after so many."""
_LEAST_S = 0.001
"""What takes less is not worth a second call."""
_MAX_METHODS = 1024


class Hedge:
    """Middleware of clients that makes a slow call again while the first one still runs.

    Only unary calls of methods that are declared idempotent; all others pass untouched, as do calls that are pinned to
    one node or meant for all of them. When one attempt answers, the others are cancelled, and their servers told. An
    attempt that fails does not lose the others; a server that pushes back (RESOURCE_EXHAUSTED, or `retry_after_s` among
    the details) ends the hedging of that call.

    A call that ends in time costs a `Route`, and no task: the first attempt runs in the caller's, and one timer serves
    all calls.

    Args:
        after_s: when the next attempt is made, in seconds; with `percentile`, what holds until enough calls were seen.
        percentile: of the latencies of the method's last calls, above 0 and below 1; takes the place of `after_s` as
            soon as 20 are known. 0.95 when neither is given.
        max_hedges: attempts beside the first.
        budget: bounds how many of all calls are hedged; such as that of the client's `Retry`, which deposits for each
            call. One of its own, a hedge for ten calls, unless given.
    """

    def __init__(
        self,
        after_s: float | None = None,
        *,
        percentile: float | None = None,
        max_hedges: int = 1,
        budget: RetryBudget | None = None,
    ) -> None:
        for name, number in {"after_s": after_s, "percentile": percentile}.items():
            if number is not None:
                check_number(number, name)
        check_number(max_hedges, "max_hedges")
        if budget is not None:
            check_instance(budget, "budget", RetryBudget, "RetryBudget()")
        if after_s is not None and not after_s >= 0:
            raise ValueError(f"after_s={after_s!r} must be 0 or more seconds")
        if percentile is not None and not 0 < percentile < 1:
            raise ValueError(f"percentile={percentile!r} must be above 0 and below 1, such as 0.95")
        if max_hedges < 1:
            raise ValueError(f"max_hedges={max_hedges} must be at least 1")
        self.budget = budget or RetryBudget()
        self._deposits = budget is None
        self._after_s = after_s
        self._percentile = 0.95 if after_s is None and percentile is None else percentile
        self._max_hedges = max_hedges
        self._latencies: dict[MethodSpec, _Latencies] = {}
        self._waiting = _Waiting()
        self._ending: set[asyncio.Task[Any]] = set()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        @functools.wraps(handler)  # so that others see what stands behind
        async def hedge(call: Call) -> Any:
            method, route = call.method, call.route
            if not method.idempotent or method.kind is not CallKind.UNARY or method.oneway:
                if route is not None:
                    why = "it is not declared idempotent" if not method.idempotent else "only unary calls are"
                    route.note(asyncio.get_running_loop().time(), "hedge", f"not hedged: {why}")
                return await handler(call)
            if route is None:
                call = msgspec.structs.replace(call, route=Route())
            elif route.every or route.pinned is not None:
                return await handler(call)
            loop = asyncio.get_running_loop()
            began = loop.time()
            if self._deposits:
                self.budget.deposit(began)
            latencies = self._latencies_of(method)
            race = _Race(self, handler, call, explained=route is not None)
            try:
                result = await race.run(self.delay_s(method))
            finally:
                race.close()
            if latencies is not None:
                latencies.add(loop.time() - began)
            return result

        return hedge

    def delay_s(self, method: MethodSpec) -> float:
        """After how many seconds a call of this method is hedged; `math.inf` while nothing is known."""
        if self._percentile is not None:
            latencies = self._latencies.get(method)
            if latencies is not None and latencies.count >= _ENOUGH:
                return max(_LEAST_S, latencies.percentile)
        return math.inf if self._after_s is None else self._after_s

    def _latencies_of(self, method: MethodSpec) -> _Latencies | None:
        if self._percentile is None:
            return None
        latencies = self._latencies.get(method)
        if latencies is None:
            if len(self._latencies) >= _MAX_METHODS:
                self._latencies.clear()
            latencies = self._latencies[method] = _Latencies(self._percentile)
        return latencies

    def _start(self, attempt: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(attempt)
        self._ending.add(task)  # losers end by themselves, but somebody has to hold them
        task.add_done_callback(self._ending.discard)
        return task


class _Race:
    """The attempts of one call: the first in the caller's task, the others in tasks of their own.

    When another one wins, the first is interrupted as `asyncio.timeout` does it: by a cancellation that is taken back.
    """

    __slots__ = ("_before", "_call", "_caller", "_delay_s", "_explained", "_handler", "_hedge", "_interrupted", "_left",
                 "_loop", "_running", "_waiter", "_won", "_won_metadata")  # fmt: skip

    def __init__(self, hedge: Hedge, handler: Handler, call: Call, *, explained: bool) -> None:
        self._hedge = hedge
        self._handler = handler
        self._call = call
        self._explained = explained
        self._loop = asyncio.get_running_loop()
        caller = asyncio.current_task()
        assert caller is not None
        self._caller = caller
        self._before = caller.cancelling()
        self._left = hedge._max_hedges
        self._delay_s = 0.0
        self._running: dict[asyncio.Task[Any], dict[str, str | bytes] | None] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._won: asyncio.Task[Any] | None = None
        self._won_metadata: dict[str, str | bytes] | None = None
        self._interrupted = False

    async def run(self, delay_s: float) -> Any:
        """The outcome of the race, in which another attempt is made after this time."""
        self._delay_s = delay_s
        due = self._loop.time() + delay_s
        if due < self._call.deadline:
            self._hedge._waiting.add(self, due)
        try:
            result = await self._handler(self._call)
        except BaseException as error:
            if self._interrupted:
                also_another = self._caller.uncancel() > self._before
                if not isinstance(error, asyncio.CancelledError | RpcError) or also_another:
                    raise
            elif not isinstance(error, RpcError) or not await self._others(error):
                raise
        else:
            if self._interrupted:  # what runs below has not let itself be interrupted
                self._caller.uncancel()
            return result
        assert self._won is not None
        if self._won_metadata is not None and self._call.reply_metadata is not None:
            self._call.reply_metadata.update(self._won_metadata)
        return self._won.result()

    def close(self) -> None:
        """Make no more attempts, and cancel those that run."""
        self._hedge._waiting.discard(self)
        running = list(self._running)
        self._running.clear()
        for task in running:
            task.cancel()
        self._won = None  # which has the error, whose traceback has this race: a circle

    async def _others(self, error: RpcError) -> bool:
        """The first attempt has failed: whether another one answers."""
        if error.code not in _FAILURES or not self._running:
            return False
        self._heed(error)
        self._waiter = self._loop.create_future()
        await self._waiter
        return self._won is not None

    def start_next(self, now: float) -> None:
        """Make another attempt."""
        if not self._hedge.budget.withdraw(now):
            self._note(now, "no second attempt: the budget is used up")
            return
        self._left -= 1
        metadata: dict[str, str | bytes] | None = None
        call = self._call
        if call.reply_metadata is not None:  # only the winner's is to be seen
            metadata = {}
            call = msgspec.structs.replace(call, reply_metadata=metadata)
        self._note(now, f"no answer for {self._delay_s:.3f} s: another attempt")
        task = self._hedge._start(_attempt(self._handler, call))
        self._running[task] = metadata
        task.add_done_callback(self._ended)
        if self._left:
            self._hedge._waiting.add(self, now + self._delay_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """An attempt that is not the first has ended."""
        error = None if task.cancelled() else task.exception()
        if task not in self._running or self._won is not None:
            return  # the race is over
        metadata = self._running.pop(task)
        if not task.cancelled() and (not isinstance(error, RpcError) or error.code not in _FAILURES):
            self._won, self._won_metadata = task, metadata
            if self._waiter is None:
                self._interrupted = True
                self._caller.cancel()
        elif isinstance(error, RpcError):
            if error.executed is False and error.origin is not Origin.REMOTE:
                self._hedge.budget.refund()
            self._heed(error)
            if self._hedge._waiting.discard(self):  # no sense in waiting for the time to come
                self.start_next(self._loop.time())
        decided = self._won is not None or not self._running
        if decided and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _heed(self, error: RpcError) -> None:
        """No more attempts where a server pushes back."""
        if error.code is Code.RESOURCE_EXHAUSTED or "retry_after_s" in error.details:
            self._hedge._waiting.discard(self)

    def _note(self, now: float, what: str) -> None:
        if self._explained and self._call.route is not None:
            self._call.route.note(now, "hedge", what)


class _Waiting:
    """The races that will make another attempt, each with its time, and one timer for all of them."""

    __slots__ = ("_dues", "_loop", "_next")

    def __init__(self) -> None:
        self._dues: dict[_Race, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = math.inf  # when the timer comes that comes first

    def add(self, race: _Race, due: float) -> None:
        """Call its `start_next` at this time."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._dues.clear()
            self._loop, self._next = loop, math.inf
        self._dues[race] = due
        if due < self._next:
            self._look_at(due)

    def discard(self, race: _Race) -> bool:
        """Do not; whether it was to be called."""
        return self._dues.pop(race, None) is not None

    def _look_at(self, at: float) -> None:
        assert self._loop is not None
        self._next = at
        self._loop.call_at(at, self._look, at)

    def _look(self, at: float) -> None:
        if at != self._next or self._loop is None:
            return  # another timer came first, and there is a later one now
        now = self._loop.time()
        for race in [race for race, due in self._dues.items() if due <= now]:
            del self._dues[race]
            race.start_next(now)
        self._next = math.inf
        if self._dues:
            self._look_at(max(min(self._dues.values()), now + _LEAST_S))


class _Latencies:
    """How long the last calls of a method took, and their percentile.

    Attributes:
        count: calls seen in all.
        percentile: in seconds; 0 before there are enough.
    """

    __slots__ = ("_last", "_share", "count", "percentile")

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: list[float] = []
        self.count = 0
        self.percentile = 0.0

    def add(self, latency_s: float) -> None:
        """A call has been answered."""
        if len(self._last) < _LATENCIES:
            self._last.append(latency_s)
        else:
            self._last[self.count % _LATENCIES] = latency_s
        self.count += 1
        if self.count == _ENOUGH or self.count % _EACH == 0:
            ranked = sorted(self._last)
            self.percentile = ranked[min(len(ranked) - 1, int(self._share * len(ranked)))]


async def _attempt(handler: Handler, call: Call) -> Any:
    return await handler(call)
