"""What registries kept by a server of their own (etcd, Redis) have in common: an error, pauses, URL options, entries.

Nothing here does I/O. An entry is what anybody with access to the store may have written: it is read with
`from_network`, and one that cannot be read is left out and complained of once, not for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, parse_qsl, urlsplit

from rpcfw.registry.registration import Registration, from_network

log = logging.getLogger("rpcfw.registry")

LONGEST_PAUSE_S = 2.0
_FIRST_PAUSE_S = 0.05
_MAX_COMPLAINTS = 1000
_HEEDED_S = 1.0
_UNSPECIFIED = frozenset({"0.0.0.0", "::"})


class Away(Exception):
    """The store cannot be reached, or does not do what it is asked. The message says which store, and why."""


class Pauses:
    """How long to wait before the next attempt: doubling from 50 ms to 2 s, with jitter over the upper half."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_s = _FIRST_PAUSE_S

    def next_s(self) -> float:
        """The pause before the next attempt, in seconds."""
        pause_s = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def reset(self) -> None:
        """An attempt was successful."""
        self._next_s = _FIRST_PAUSE_S


class Problems:
    """One sentence out of what several tasks have to say: the first of them that has a problem is heard.

    Args:
        tell: called with the sentence when it changes; an empty one when all is well.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._said: dict[str, str] = {}

    def report(self, who: str, problem: str) -> None:
        """What a task has to say now; an empty text when it has no problem, or ends."""
        before = self.first
        if problem:
            if who not in self._said:
                log.warning("%s", problem)
            self._said[who] = problem
        elif self._said.pop(who, None) is not None and not self._said:
            log.info("the registry is back")
        if self.first != before:
            self._tell(self.first)

    @property
    def first(self) -> str:
        """The sentence."""
        return next(iter(self._said.values()), "")


class Entries:
    """Reads entries of one store, and complains once of each that cannot be read."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._complained: set[str] = set()

    def read(self, service: str, key: str, value: bytes) -> Registration | None:
        """The registration kept under a key, or None when it is none, or not one of this service and key."""
        try:
            registration = from_network(value)
            if registration.service != service or registration.key != key:
                raise ValueError(f"it says that it is {registration.key}")
        except ValueError as error:
            self._complain(key, str(error))
            return None
        self._complained.discard(key)
        return registration

    def _complain(self, key: str, why: str) -> None:
        if key in self._complained or len(self._complained) >= _MAX_COMPLAINTS:
            return
        self._complained.add(key)
        log.warning("%s: the entry %.200r is left out: %.300s", self._store, key, why)
        if len(self._complained) == _MAX_COMPLAINTS:
            log.warning("%s: that is the %dth bad entry; no more are told", self._store, _MAX_COMPLAINTS)


def bytes_of(registration: Registration) -> bytes:
    """A registration as a store keeps it. Raises ValueError for one that no reader would take, with the mend."""
    host = registration.endpoint.host
    if host in _UNSPECIFIED:
        raise ValueError(
            f"{registration.endpoint.address} is where a server listens, not where it is reached: "
            "register an address of its host"
        )
    data = registration.to_json()
    from_network(data)
    return data


async def end_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end; again and again those that do not heed it, as a library of theirs may."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_HEEDED_S)


def split_options(url: str, scheme: str, allowed: frozenset[str]) -> tuple[SplitResult, dict[str, str]]:
    """The parts of a registry's URL and the options in its query. Raises ValueError that names what is wrong."""
    parts = urlsplit(url)
    if parts.scheme != scheme:
        raise ValueError(f"{url!r} does not begin with {scheme}://")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - allowed):
        known = ", ".join(sorted(allowed)) or "none"
        raise ValueError(f"{url!r} has the unknown option {', '.join(unknown)}; there are: {known}")
    return parts, options


def seconds(url: str, name: str, text: str) -> float:
    """An option of a URL as a time. Raises ValueError unless it is a number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise ValueError(f"{url!r}: {name}={text!r} must be a number of seconds, over 0 and at most 86400")
    return value
