"""Nodes without a network: what a client's middleware stands on, as far as it can tell, with every ending at will.

It keeps what the cluster promises: who was tried, who alone may take a call, a call for all, and whose error it was.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import rpcfw
from rpcfw import Call, Code, Handler, Origin, RpcError
from rpcfw.call import Outcomes, Route
from tests.calls.virtual import now

Act = Callable[[Call], Awaitable[Any]]


class Gone(rpcfw.ServiceError):
    number: int


@rpcfw.service("tests.Fleet")
class Service(Protocol):
    @rpcfw.method(idempotent=True, raises=[Gone])
    async def get(self, number: int) -> str: ...

    @rpcfw.method(raises=[Gone])
    async def place(self, number: int, *, name: str = "") -> str: ...

    @rpcfw.idempotent
    async def note(self, text: str) -> None: ...

    async def tell(self, text: str) -> None: ...

    @rpcfw.method(oneway=True)
    async def shout(self, text: str) -> None: ...

    @rpcfw.idempotent
    def watch(self) -> AsyncIterator[int]: ...

    @rpcfw.idempotent
    async def add(self, numbers: AsyncIterator[int]) -> int: ...


METHODS = rpcfw.spec_of(Service).methods


class Fleet:
    """Nodes by address, each with what it does; the first that was not tried takes a call."""

    def __init__(self, **acts: Act) -> None:
        self.acts = acts
        self.calls: list[tuple[float, str, Call]] = []
        self.cancelled: list[str] = []
        self.running = 0

    @property
    def asked(self) -> list[str]:
        """Who was given a call, in order."""
        return [address for _, address, _ in self.calls]

    @property
    def times(self) -> list[float]:
        """And when, in seconds since the test began."""
        return [round(at, 6) for at, _, _ in self.calls]

    def __call__(self, call: Call) -> Awaitable[Any]:
        route = call.route
        if route is not None and route.every:
            return self._every(call)
        address = next(iter(self.acts))
        if route is not None:
            fresh = [known for known in self.acts if known not in route.tried]
            address = route.pinned or (fresh[0] if fresh else address)
            route.tried.append(address)
        return self._at(address, call)

    async def _at(self, address: str, call: Call) -> Any:
        self.calls.append((now(), address, call))
        self.running += 1
        try:
            return await self.acts[address](call)
        except RpcError as error:
            error.endpoint = error.endpoint or address
            raise
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise
        finally:
            self.running -= 1

    async def _every(self, call: Call) -> Outcomes:
        calls = [self._at(address, call) for address in self.acts]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return Outcomes(zip(self.acts, outcomes, strict=True))


def call_of(name: str, *arguments: Any, timeout_s: float = 10.0, **options: Any) -> Call:
    """A call of `Service`, as a stub makes it."""
    deadline = asyncio.get_running_loop().time() + timeout_s if timeout_s != math.inf else math.inf
    return Call(METHODS[name], arguments, deadline, **options)


def answers(value: Any, after_s: float = 0.0) -> Act:
    """Answer after that time."""

    async def act(call: Call) -> Any:
        if after_s:
            await asyncio.sleep(after_s)
        return value

    return act


def fails(code: Code = Code.UNAVAILABLE, message: str = "", after_s: float = 0.0, **options: Any) -> Act:
    """Fail after that time; `options` as for RpcError."""

    async def act(call: Call) -> Any:
        if after_s:
            await asyncio.sleep(after_s)
        raise RpcError(code, message or code.name.lower(), **options)

    return act


def refuses(after_s: float = 0.0, **options: Any) -> Act:
    """Fail so that the call surely never ran."""
    return fails(message="refused", after_s=after_s, executed=False, origin=Origin.REMOTE, **options)


def each(*acts: Act) -> Act:
    """Another thing each time, and the last for ever."""
    left = list(acts)

    def act(call: Call) -> Awaitable[Any]:
        return (left.pop(0) if len(left) > 1 else left[0])(call)

    return act


async def hangs(call: Call) -> Any:
    """Never answer."""
    await asyncio.get_running_loop().create_future()


async def outcome(handler: Handler, call: Call) -> Any:
    """The result, or the error."""
    try:
        return await handler(call)
    except (RpcError, rpcfw.ServiceError) as error:
        return error


def told(route: Route) -> list[str]:
    """What was noted, without the times."""
    return [f"{note.who}: {note.what}" for note in route.notes]
