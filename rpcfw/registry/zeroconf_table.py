"""What was heard on the network, as registrations: bounded in number and size, and forgotten when it is not repeated.

No I/O and no clock: what packets say and ``now`` are passed in. Anybody on the network can say anything (RFC 6762
section 21), so a flood must cost neither memory nor what is known: past the bounds only what is new is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from rpcfw.registry.registration import Registration
from rpcfw.registry.zeroconf_records import Address, Parts, Said, registration_of

log = logging.getLogger("rpcfw.registry")

MAX_OF_A_SERVICE = 1000
MAX_IN_ALL = 4000
MAX_INCOMPLETE = 500
"""Registrations of which some records are still missing; past it the one that waits longest is dropped."""
MAX_ADDRESSES = 8
LONGEST_TTL_S = 120.0
SHORTEST_TTL_S = 1.0
_MAX_WARNINGS = 100


class _Entry:
    __slots__ = ("heard_first", "parts", "registration", "until")

    def __init__(self, parts: Parts, registration: Registration, until: float, heard_first: int) -> None:
        self.parts = parts
        self.registration = registration
        self.until = until
        self.heard_first = heard_first


class Table:
    """The registrations heard of.

    Args:
        group: only what is said in this group counts.
        credible: whether an address can be a server's, on the network we listen to.
    """

    def __init__(self, group: str, credible: Callable[[Address], bool]) -> None:
        self._group = group
        self._credible = credible
        self._entries: dict[str, _Entry] = {}
        self._labels: dict[str, set[str]] = {}
        """Of each service the labels."""
        self._incomplete: dict[str, Parts] = {}
        self._warned: set[str] = set()
        self._heard = 0
        self._frozen_until = 0.0

    # ------------------------------------------------------------------------------------ what is known

    def of(self, service: str) -> frozenset[Registration]:
        """The registrations of a service. Of several with one key that of the server which started last is taken."""
        chosen: dict[str, _Entry] = {}
        for label in self._labels.get(service, ()):
            entry = self._entries[label]
            other = chosen.get(entry.registration.key)
            if other is None or _age(other) < _age(entry):
                chosen[entry.registration.key] = entry
        return frozenset(entry.registration for entry in chosen.values())

    def services(self) -> frozenset[str]:
        """The services that have registrations."""
        return frozenset(self._labels)

    def heard(self, label: str) -> tuple[bytes, float] | None:
        """The TXT last heard under a label, and until when it is believed; None when nothing is known."""
        entry = self._entries.get(label)
        return None if entry is None else (entry.parts.txt or b"", entry.until)

    def left_s(self, now: float) -> dict[str, float]:
        """The labels that are known, and for how many seconds each is still believed."""
        return {label: entry.until - now for label, entry in self._entries.items()}

    def __len__(self) -> int:
        return len(self._entries) + len(self._incomplete)

    # ------------------------------------------------------------------------------------ what is heard

    def hear(self, said: Mapping[str, Said], now: float) -> set[str]:
        """Take in what a packet says, by label. Gives the services that have changed."""
        changed: set[str] = set()
        for label, words in said.items():
            if words.goodbye:
                self._incomplete.pop(label, None)
                changed |= self._remove(label)
            else:
                changed |= self._merge(label, words, now)
        return changed

    def _merge(self, label: str, words: Said, now: float) -> set[str]:
        known = self._entries.get(label)
        parts = known.parts if known is not None else self._incomplete.pop(label, Parts())
        merged = Parts(
            words.parts.txt if words.parts.txt is not None else parts.txt,
            words.parts.port or parts.port,
            words.parts.addresses[:MAX_ADDRESSES] or parts.addresses,
        )
        if not merged.complete:
            if len(self._incomplete) >= MAX_INCOMPLETE:
                del self._incomplete[next(iter(self._incomplete))]
            self._incomplete[label] = merged
            return set()
        ttl_s = min(max(words.ttl_s, SHORTEST_TTL_S), LONGEST_TTL_S)
        if known is not None and merged == known.parts:
            known.until = now + ttl_s
            return set()
        registration = self._registration(label, merged)
        if registration is None:
            return self._remove(label)
        service = registration.service
        changed = (
            self._remove(label) if known is not None and known.registration.service != service else set()
        )
        if known is None and not self._has_room(service):
            return changed
        self._heard += 1
        self._entries[label] = _Entry(merged, registration, now + ttl_s, self._heard)
        self._labels.setdefault(service, set()).add(label)
        return changed | {service}

    def _registration(self, label: str, parts: Parts) -> Registration | None:
        assert parts.txt is not None
        credible = sorted(
            filter(self._credible, parts.addresses), key=lambda address: (address.version, int(address))
        )
        try:
            if not credible:
                raise ValueError(
                    f"{', '.join(map(str, parts.addresses))} is no address that a server can have here"
                )
            return registration_of(parts.txt, credible[0], parts.port, self._group)
        except ValueError as error:  # of which UnicodeDecodeError is one
            self._warn(label, f"what the network says under {label!r} is left out: {str(error)[:300]}")
            return None

    def _has_room(self, service: str) -> bool:
        if len(self._entries) >= MAX_IN_ALL:
            self._warn("", f"the network has more than {MAX_IN_ALL:,} registrations: new ones are left out")
            return False
        if len(self._labels.get(service, ())) >= MAX_OF_A_SERVICE:
            text = f"{service} has more than {MAX_OF_A_SERVICE:,} registrations on the network: new ones are left out"
            self._warn(f" {service}", text)
            return False
        return True

    def _remove(self, label: str) -> set[str]:
        entry = self._entries.pop(label, None)
        if entry is None:
            return set()
        service = entry.registration.service
        labels = self._labels[service]
        labels.discard(label)
        if not labels:
            del self._labels[service]
        return {service}

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(about)
            log.warning("%s", text)

    # ------------------------------------------------------------------------------------ what is over

    def freeze(self, until: float) -> None:
        """Forget nothing before this moment: packets are being dropped, so silence says nothing."""
        self._frozen_until = max(self._frozen_until, until)

    def expire(self, now: float) -> set[str]:
        """Forget what was not repeated in time. Gives the services that have changed."""
        if now < self._frozen_until:
            return set()
        changed: set[str] = set()
        for label in [label for label, entry in self._entries.items() if entry.until <= now]:
            changed |= self._remove(label)
        return changed

    def next_expiry(self) -> float | None:
        """When `expire` will have something to do; None when there is nothing to forget."""
        if not self._entries:
            return None
        return max(min(entry.until for entry in self._entries.values()), self._frozen_until)


def _age(entry: _Entry) -> tuple[float, int]:
    return entry.registration.started_at, entry.heard_first
