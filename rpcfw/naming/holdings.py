"""What one process wants its registries to keep: registrations and names, as often as its blocks are entered.

Each change has a number, so that a registry's answer says which of them it knows. Nothing here speaks to a registry.
"""

from __future__ import annotations

import asyncio
import dataclasses

from rpcfw.errors import Code, RpcError
from rpcfw.naming.interface import Claim
from rpcfw.registry import Registration


@dataclasses.dataclass(slots=True, eq=False)
class Held:
    """One block that is entered, or being entered.

    Attributes:
        registration: what is to be kept, or what `name` is to stand for.
        name: of a binding; empty for a registration.
        replace: whether the name may be taken from another.
        number: of the change that brought it.
        lost: how the name was taken from it; empty while it was not.
    """

    registration: Registration
    name: str = ""
    replace: bool = False
    number: int = 0
    lost: str = ""

    @property
    def what(self) -> tuple[bool, str]:
        """What refusals call it: whether it is a name, and which."""
        return bool(self.name), self.name or self.registration.key


class Holdings:
    """Everything that a process wants to be kept.

    Args:
        lease: names what registries grant to it.

    Attributes:
        number: grows with each change.
    """

    def __init__(self, lease: str) -> None:
        self.lease = lease
        self.number = 0
        self._held: dict[tuple[bool, str], list[Held]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def enter(self, held: Held) -> None:
        """A block is entered; it stands before others of the same key. Raises RpcError ALREADY_EXISTS."""
        others = self._held.get(held.what, [])
        if held.name and others and not held.replace:
            message = f"{held.name!r} is bound already, by this very process; rebind it, or take another name"
            raise RpcError(Code.ALREADY_EXISTS, message, executed=False)
        if held.name:
            for other in others:
                other.lost = f"{held.name!r} was bound anew by this very process"
            self._held.pop(held.what, None)
        self.number += 1
        held.number = self.number
        self._held.setdefault(held.what, []).append(held)

    def drop(self, held: Held) -> bool:
        """A block is left. True when registries have to hear of it."""
        stack = self._held.get(held.what, [])
        if held not in stack:
            return False
        was_wanted = stack[-1] is held
        stack.remove(held)
        if not stack:
            del self._held[held.what]
        if was_wanted:
            self.number += 1
        return was_wanted

    def lose(self, what: tuple[bool, str], message: str) -> None:
        """A registry has given a name to another."""
        for held in self._held.pop(what, []):
            held.lost = message
            self.number += 1

    def clear(self) -> None:
        """All blocks are left."""
        if self._held:
            self._held.clear()
            self.number += 1

    def wanted(self) -> tuple[list[str], list[Claim]]:
        """What is to be kept now, as registries are told it."""
        registrations, claims = [], []
        for stack in self._held.values():
            held = stack[-1]
            text = held.registration.to_json().decode()
            if held.name:
                claims.append(Claim(held.name, held.number, text, held.replace))
            else:
                registrations.append(text)
        return registrations, claims


class Bell:
    """Rung when something has changed that several tasks may wait for."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake all who wait."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, until: float) -> bool:
        """Wait to be woken; False when that did not come about by this time of the loop's clock."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True
