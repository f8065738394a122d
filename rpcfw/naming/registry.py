"""The client's side of rpcfw's own registry, `NamingRegistry`: one registry or several as one.

Servers register at all of them and clients see the union, so one of them may be away and nobody is lost. They know
nothing of each other; that they agree on names is for a replicated registry to bring. Needs no library.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from rpcfw.chance import new_rng
from rpcfw.client import Client
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.naming.address import TIMEOUT_S, endpoints_of
from rpcfw.naming.holdings import Bell, Held, Holdings
from rpcfw.naming.interface import NameService, Refusal
from rpcfw.naming.site import Site
from rpcfw.naming.view import View
from rpcfw.registry import Registration
from rpcfw.registry.remote import Problems, bytes_of
from rpcfw.registry.snapshots import Board
from rpcfw.transport import Transport

log = logging.getLogger("rpcfw.registry")
T = TypeVar("T")

LEAVING_S = 1.0
"""The longest that leaving waits for a registry. What is not taken back then is so later, or expires."""
SLOWER_S = 0.3
"""So long is waited for the other registries when one has answered."""
_OPTIONS = ConnectionOptions(
    attempt_s=1.0,
    keepalive_s=3.0,
    keepalive_timeout_s=2.0,
    idle_s=None,
    max_backoff_s=0.5,
    spin_turns=0,
)


@dataclasses.dataclass(slots=True)
class _Watched:
    """A service that somebody watches."""

    view: View = dataclasses.field(default_factory=View)
    timer: asyncio.TimerHandle | None = None


class NamingRegistry:
    """Keeps who offers what at one or more ``rpcfw registry``. One object serves one event loop.

    Attributes:
        problem: why no registry can be reached at present, or what one refuses; empty when all is well. One of several
            that is away is no problem; the log tells of it.

    Args:
        registries: their endpoints.
        timeout_s: how long `register` and questions wait for an answer, in seconds.
        transports: by scheme; the standard ones unless given.
        rng: where jitter and the name of the lease come from.

    Raises:
        ValueError: at an endpoint that cannot be used.
    """

    def __init__(
        self,
        registries: str | Endpoint | Sequence[str | Endpoint],
        *,
        timeout_s: float = TIMEOUT_S,
        transports: Mapping[str, Transport] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        given = [registries] if isinstance(registries, str | Endpoint) else registries
        endpoints = {endpoint.address: endpoint for endpoint in map(Endpoint.parse, given)}
        if not endpoints:
            raise ValueError("a registry needs an endpoint, such as tcp://127.0.0.1:7400")
        self.problem = ""
        self._timeout_s = timeout_s
        rng = rng or new_rng()
        self._holdings = Holdings(f"{rng.getrandbits(128):032x}")
        self._bell = Bell()
        self._board = Board(first=self._first, last=self._last)
        self._watched: dict[str, _Watched] = {}
        self._problems = Problems(lambda first: None)
        self._sites = [
            Site(
                address,
                Client(
                    [endpoint], timeout_s=timeout_s, middleware=[], options=_OPTIONS, transports=transports
                ),
                self._holdings,
                self,
                rng,
            )
            for address, endpoint in endpoints.items()
        ]

    @classmethod
    def from_url(cls, url: str) -> NamingRegistry:
        """Read ``rpcfw://host:port,host:port?timeout_s=5``.

        ``tls=1``, ``ca``, ``cert`` and ``key``, ``hostname`` make it TLS. Raises ValueError that names what is wrong.
        """
        endpoints, name, timeout_s = endpoints_of(url)
        if name:
            raise ValueError(
                f"{url!r} is a name in a registry: connect to it with rpcfw.naming.lookup(url, Interface); "
                "a registry's URL ends after the port"
            )
        return cls(endpoints, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"<NamingRegistry at {', '.join(site.name for site in self._sites)}>"

    # ------------------------------------------------------------------------------------------- the protocol

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """See `Registry.register`. Entering returns when those registries that answer know it, one at least."""
        return self._holding(Held(registration))

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """See `Registry.watch`. Watchers of one service share what is read."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """See `Registry.services`. Raises RpcError UNAVAILABLE when no registry answers."""
        answers = await self.ask(lambda registry: registry.services())
        return frozenset(service for answer in answers for service in answer)

    async def close(self) -> None:
        """See `Registry.close`. What is registered is taken back, unless no registry is there."""
        held = bool(self._holdings)
        self._board.close()
        self._holdings.clear()
        if held:
            self._stir()
            await self._until_told()
        for watched in self._watched.values():
            _stop(watched)
        self._watched.clear()
        await asyncio.gather(*(site.close() for site in self._sites))
        self._bell.ring()

    # ------------------------------------------------------------------------------------------------ names

    @contextlib.asynccontextmanager
    async def bind(
        self, name: str, registration: Registration, *, replace: bool = False
    ) -> AsyncIterator[Held]:
        """Let a name stand for a server while the block runs, as `register` does it for a service.

        What is given has an attribute `lost`, which says how the name was taken from it.
        Raises RpcError ALREADY_EXISTS unless it may replace.
        """
        held = Held(registration, name, replace)
        async with self._holding(held):
            yield held

    async def ask(self, question: Callable[[NameService], Awaitable[T]]) -> list[T]:
        """Put a question to all registries; the answers of those that give one soon, one at least.

        Raises:
            RpcError: UNAVAILABLE when none answers.
        """
        self._check_open()
        sites = [site for site in self._sites if not site.problem] or self._sites
        asking: dict[asyncio.Future[T], Site] = {
            asyncio.ensure_future(question(site.stub)): site for site in sites
        }
        try:
            answers: list[T] = []
            errors: list[str] = []
            left: set[asyncio.Future[T]] = set(asking)
            while left:
                wait_s = SLOWER_S if answers else None
                done, left = await asyncio.wait(left, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for answer in done:
                    error = answer.exception()
                    if error is None:
                        answers.append(answer.result())
                    elif isinstance(error, RpcError):
                        errors.append(asking[answer].trouble(error))
                    else:
                        raise error
        finally:
            for answer in asking:
                answer.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not answers:
            raise RpcError(Code.UNAVAILABLE, "; ".join(errors), executed=False)
        return answers

    # ------------------------------------------------------------------------------------------- what is held

    @contextlib.asynccontextmanager
    async def _holding(self, held: Held) -> AsyncIterator[None]:
        self._check_open()
        try:
            bytes_of(held.registration)
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error), executed=False) from None
        self._start()
        self._holdings.enter(held)
        self._stir()
        try:
            await self._until_known(held)
        except BaseException:
            if self._holdings.drop(held):
                self._stir()
            raise
        try:
            yield
        finally:
            if self._holdings.drop(held):
                self._stir()
                await self._until_told()

    async def _until_known(self, held: Held) -> None:
        """Wait until a registry keeps it, and a moment for the others. Raises RpcError when none does."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_s
        patience_ends_at = math.inf
        while True:
            told = [site for site in self._sites if site.told >= held.number]
            refusals = [site.refused[held.what] for site in told if held.what in site.refused]
            if held.lost or any(refusal.code == Code.ALREADY_EXISTS for refusal in refusals):
                message = held.lost or next(
                    refusal.message for refusal in refusals if refusal.code == Code.ALREADY_EXISTS
                )
                raise RpcError(Code.ALREADY_EXISTS, message, executed=False)
            is_known = len(told) > len(refusals)
            is_open = any(site not in told and not site.problem for site in self._sites)
            now = loop.time()
            if is_known and patience_ends_at == math.inf:
                patience_ends_at = now + SLOWER_S
            if is_known and (not is_open or now >= min(patience_ends_at, ends_at)):
                return
            if now >= ends_at or (refusals and not is_known and not is_open) or self._board.closed:
                raise RpcError(Code.UNAVAILABLE, self._refusal(held, refusals), executed=False)
            await self._bell.wait(min(ends_at, patience_ends_at))

    def _refusal(self, held: Held, refusals: Sequence[Refusal]) -> str:
        if self._board.closed:
            return f"{held.what[1]} was not registered: the registry was closed meanwhile"
        if refusals:
            return f"{held.what[1]} is not registered: {refusals[0].message}"
        reasons = [
            site.problem or site.fault or f"the registry {site.url} does not answer" for site in self._sites
        ]
        return f"{held.what[1]} could not be registered within {self._timeout_s:g} s: {'; '.join(reasons)}"

    async def _until_told(self) -> None:
        """Wait until the registries that are there have heard what is to be kept now, but not for long."""
        ends_at = asyncio.get_running_loop().time() + LEAVING_S
        number = self._holdings.number
        while any(site.is_up and not site.fault and site.told < number for site in self._sites):
            if not await self._bell.wait(ends_at):
                return

    def _check_open(self) -> None:
        if self._board.closed:
            raise RpcError(
                Code.FAILED_PRECONDITION, "the registry is closed: use it before close, or open another"
            )

    def _start(self) -> None:
        for site in self._sites:
            site.start()

    def _stir(self) -> None:
        for site in self._sites:
            site.stir()
        self._bell.ring()

    # ------------------------------------------------------------------------------------- what is watched

    def _first(self, service: str) -> None:
        self._watched[service] = _Watched()
        self._start()
        for site in self._sites:
            site.follow(service)

    def _last(self, service: str) -> None:
        watched = self._watched.pop(service, None)
        if watched is not None:
            _stop(watched)
        for site in self._sites:
            site.unfollow(service)
        self._board.forget(service)

    def _show(self, service: str) -> None:
        """Publish what is known of a service, and look again when time alone changes it."""
        watched = self._watched.get(service)
        if watched is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        found = watched.view.merged(now)
        if found is not None:
            self._board.publish(service, found)
        _stop(watched)
        look_at = watched.view.next_look(now)
        if look_at < math.inf:
            watched.timer = loop.call_at(look_at, self._show, service)

    # ------------------------------------------------------------------------------------- what sites tell

    def said(
        self,
        site: Site,
        service: str,
        entries: dict[str, tuple[Registration, float]] | None,
        settled_at: float,
    ) -> None:
        """See `Owner.said`."""
        watched = self._watched.get(service)
        if watched is not None:
            watched.view.heard(site.name, entries, settled_at)
            self._show(service)

    def restarted(self, site: Site) -> None:
        """See `Owner.restarted`."""
        for watched in self._watched.values():
            watched.view.restarted(site.name)

    def changed(self, site: Site) -> None:
        """See `Owner.changed`."""
        self._problems.report(site.name, site.problem or site.fault)
        faults = [site.fault for site in self._sites if site.fault]
        if all(site.problem for site in self._sites):
            self.problem = "; ".join(site.problem for site in self._sites)
        else:
            self.problem = faults[0] if faults else ""
        if site.problem:
            believed_until = asyncio.get_running_loop().time() + site.lease_s
            for service, watched in self._watched.items():
                watched.view.went(site.name, believed_until)
                self._show(service)
        self._bell.ring()

    def lost(self, refusal: Refusal) -> None:
        """See `Owner.lost`."""
        log.warning("%s", refusal.message)
        self._holdings.lose((True, refusal.what), refusal.message)
        self._stir()


def _stop(watched: _Watched) -> None:
    if watched.timer is not None:
        watched.timer.cancel()
        watched.timer = None
