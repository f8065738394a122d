"""Keeps the registrations of one process in a store with leases: makes, renews, makes again and removes them.

One task does everything, in order, so that two operations on a key never race: it compares what is wanted with what the
store was told, and works off the difference, however often the store goes away in between. What to say to a store is
a `Store`'s affair. The idea is the reconciling loop of Kubernetes' controllers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Protocol

from rpcfw.errors import Code, RpcError
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Pauses, bytes_of, end_all

log = logging.getLogger("rpcfw.registry")

RENEWALS_PER_LEASE = 3
LEAVING_S = 1.0
"""The longest that leaving waits for the store. What is not taken back then is so later, or expires."""


class Store(Protocol):
    """Keeps registrations for one process, each as long as its lease is renewed. All methods may raise `Away`."""

    async def put(self, registration: Registration) -> None:
        """Keep it from now on, instead of what is kept under its key."""
        ...

    async def remove(self, registration: Registration) -> None:
        """Take back what this process keeps under the key of the registration; what another keeps there stays."""
        ...

    async def renew(self, registrations: Collection[Registration]) -> Iterable[str]:
        """Renew the leases of these. Gives the keys of those that the store knows no more."""
        ...

    async def end(self) -> None:
        """Nothing is kept any more: give up what else was taken."""
        ...


class _Held:
    """One ``register`` block that is entered or being entered."""

    __slots__ = ("known", "registration")

    def __init__(self, registration: Registration, known: asyncio.Future[None]) -> None:
        self.registration = registration
        self.known = known


class Upkeep:
    """What one process has registered in one store.

    Args:
        store: where.
        lease_s: renewed after a third of this.
        timeout_s: how long entering ``register`` waits for the store.
        report: told of each problem, as a sentence, and of its end by an empty one.
        rng: for the jitter of renewals and of attempts.
        check: raises ValueError for a registration that the store cannot keep.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float,
        timeout_s: float,
        report: Callable[[str], None],
        rng: random.Random,
        check: Callable[[Registration], object] = bytes_of,
    ) -> None:
        self._check = check
        self._store = store
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._report = report
        self._rng = rng
        self._pauses = Pauses(rng)
        self._held: dict[str, list[_Held]] = {}
        self._differing: dict[str, Registration] = {}
        """Keys under which the store may hold something else than what is wanted, and what was wanted there last."""
        self._leaving: dict[str, list[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._problem = ""
        self._renew_at = 0.0
        self._closed = False

    @contextlib.asynccontextmanager
    async def register(self, registration: Registration) -> AsyncIterator[None]:
        """Keep a registration while the block runs, as `Registry.register` has it."""
        if self._closed:
            raise RpcError(
                Code.FAILED_PRECONDITION, "the registry is closed: register before close, or open another"
            )
        try:
            bytes_of(registration)
            self._check(registration)
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error), executed=False) from None
        held = _Held(registration, asyncio.get_running_loop().create_future())
        self._held.setdefault(registration.key, []).append(held)
        self._differs(registration)
        try:
            async with asyncio.timeout(self._timeout_s):
                await held.known
        except TimeoutError:
            self._drop(held)
            raise RpcError(Code.UNAVAILABLE, self._refusal(registration), executed=False) from None
        except BaseException:
            self._drop(held)
            raise
        try:
            yield
        finally:
            if self._drop(held):
                await self._left(registration.key)

    async def close(self) -> None:
        """Take everything back, for at most `LEAVING_S`, and end. May be called again."""
        self._closed = True
        for held in [held for stack in self._held.values() for held in stack]:
            self._drop(held)
        task, self._task = self._task, None
        if task is not None:
            if not self._problem:
                await asyncio.wait([task], timeout=LEAVING_S)
            await end_all([task])
        for key in [*self._leaving]:
            self._tell_those_who_left(key)
        self._differing.clear()
        self._report("")

    # ------------------------------------------------------------------------------------ what is wanted

    def _wanted(self, key: str) -> _Held | None:
        stack = self._held.get(key)
        return stack[-1] if stack else None

    def _drop(self, held: _Held) -> bool:
        """A block is left. True when the store has to hear of it."""
        key = held.registration.key
        stack = self._held.get(key, [])
        if held not in stack:
            return False  # closed in the meantime
        was_wanted = stack[-1] is held
        stack.remove(held)
        if not stack:
            del self._held[key]
        if not held.known.done():
            held.known.cancel()
        if was_wanted:
            self._differs(held.registration)
        return was_wanted

    def _differs(self, registration: Registration) -> None:
        self._differing[registration.key] = registration
        self._news.set()
        if self._task is None or self._task.done():
            self._renew_at = asyncio.get_running_loop().time() + self._lease_s / RENEWALS_PER_LEASE
            self._task = asyncio.create_task(self._work(), name="rpcfw registrations")

    async def _left(self, key: str) -> None:
        """Wait until the store has heard that a block was left, but not for long."""
        waiter = asyncio.get_running_loop().create_future()
        self._leaving.setdefault(key, []).append(waiter)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVING_S):
                await waiter

    def _tell_those_who_left(self, key: str) -> None:
        for waiter in self._leaving.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _refusal(self, registration: Registration) -> str:
        why = self._problem or "it does not answer"
        return f"{registration.key} could not be registered within {self._timeout_s:g} s: {why}"

    # ------------------------------------------------------------------------------------ the work

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._held or self._differing:
            self._news.clear()
            try:
                await self._catch_up()
            except Away as away:
                self._say(str(away))
                await self._news_until(loop.time() + self._pauses.next_s())
                continue
            except (
                Exception
            ) as error:  # a fault of the store's must not end the upkeep of all that is registered
                problem = f"keeping registrations failed with {error!r}: please report this"
                if problem != self._problem:
                    log.exception("keeping the registrations of this process failed")
                self._say(problem)
                await self._news_until(loop.time() + self._pauses.next_s())
                continue
            self._say("")
            self._pauses.reset()
            if not self._held and not self._differing:
                with contextlib.suppress(Away):
                    await self._store.end()
                continue
            await self._news_until(self._renew_at)

    async def _news_until(self, until: float) -> None:
        """Wait; less long when something else is wanted: one who registers has not the time for our pauses."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()

    async def _catch_up(self) -> None:
        """Renew what is due, then tell the store all that differs."""
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at and self._held:
            wanted = {key: stack[-1].registration for key, stack in self._held.items()}
            kept = [registration for key, registration in wanted.items() if key not in self._differing]
            if kept:
                for key in await self._store.renew(kept):
                    self._differing.setdefault(key, wanted[key])
            self._renew_at = now + self._lease_s / RENEWALS_PER_LEASE * self._rng.uniform(0.8, 1.0)
        while self._differing:
            key, last = next(iter(self._differing.items()))
            held = self._wanted(key)
            if held is not None:
                await self._store.put(held.registration)
            else:
                await self._store.remove(last)
            if self._wanted(key) is not held:
                continue  # changed meanwhile: the store has to hear that as well
            self._differing.pop(key, None)
            for entered in self._held.get(key, ()):
                if not entered.known.done():
                    entered.known.set_result(None)
            self._tell_those_who_left(key)

    def _say(self, problem: str) -> None:
        self._problem = problem
        self._report(problem)
