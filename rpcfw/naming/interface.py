"""What rpcfw's own registry is asked and says: an ordinary service, `NameService`, and its messages.

Whoever speaks rpcfw can ask it; nothing here keeps or decides anything. The shape is that of Jini's and Java RMI's
registries: leases that the registry grants, and names that are bound to one server each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

from rpcfw.interface import idempotent, service

REGISTRY = "rpcfw.Registry"
DEFAULT_PORT = 7400
LEASE_S = 10.0
"""How long a registration outlives its server, unless the registry is told otherwise."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What a registry says to who begins a session.

    Attributes:
        run: names this run of the registry; another one knows nothing of what this one was told.
        lease_s: how long what it is told holds without a renewal.
    """

    run: str
    lease_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A name that is to be bound.

    Attributes:
        name: any text of at most `MAX_NAME` characters.
        number: tells this claim from an earlier one of the same process for the same name.
        registration: what it is to stand for, as `Registration.to_json` writes it.
        replace: whether it may be taken from another.
    """

    name: str
    number: int
    registration: str
    replace: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Something that the registry does not keep.

    Attributes:
        what: the key of a registration, or a name.
        is_name: which of the two.
        code: why, as a number of `Code`.
        message: why, in words.
    """

    what: str
    is_name: bool
    code: int
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Granted:
    """What was asked for is kept, but for what is refused, for `lease_s` seconds from now on."""

    lease_s: float
    refused: list[Refusal] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """One registration.

    Attributes:
        address: of the server.
        registration: as `Registration.to_json` writes it.
        put_at: since when it is so, in seconds of the registry's clock.
    """

    address: str
    registration: str
    put_at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """All registrations of a service.

    Attributes:
        revision: tells states of the service apart, within one run.
        now: the registry's clock.
        settling_s: the registry has started lately; for so many seconds more it may not know all.
        registrations: none where the asker knows this revision already.
    """

    revision: int
    now: float
    settling_s: float
    registrations: list[Listed] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A name and what it stands for; `age_s` is for how many seconds it has done so."""

    name: str
    registration: str
    age_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a name stands for: None when it is not bound, though perhaps only not yet while `settling_s` is above 0."""

    bound: Bound | None
    settling_s: float


@service(REGISTRY)
class NameService(Protocol):
    """Keeps who offers what, as long as they renew their leases, and names for single servers."""

    def session(self) -> AsyncIterator[Terms]:
        """Say once what holds here, and stay as long as the registry does: its end tells that the registry went."""
        ...

    @idempotent
    async def register(
        self, lease: str, number: int, registrations: list[str], names: list[Claim]
    ) -> Granted:
        """Keep exactly this from now on under a lease; what it kept before and is not mentioned goes.

        Args:
            lease: a text that nobody else can guess; the lease is made when it is not known.
            number: grows with each change, so that a request which arrives late changes nothing (ABORTED).
            registrations: as `Registration.to_json` writes them; each takes its endpoint's place from who had it.
            names: those that are to be bound.

        RESOURCE_EXHAUSTED when this client holds too much already; INVALID_ARGUMENT for what is no registration.
        """
        ...

    @idempotent
    async def renew(self, lease: str, number: int) -> Granted | None:
        """Keep on what was registered with this number. None when that is not known: register again."""
        ...

    @idempotent
    async def withdraw(self, lease: str, number: int) -> None:
        """Keep nothing under this lease any more."""
        ...

    def watch(self, service: str, run: str = "", revision: int = -1) -> AsyncIterator[Snapshot]:
        """All registrations of a service: at once, and again after each change; several changes may come as one.

        Who gives the run and the revision known is not told again what it knows.
        """
        ...

    @idempotent
    async def services(self) -> list[str]:
        """The names of all services that have a registration."""
        ...

    @idempotent
    async def find(self, name: str) -> Answer:
        """What a name stands for."""
        ...

    @idempotent
    async def names(self) -> list[Bound]:
        """All names, and what they stand for."""
        ...

    @idempotent
    async def unbind(self, name: str) -> bool:
        """Take a name from whoever has it. False when it was not bound."""
        ...
