"""Retry: a failed call is made again where that is safe, and where the budget still has something for it.

Safe is a call that surely never ran, one whose method is declared idempotent, or one whose key lets the server that may
have run it answer again without running it again (`DedupeKeys`, `Dedupe`). Waits grow with full jitter (Brooker,
"Exponential Backoff And Jitter", 2015), are no shorter than the error asks for, and the deadline bounds everything.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Mapping
from typing import Any

import msgspec

from rpcfw.call import Attempter, Call, Handler, Recover, Route, pack_metadata
from rpcfw.chance import new_rng
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.interface import CallKind, MethodSpec
from rpcfw.items import Batch, Items, batches_of
from rpcfw.limiter.budget import RetryBudget

_UNARY = CallKind.UNARY
_RETRIED = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
_RETRY_AFTER = "retry_after_s"
"""Among the details of an error: for how many seconds the same would fail again."""
_WAITED = "waited_s"
"""Among the details of an error: the call has waited so long, and for nothing; there is no sense in doing so again."""

# Deduplication, as the middleware Dedupe and DedupeKeys have it. These names are part of the wire.
_KEY = ":key"
_MEMORY = ":memory"
_SPAN = ":span"
_GIVES_KEYS = "gives_keys"  # what DedupeKeys makes is known by it
_MEMORY_OF_PEER = "memory"
"""Among the details of an error: the memory of calls that the server has which the call was sent to."""
_TOLD_TOGETHER = 32
"""So many calls are told to the budget at once: a clock for each would cost more than the rest of this."""
_BEYOND_S = 0.1
"""The least wait of those attempts that the deadline bounds, and not their number."""


class Retry:
    """Middleware that makes failed calls again, if possible at another node.

    A call that takes a stream from the caller is repeated as long as nothing has begun to read it, since it cannot be
    read twice; a reply that is a stream, until its first item has been delivered.

    An error may say in its details, as `retry_after_s`, for how long the same would fail again. The wait is no shorter
    then; where that is more than `max_wait_s`, or than the deadline leaves, the call fails at once. What this process
    itself refuses for its size or number, and without such a time, is not repeated.

    A call with a key (see `DedupeKeys`) whose outcome is unknown is repeated at the very server that it was given to,
    and at no other; where the call has a deadline, until then, however many attempts and long waits that takes: nobody
    else can tell what became of it. ``Retry(1)`` repeats nothing: what others call failfast.

    Args:
        attempts: how often a call is made at the most, the first time included; at least 1.
        per_method: the same for single methods, as ``{"shop.Orders.get": 5}``.
        budget: bounds how many of all calls are repeated; one of its own, with its defaults, unless given.
        first_wait_s: upper bound of a wait before the first repetition, which usually follows at once; doubles with
            each further one.
        max_wait_s: upper bound of any wait.
        rng: source of the jitter.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        per_method: Mapping[str, int] | None = None,
        budget: RetryBudget | None = None,
        first_wait_s: float = 0.05,
        max_wait_s: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        for name, number in {"attempts": attempts, **(per_method or {})}.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be at least 1: the call itself")
        self.budget = budget or RetryBudget()
        self._attempts = attempts
        self._per_method = {name.replace("/", "."): number for name, number in (per_method or {}).items()}
        self._first_wait_s = first_wait_s
        self._max_wait_s = max_wait_s
        self._rng = rng or new_rng()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler. Raises ValueError where that would give each attempt of a call another key."""
        if hasattr(inspect.unwrap(handler, stop=lambda inner: hasattr(inner, _GIVES_KEYS)), _GIVES_KEYS):
            raise ValueError(
                "DedupeKeys must stand before Retry, middleware=[DedupeKeys(), Retry()]: behind it, each attempt of a "
                "call would get a key of its own, and run again"
            )

        attempt = (handler if isinstance(handler, Attempter) else _Attempter(handler)).attempt
        budget = self.budget

        def recover(call: Call, began: float, error: RpcError) -> Awaitable[Any]:
            return self._repeat(handler, _Attempts(self, call, began, None), error)

        def retry(call: Call) -> Awaitable[Any]:
            if call.method.kind is not _UNARY:
                return self._call_with_streams(handler, call)
            budget.untold += 1
            if budget.untold >= _TOLD_TOGETHER:
                budget.deposit(asyncio.get_running_loop().time(), 0)
            return attempt(call, recover)

        return retry

    async def _repeat(self, handler: Handler, attempts: _Attempts, failure: RpcError) -> Any:
        """Make a call again that has failed, for as long as that makes sense."""
        try:
            while True:
                wait_s = attempts.wait_s(failure)
                if wait_s is None:
                    raise failure
                await asyncio.sleep(wait_s)
                try:
                    return await handler(attempts.following())
                except RpcError as error:
                    failure = error
        finally:
            del failure  # whose traceback has this frame: a circle

    async def _call_with_streams(self, handler: Handler, call: Call) -> Any:
        kind, source, began = call.method.kind, None, asyncio.get_running_loop().time()
        self.budget.deposit(began)
        if kind.streams_in:
            call, source = _with_source(call)
        attempts = _Attempts(self, call, began, source)
        while True:
            try:
                result = await handler(call)
                break
            except RpcError as error:
                wait_s = attempts.wait_s(error)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            call = attempts.following()
        return Items(self._batches(handler, call, result, attempts)) if kind.streams_out else result

    async def _batches(
        self, handler: Handler, call: Call, items: Any, attempts: _Attempts
    ) -> AsyncGenerator[Batch, None]:
        while True:
            delivered = False
            try:
                if items is None:
                    items = await handler(call)
                async for batch in batches_of(items):
                    delivered = True
                    yield batch
                return
            except RpcError as error:
                wait_s = None if delivered else attempts.wait_s(error)
                if wait_s is None:
                    raise
            finally:
                if items is not None:
                    await items.aclose()
            await asyncio.sleep(wait_s)
            items = None
            call = attempts.following()

    def _attempts_of(self, method: MethodSpec) -> int:
        """How often a call of this method is made at the most."""
        if not self._per_method:
            return self._attempts
        return self._per_method.get(f"{method.service}.{method.name}", self._attempts)

    def _backoff_s(self, attempt: int) -> float:
        """A wait, by chance, after the attempt of this number."""
        # 2 ** 60 is beyond any wait, and the powers of many attempts are beyond any float
        return self._rng.uniform(0, min(self._max_wait_s, self._first_wait_s * 2 ** min(attempt - 1, 60)))


class _Attempter(Attempter):
    """Any handler as one that leaves its failures to somebody else."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def attempt(self, call: Call, recover: Recover | None = None) -> Any:
        began = asyncio.get_running_loop().time()
        try:
            return await self._handler(call)
        except RpcError as error:
            if recover is None:
                raise
            failure = error
        try:
            return await recover(call, began, failure)
        finally:
            del failure  # whose traceback has this frame: a circle


class _Attempts:
    """The attempts of one call, from its first failure on: whether there is another, when, and where."""

    __slots__ = ("_began", "_call", "_last", "_loop", "_memory", "_number", "_paid", "_retry", "_route", "_source",
                 "_uncertain")  # fmt: skip

    def __init__(self, retry: Retry, call: Call, began: float, source: _Source | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._retry = retry
        self._call = call
        self._source = source
        self._number = 1
        self._last = 0
        self._began = began  # of the attempt in progress, or the last one
        self._paid = False
        self._uncertain = False  # one of the attempts may have run
        self._memory = ""
        self._route: Route | None = None

    def wait_s(self, error: RpcError) -> float | None:
        """How long to wait before the next attempt; None when there is to be none."""
        unsent = error.executed is False and error.origin is not Origin.REMOTE
        if self._paid and unsent:
            self._retry.budget.refund()
        self._paid = False
        if error.executed is not False:
            self._uncertain = True
        self._last = self._retry._attempts_of(self._call.method)
        now, wait_s = self._loop.time(), 0.0
        why_not = self._why_not(error)
        if not why_not:
            least_s = _least_wait_s(error)
            if self._number > 1 or error.code is Code.RESOURCE_EXHAUSTED or least_s:
                wait_s = self._retry._backoff_s(self._number)
            beyond = self._number >= self._last
            wait_s += least_s + (_BEYOND_S if beyond else 0.0)
            in_doubt = self._memory and self._call.deadline != math.inf  # only that server can tell
            if least_s > self._retry._max_wait_s and not in_doubt:
                why_not = f"the same would fail for {least_s:.1f} s, longer than it may wait"
            elif self._call.deadline - now <= wait_s:
                why_not = "the deadline leaves no time for it"
            elif not self._retry.budget.withdraw(now):
                why_not = "the retry budget is used up"
        if why_not:
            self._note(now, f"not repeated: {why_not}")
            if self._uncertain and (error.executed is False or error.details.get("outcome") == "unknown"):
                error.executed = None  # this attempt did not run, but an earlier one may have
            return None
        self._paid = True
        self._number += 1
        when = f"in {wait_s:.2f} s" if wait_s else "at once"
        why = f"{error.code.name}: {error.message}"
        of = f" of {self._last}" if self._number <= self._last else ", until the deadline,"
        self._note(now, f"attempt {self._number}{of} {when}, since {why}")
        self._reroute(error)
        return wait_s

    def following(self) -> Call:
        """The call of the next attempt, which begins now."""
        self._began = self._loop.time()
        return self._call

    def _why_not(self, error: RpcError) -> str:
        """Why there is no other attempt, whatever the time; empty when there may be one."""
        method = self._call.method
        if error.code not in _RETRIED:
            return f"{error.code.name} is an answer"
        if self._number >= self._last and not self._outlasts(error):
            return f"this was the last of {self._last} attempts" if self._last > 1 else "it has one attempt"
        if self._source is not None and self._source.begun:
            return "its stream has been read from, and cannot be read twice"
        if _WAITED in error.details:
            return "it has waited for a node already"
        if error.executed is False:
            local = error.code is Code.RESOURCE_EXHAUSTED and error.origin is Origin.LOCAL
            return "this process would refuse it again" if local and not _least_wait_s(error) else ""
        if error.code is not Code.UNAVAILABLE:
            return "it has run, and failed there"
        if method.idempotent or self._is_remembered(error):
            return ""
        if method.kind is _UNARY and _KEY in self._call.metadata:
            return _not_remembered(error)
        why = f"{method.path} is not idempotent and may have run; declare it @rpcfw.idempotent if it may run twice"
        if "@rpcfw.idempotent" not in error.message:
            error.message += f" (not repeated: {why})"
        return why

    def _outlasts(self, error: RpcError) -> bool:
        """Whether the deadline alone bounds the attempts: it may have run, and its server can tell what came of it."""
        call = self._call
        if self._last == 1 or call.deadline == math.inf or call.method.idempotent:
            return False
        return bool(self._memory) or (error.code is Code.UNAVAILABLE and self._is_remembered(error))

    def _is_remembered(self, error: RpcError) -> bool:
        """Whether the server that this attempt was given to would know the call again."""
        if error.executed is not None or self._call.method.kind is not _UNARY:
            return False
        if self._memory:
            return True  # marked already: no other server takes it
        memory = error.details.get(_MEMORY_OF_PEER)
        if not isinstance(memory, str) or not memory or _KEY not in self._call.metadata:
            return False
        self._memory = memory
        marks = {_MEMORY: memory}
        if self._call.deadline != math.inf:
            marks[_SPAN] = f"{self._call.deadline - self._began:.3f}"
        metadata = pack_metadata({**self._call.metadata, **marks})
        route = self._call.route
        if error.endpoint and (route is None or route.pinned is None):
            pinned = Route(pinned=error.endpoint)
            if route is None:
                self._route = pinned
            else:  # the caller's own stays as it is, but learns what becomes of the call
                pinned.tried, pinned.notes, pinned.every = route.tried, route.notes, route.every
            route = pinned
        self._call = msgspec.structs.replace(self._call, metadata_bytes=metadata, route=route)
        return True

    def _reroute(self, error: RpcError) -> None:
        """Let the next attempt prefer another node."""
        route = self._call.route
        if route is None:
            self._route = route = Route()
            self._call = msgspec.structs.replace(self._call, route=route)
        if error.endpoint and error.endpoint not in route.tried:
            route.tried.append(error.endpoint)

    def _note(self, now: float, what: str) -> None:
        route = self._call.route
        if route is not None and route is not self._route:
            route.note(now, "retry", what)


class _Source:
    """A caller's stream that knows whether something has begun to read it."""

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = items
        self._iterator: AsyncIterator[Any] | None = None

    @property
    def begun(self) -> bool:
        return self._iterator is not None

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = aiter(self._items)
        return self._iterator

    def __anext__(self) -> Awaitable[Any]:
        return (self._iterator or aiter(self)).__anext__()


def _with_source(call: Call) -> tuple[Call, _Source | None]:
    """The call with its stream replaced by one that knows. What is no stream stays, to be refused where it is read."""
    index = next(number for number, parameter in enumerate(call.method.parameters) if parameter.is_stream)
    if not hasattr(call.arguments[index], "__aiter__"):
        return call, None
    source = _Source(call.arguments[index])
    arguments = (*call.arguments[:index], source, *call.arguments[index + 1 :])
    return msgspec.structs.replace(call, arguments=arguments), source


def _not_remembered(error: RpcError) -> str:
    """Why a call with a key is not repeated although it has one; the caller is told as well."""
    if error.executed is not None:
        return "it has run, and failed there"
    why = "it may have run, and its server does not remember calls: give the server middleware=[Dedupe()]"
    if "middleware=[Dedupe()]" not in error.message:
        error.message += f" (not repeated: {why})"
    return why


def _least_wait_s(error: RpcError) -> float:
    least_s = error.details.get(_RETRY_AFTER)
    return least_s if isinstance(least_s, int | float) and least_s > 0 else 0.0
