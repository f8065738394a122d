"""One registry as a client of it sees it: a session that tells whether it is there, a lease, and a watch per service.

As soon as a session begins, what is to be kept is declared, so a registry that was started anew knows it at once and
not after a third of a lease. What several sites say together is made in `registry`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from rpcfw.client import Client
from rpcfw.errors import Code, RpcError
from rpcfw.naming.address import url_of
from rpcfw.naming.holdings import Holdings
from rpcfw.naming.interface import LEASE_S, Granted, NameService, Refusal, Snapshot, Terms
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Entries, Pauses, end_all

log = logging.getLogger("rpcfw.registry")

RENEWALS_PER_LEASE = 3
_LONGEST_S, _MOST_S = 5.0, 86_400.0
_FIRST_PAUSE_S, _PAUSE_S = 0.1, 0.5
"""Before a session is begun again, less up to half: a call waits 2 s for a first server, and this is part of it."""


class Owner(Protocol):
    """Whom a site tells what it hears. All of it is plain, and called on the loop."""

    def said(
        self,
        site: Site,
        service: str,
        entries: dict[str, tuple[Registration, float]] | None,
        settled_at: float,
    ) -> None:
        """What the registry has for a service; None for what it had before."""
        ...

    def restarted(self, site: Site) -> None:
        """Another run of the registry begins."""
        ...

    def changed(self, site: Site) -> None:
        """The site has come, or gone, or was told something."""
        ...

    def lost(self, refusal: Refusal) -> None:
        """A name was given to another."""
        ...


class Site:
    """One registry.

    Args:
        name: the address of its endpoint.
        client: of it alone.
        holdings: what is to be kept.
        owner: is told what is heard.
        rng: for jitter.

    Attributes:
        url: how to name it to people: ``rpcfw://10.0.0.5:7400``.
        is_up: a session is open.
        problem: why none is; empty while one is, and before the first attempt has failed.
        told: the number of what the registry keeps; -1 for nothing.
        refused: what it does not keep.
        lease_s: as it was granted last.
        fault: why it does not do what it is asked, although a session is open.
    """

    def __init__(
        self, name: str, client: Client, holdings: Holdings, owner: Owner, rng: random.Random
    ) -> None:
        self.name = name
        self.url = url_of(name)
        self.client = client
        self.stub = client.stub(NameService)
        self.is_up = False
        self.problem = ""
        self.told = -1
        self.refused: dict[tuple[bool, str], Refusal] = {}
        self.lease_s = LEASE_S
        self._faults: dict[str, str] = {}
        self._holdings = holdings
        self._owner = owner
        self._rng = rng
        self._run = ""
        self._main: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._followed: dict[str, asyncio.Task[None] | None] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def fault(self) -> str:
        """Why it does not do what it is asked, although it is there; empty when it does."""
        return next(iter(self._faults.values()), "")

    def trouble(self, error: RpcError) -> str:
        """What a failed question to this registry says to people: which registry, why, and the mend."""
        for failed in (f"cannot connect to {self.name}: ", f"no connection to {self.name}: "):
            if error.message.startswith(failed):
                why = error.message.removeprefix(failed)
                if why.startswith("connection refused; "):
                    why = "connection refused; is rpcfw registry running there?"
                elif failed.startswith("no ") and "is it an" not in why:
                    why = f"{why}; is it an rpcfw server, with TLS or not?"
                return f"the registry {self.url} cannot be reached: {why}"
        return f"the registry {self.url}: {error.message.removeprefix(f'{self.name}: ')}"

    def start(self) -> None:
        """Begin a session, unless that was done."""
        if self._main is None:
            self._main = self._task(self._attend(), f"rpcfw session with {self.name}")

    def stir(self) -> None:
        """What is to be kept has changed."""
        self._stirred.set()

    def follow(self, service: str) -> None:
        """Watch a service."""
        self._followed[service] = None
        if self.is_up:
            self._follow(service)

    def unfollow(self, service: str) -> None:
        """Watch it no more."""
        self._end(self._followed.pop(service, None))
        self._faults.pop(service, None)

    async def close(self) -> None:
        """End everything."""
        tasks = [self._main, self._keeping, *self._followed.values(), *self._ending]
        self._main = self._keeping = None
        self._followed.clear()
        await end_all(task for task in tasks if task is not None)
        await self.client.close()

    # ------------------------------------------------------------------------------------------------ the session

    async def _attend(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            wait_s = 0.0
            try:
                async with contextlib.aclosing(self.stub.session()) as session:  # type: ignore[type-var]
                    async for terms in session:
                        pause_s = _FIRST_PAUSE_S
                        self._met(terms)
                reason = f"the registry {self.url} is going"
            except RpcError as error:
                reason = self.trouble(error)
                hint = error.details.get("retry_after_s")  # the channel's, or anything that a registry says
                wait_s = min(hint, _LONGEST_S) if isinstance(hint, float) and hint > 0 else 0.0
            except Exception as error:  # a fault here must not end the upkeep of all that is registered
                log.exception("the session with %s failed", self.name)
                reason = f"{self.name}: the session failed with {error!r}: please report this"
            self._lost(reason)
            await asyncio.sleep(max(pause_s * self._rng.uniform(0.5, 1.0), wait_s))
            pause_s = _PAUSE_S

    def _met(self, terms: Terms) -> None:
        self._disengage()  # were there two words in one session
        if terms.run != self._run:
            self._run = terms.run
            self._owner.restarted(self)
        self.lease_s = _within(0.1, terms.lease_s, LEASE_S)
        self.is_up, self.problem = True, ""
        self._keeping = self._task(self._keep(), f"rpcfw registrations at {self.name}")
        for service in self._followed:
            self._follow(service)
        self._owner.changed(self)

    def _lost(self, reason: str) -> None:
        self._disengage()
        self.is_up, self.problem, self.told = False, reason, -1
        self._faults.clear()
        self._owner.changed(self)

    def _disengage(self) -> None:
        self._end(self._keeping)
        self._keeping = None
        for service, task in self._followed.items():
            self._end(task)
            self._followed[service] = None

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        # in a context of its own: it outlives the call that happened to begin it
        return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())

    def _end(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _try(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Do something while a session is open. False when that failed, which is told."""
        try:
            await work()
        except RpcError as error:
            self._faulty(what, self.trouble(error))
        except Exception as error:  # as above
            log.exception("%s at %s failed", what, self.name)
            self._faulty(what, f"{self.name}: {what} failed with {error!r}: please report this")
        else:
            return True
        return False

    def _faulty(self, what: str, fault: str) -> None:
        if self._faults.get(what, "") != fault:
            if fault:
                self._faults[what] = fault
            else:
                self._faults.pop(what, None)
            self._owner.changed(self)

    # ------------------------------------------------------------------------------------------------ the lease

    async def _keep(self) -> None:
        loop, pauses = asyncio.get_running_loop(), Pauses(self._rng)
        while True:
            self._stirred.clear()
            declares = self.told != self._holdings.number or bool(self.refused)
            if declares or self._holdings:
                if not await self._try("keeping", self._declare if declares else self._renew):
                    await self._until_stirred(loop.time() + pauses.next_s())
                    continue
                pauses.reset()
            if self.told == self._holdings.number:
                wait_s = self.lease_s / RENEWALS_PER_LEASE * self._rng.uniform(0.8, 1.0)
                await self._until_stirred(loop.time() + wait_s)

    async def _until_stirred(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._stirred.wait()

    async def _declare(self) -> None:
        number = self._holdings.number
        registrations, claims = self._holdings.wanted()
        granted = Granted(self.lease_s)
        if registrations or claims or number:
            granted = await self.stub.register(self._holdings.lease, number, registrations, claims)
        self._granted(number, granted)

    async def _renew(self) -> None:
        number = self.told
        granted = await self.stub.renew(self._holdings.lease, number)
        if granted is None:
            self.told = -1
        else:
            self._granted(number, granted)

    def _granted(self, number: int, granted: Granted) -> None:
        self.told, self.lease_s = number, _within(0.1, granted.lease_s, LEASE_S)
        self.refused = {(refusal.is_name, refusal.what): refusal for refusal in granted.refused}
        for refusal in granted.refused:
            if refusal.is_name and refusal.code == Code.ABORTED:
                self._owner.lost(refusal)
        # That a name is another's is for who wants to bind it to hear; the registry does well.
        full = [refusal.message for refusal in granted.refused if refusal.code == Code.RESOURCE_EXHAUSTED]
        self._faulty("keeping", f"the registry {self.url}: {full[0]}" if full else "")
        self._owner.changed(self)

    # ------------------------------------------------------------------------------------------------ watches

    def _follow(self, service: str) -> None:
        self._end(self._followed.get(service))
        self._followed[service] = self._task(self._watch(service), f"rpcfw watch of {service} at {self.name}")

    async def _watch(self, service: str) -> None:
        pauses, reader = Pauses(self._rng), _Reader(self.name, service)

        async def read() -> None:
            stream = self.stub.watch(service, self._run, reader.revision)
            async with contextlib.aclosing(stream) as snapshots:  # type: ignore[type-var]
                async for snapshot in snapshots:
                    pauses.reset()
                    self._faulty(service, "")
                    now = asyncio.get_running_loop().time()
                    entries = reader.read(snapshot, now)
                    self._owner.said(self, service, entries, now + _within(0.0, snapshot.settling_s, 0.0))

        while True:
            await self._try(service, read)
            await asyncio.sleep(pauses.next_s())


class _Reader:
    """Reads the snapshots of one service; what was there before is not read again."""

    def __init__(self, name: str, service: str) -> None:
        self.revision = -1
        self._service = service
        self._complaints = Entries(name)
        self._known: dict[str, Registration] = {}

    def read(self, snapshot: Snapshot, now: float) -> dict[str, tuple[Registration, float]] | None:
        """By address; None when nothing has changed."""
        self.revision = snapshot.revision
        if snapshot.registrations is None:
            return None
        entries: dict[str, tuple[Registration, float]] = {}
        known: dict[str, Registration] = {}
        for listed in snapshot.registrations:
            text = listed.registration
            registration = self._known.get(text) or self._complaints.read(
                self._service, f"{self._service}/{listed.address}", text.encode()
            )
            if registration is not None:
                known[text] = registration
                entries[listed.address] = registration, now - (snapshot.now - listed.put_at)
        self._known = known
        return entries


def _within(least_s: float, said_s: float, otherwise_s: float) -> float:
    """A time that a registry says, if it can be meant."""
    return said_s if least_s <= said_s <= _MOST_S else otherwise_s
