"""What a registry keeps: leases, the registrations and names under them, and a revision for each service.

A state machine: the time is passed in, whoever must hear of a change is called back, and there is no I/O. What one
client and all of them may hold is bounded here. A registration belongs to who made it last, as in etcd and Redis; a
name to who bound it first.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from rpcfw.errors import Code, RpcError
from rpcfw.naming.interface import Claim, Listed, Refusal
from rpcfw.registry import Registration
from rpcfw.registry.snapshots import MAX_REGISTRATIONS

MAX_NAME = 200
"""The longest name of a binding or a service, in characters."""
MAX_LEASE_CHARACTERS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a registry takes upon itself; beyond it, it refuses with RESOURCE_EXHAUSTED. A client is a host's address.

    Attributes:
        max_registrations: of all services.
        max_per_service: of one service,
        max_service_bytes: and their size, as one snapshot has all of them.
        max_names: bound at a time.
        max_leases: processes that have something registered.
        max_streams: watches and sessions that are open.
        per_client: the share of each of these that one client may hold, above 0 and at most 1.
    """

    max_registrations: int = 20_000
    max_per_service: int = MAX_REGISTRATIONS
    max_service_bytes: int = 8 * 1024 * 1024
    max_names: int = 2_000
    max_leases: int = 20_000
    max_streams: int = 50_000
    per_client: float = 0.25

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "per_client" and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)!r} must be at least 1")
        if not 0 < self.per_client <= 1:
            raise ValueError(f"per_client={self.per_client!r} must be above 0 and at most 1")

    def share(self, most: int) -> int:
        """How much of a bound one client may hold."""
        return max(1, int(most * self.per_client))


@dataclasses.dataclass(slots=True, eq=False)
class _Lease:
    """Of one process: what it has declared, and what of that was taken from it."""

    client: str
    number: int
    ends_at: float
    declared: dict[str, tuple[str, Registration]] = dataclasses.field(default_factory=dict)
    claims: dict[str, Claim] = dataclasses.field(default_factory=dict)
    lost: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    """Of each name that was taken from it, the number of its claim, and how that came."""


@dataclasses.dataclass(slots=True)
class _Shelf:
    """The registrations of one service, each with the lease it is under."""

    entries: dict[str, tuple[Listed, _Lease]] = dataclasses.field(default_factory=dict)
    size: int = 0
    revision: int = 0
    listed: list[Listed] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Binding:
    """A name in the table: what it stands for, since when, and its claim."""

    registration: str
    bound_at: float
    lease: _Lease


class Table:
    """Everything that is registered.

    Args:
        lease_s: how long something is kept without a renewal.
        bounds: see there.
        changed: called with each service that is not as it was.
    """

    def __init__(self, lease_s: float, bounds: Bounds, changed: Callable[[str], None]) -> None:
        self._lease_s = lease_s
        self._bounds = bounds
        self._changed = changed
        self._leases: dict[str, _Lease] = {}  # in the order of their ends, as all are equally long
        self._shelves: dict[str, _Shelf] = {}
        self._names: dict[str, Binding] = {}
        self._revision = 0
        self._declared = 0
        self._leases_of: Counter[str] = Counter()
        self._declared_of: Counter[str] = Counter()
        self._names_of: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------------------ reading

    def revision(self, service: str) -> int:
        """The revision of a service; 0 when nothing is registered for it."""
        shelf = self._shelves.get(service)
        return shelf.revision if shelf is not None else 0

    def listed(self, service: str) -> list[Listed]:
        """All registrations of a service. The list is shared: do not change it."""
        shelf = self._shelves.get(service)
        if shelf is None:
            return []
        if shelf.listed is None:
            shelf.listed = [listed for listed, _ in shelf.entries.values()]
        return shelf.listed

    def services(self) -> list[str]:
        """All services that have a registration."""
        return sorted(self._shelves)

    @property
    def names(self) -> Mapping[str, Binding]:
        """All names."""
        return self._names

    def __len__(self) -> int:
        """How many registrations there are."""
        return sum(len(shelf.entries) for shelf in self._shelves.values())

    # ------------------------------------------------------------------------------------------------ leases

    def register(
        self,
        now: float,
        client: str,
        lease: tuple[str, int],
        registrations: Sequence[tuple[str, Registration]],
        claims: Sequence[Claim],
    ) -> list[Refusal]:
        """Keep exactly these under a lease; what cannot be kept is returned.

        Args:
            now: the time.
            client: who asks.
            lease: its id, and the number of this request.
            registrations: each as text and read.
            claims: names, whose registrations were checked.

        Raises:
            RpcError: ABORTED when a later request of the lease was seen; RESOURCE_EXHAUSTED.
        """
        held = self._renewed(now, client, *lease)
        wanted = {registration.key: (text, registration) for text, registration in registrations}
        for key in [key for key in held.declared if key not in wanted]:
            self._forget(held, key)
        refused = [
            refusal
            for key, (text, registration) in wanted.items()
            if (refusal := self._declare(now, held, key, (text, registration))) is not None
        ]
        for name in [name for name in held.claims if name not in {claim.name for claim in claims}]:
            self._release(held, name)
        held.lost = {claim.name: held.lost[claim.name] for claim in claims if claim.name in held.lost}
        return refused + [
            refusal for claim in claims if (refusal := self._claim(now, held, claim)) is not None
        ]

    def renew(self, now: float, lease: str, number: int) -> list[Refusal] | None:
        """Keep on what was registered; None when it is not known, else what was taken from the lease."""
        held = self._leases.get(lease)
        if held is None or held.number != number:
            return None
        self._leases[lease] = self._leases.pop(lease)
        held.ends_at = now + self._lease_s
        for key, (text, registration) in held.declared.items():
            shelf = self._shelves.get(registration.service)
            if shelf is None or key not in shelf.entries:  # who had taken its place has gone
                self._put(now, held, text, registration)
        return [_lost(name, message) for name, (_, message) in held.lost.items()]

    def unbind(self, name: str) -> bool:
        """Take a name from whoever has it."""
        binding = self._names.get(name)
        if binding is None:
            return False
        self._take(name, binding, f"{name!r} was unbound")
        return True

    def expire(self, now: float) -> None:
        """Drop the leases that have ended."""
        for lease in self._ended(now):
            held = self._leases.pop(lease)
            self._leases_of[held.client] -= 1
            for key in [*held.declared]:
                self._forget(held, key)
            for name in [*held.claims]:
                self._release(held, name)
            self._tidy(held.client)

    def next_end(self) -> float:
        """When the first lease ends; `math.inf` when there is none."""
        return next((held.ends_at for held in self._leases.values()), math.inf)

    def _ended(self, now: float) -> list[str]:
        ended = []
        for lease, held in self._leases.items():
            if held.ends_at > now:
                break
            ended.append(lease)
        return ended

    def _renewed(self, now: float, client: str, lease: str, number: int) -> _Lease:
        held = self._leases.pop(lease, None)
        if held is None:
            bounds = self._bounds
            _check_room("leases", len(self._leases), bounds.max_leases)
            _check_room(f"leases of {client}", self._leases_of[client], bounds.share(bounds.max_leases))
            held = _Lease(client, number, 0.0)
            self._leases_of[client] += 1
        elif number < held.number:
            self._leases[lease] = held
            raise RpcError(Code.ABORTED, f"request {number} of a lease came after its request {held.number}")
        self._leases[lease] = held
        held.number, held.ends_at = number, now + self._lease_s
        return held

    # ------------------------------------------------------------------------------------------ registrations

    def _declare(
        self, now: float, held: _Lease, key: str, wanted: tuple[str, Registration]
    ) -> Refusal | None:
        text, registration = wanted
        before = held.declared.get(key)
        shelf = self._shelves.get(registration.service)
        entry = shelf.entries.get(key) if shelf is not None else None
        if before is not None and before[0] == text and entry is not None:
            return None  # known already; if another has taken its place meanwhile, it is that one's
        why = self._no_room(held, before is None, shelf, len(text), entry)
        if why:
            return Refusal(key, False, Code.RESOURCE_EXHAUSTED, why)
        if before is None:
            self._declared += 1
            self._declared_of[held.client] += 1
        held.declared[key] = wanted
        self._put(now, held, text, registration)
        return None

    def _no_room(
        self, held: _Lease, is_new: bool, shelf: _Shelf | None, size: int, entry: tuple[Listed, _Lease] | None
    ) -> str:
        bounds = self._bounds
        if is_new and self._declared >= bounds.max_registrations:
            return f"this registry holds {bounds.max_registrations:,} registrations, which is its limit"
        share = bounds.share(bounds.max_registrations)
        if is_new and self._declared_of[held.client] >= share:
            return f"{held.client} has {share:,} registrations here, which is the limit of a client"
        if shelf is None:
            return ""
        if entry is None and len(shelf.entries) >= bounds.max_per_service:
            return f"the service has {bounds.max_per_service:,} registrations here, which is the limit"
        before = len(entry[0].registration) if entry is not None else 0
        if shelf.size + size - before > bounds.max_service_bytes:
            return f"the registrations of the service take {bounds.max_service_bytes:,} bytes, which is the limit"
        return ""

    def _put(self, now: float, held: _Lease, text: str, registration: Registration) -> None:
        shelf = self._shelves.setdefault(registration.service, _Shelf())
        before = shelf.entries.pop(registration.key, None)
        if before is not None:
            shelf.size -= len(before[0].registration)
        shelf.entries[registration.key] = Listed(registration.endpoint.address, text, now), held
        shelf.size += len(text)
        shelf.listed = None
        if before is None or before[0].registration != text:
            self._news(registration.service, shelf)

    def _forget(self, held: _Lease, key: str) -> None:
        """A lease declares this no more."""
        _, registration = held.declared.pop(key)
        self._declared -= 1
        self._declared_of[held.client] -= 1
        service = registration.service
        shelf = self._shelves.get(service)
        if shelf is None or key not in shelf.entries or shelf.entries[key][1] is not held:
            return  # another has taken its place
        listed, _ = shelf.entries.pop(key)
        shelf.size -= len(listed.registration)
        shelf.listed = None
        if not shelf.entries:
            del self._shelves[service]
        self._news(service, shelf)

    def _news(self, service: str, shelf: _Shelf) -> None:
        self._revision += 1
        shelf.revision = self._revision
        self._changed(service)

    # ------------------------------------------------------------------------------------------------ names

    def _claim(self, now: float, held: _Lease, claim: Claim) -> Refusal | None:
        name = claim.name
        lost = held.lost.get(name)
        if lost is not None and lost[0] == claim.number:
            return _lost(name, lost[1])
        binding = self._names.get(name)
        if held.claims.get(name) == claim and binding is not None and binding.lease is held:
            return None
        if binding is not None and binding.lease is not held and not claim.replace:
            message = f"{name!r} is bound already, to {_said(binding.registration)}; rebind it, or take another name"
            return Refusal(name, True, Code.ALREADY_EXISTS, message)
        share = self._bounds.share(self._bounds.max_names)
        if binding is None and len(self._names) >= self._bounds.max_names:
            message = f"this registry has {self._bounds.max_names:,} names, which is its limit"
            return Refusal(name, True, Code.RESOURCE_EXHAUSTED, message)
        if name not in held.claims and self._names_of[held.client] >= share:
            message = f"{held.client} has {share:,} names here, which is the limit of a client"
            return Refusal(name, True, Code.RESOURCE_EXHAUSTED, message)
        if binding is not None and binding.lease is not held:
            self._take(name, binding, f"{name!r} was bound anew, to {_said(claim.registration)}")
        if name not in held.claims:
            self._names_of[held.client] += 1
        held.lost.pop(name, None)
        held.claims[name] = claim
        self._names[name] = Binding(claim.registration, now, held)
        return None

    def _take(self, name: str, binding: Binding, message: str) -> None:
        """A name is taken from who has it, which hears of it when it renews."""
        held = binding.lease
        claim = held.claims[name]
        self._release(held, name)
        held.lost[name] = claim.number, message

    def _release(self, held: _Lease, name: str) -> None:
        del held.claims[name]
        self._names_of[held.client] -= 1
        if (binding := self._names.get(name)) is not None and binding.lease is held:
            del self._names[name]

    def _tidy(self, client: str) -> None:
        """Remember nothing of a client that has nothing here."""
        for counter in (self._leases_of, self._declared_of, self._names_of):
            if not counter[client]:
                del counter[client]


def check_words(what: str, words: Iterable[str], most: int) -> None:
    """Refuse names that are empty, too long, or not to be printed. Raises RpcError INVALID_ARGUMENT."""
    for word in words:
        if not 0 < len(word) <= most or not word.isprintable():
            raise RpcError(
                Code.INVALID_ARGUMENT,
                f"{what} {word[:60]!r} must be printable text of 1 to {most} characters",
            )


def _check_room(what: str, number: int, most: int) -> None:
    if number >= most:
        raise RpcError(
            Code.RESOURCE_EXHAUSTED, f"this registry has {most:,} {what}, which is its limit", executed=False
        )


def _lost(name: str, message: str) -> Refusal:
    return Refusal(name, True, Code.ABORTED, message)


def _said(text: str) -> str:
    registration = Registration.from_json(text)
    return f"{registration.service} at {registration.endpoint.address}"
