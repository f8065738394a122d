"""The workers of `rpcfw run --workers` as if they were one server: what they serve, where, and how that does.

Each worker tells it over its link to the supervisor. So there is one place in a registry for the port that they
share, and one answer to a probe.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rpcfw.chance import new_rng
from rpcfw.endpoint import Endpoint
from rpcfw.health import Health, Status

logger = logging.getLogger("rpcfw")

PARTING_S = 2.0
"""How long a drain waits for registries."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A service that workers serve: of a `ServiceSpec` what a registry needs."""

    name: str
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """What a worker says of itself, once it serves and again after each change.

    Attributes:
        hint: a command line to try.
        services: names and versions.
        unhealthy: those that do badly.
    """

    hint: str
    services: Mapping[str, str]
    unhealthy: Sequence[str] = ()

    def to_line(self) -> bytes:
        """As it crosses the link."""
        return f"{json.dumps(dataclasses.asdict(self))}\n".encode()

    @classmethod
    def from_line(cls, line: bytes) -> Word:
        """Read it."""
        told: dict[str, Any] = json.loads(line)
        return cls(**told)


class Crew:
    """Workers at shared endpoints: to registries and probes what a `rpcfw.Server` is.

    Attributes:
        instance: names this run of the supervisor; each worker has one of its own.
        specs: the services, known once a worker serves.
        endpoints: where they listen; none before a worker does.
        health: a service does well while it does so at one of the workers.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self.instance = f"{new_rng().getrandbits(64):016x}"
        self.specs: list[Offer] = []
        self.endpoints: tuple[Endpoint, ...] = ()
        self.health = Health(())
        self._endpoints = tuple(Endpoint.parse(url) for url in endpoints)
        self._words: dict[int, Word] = {}
        self._before_drain: list[Callable[[], Awaitable[None]]] = []

    def heard(self, number: int, word: Word) -> None:
        """A worker serves, or says anew how it does."""
        if not self.endpoints:
            self.endpoints = self._endpoints
            self.specs = [Offer(name, version) for name, version in word.services.items()]
            self.health = Health(word.services)
        self._words[number] = word
        self._judge()

    def lost(self, number: int) -> None:
        """A worker serves no more."""
        self._words.pop(number, None)
        self._judge()

    def before_drain(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Have something done first when the drain begins."""
        self._before_drain.append(leave)

    async def part(self, patience_s: float) -> None:
        """Do what is to be done before a drain, for no longer than this."""
        outcomes: list[BaseException | None] = []
        try:
            async with asyncio.timeout(min(patience_s, PARTING_S)):
                outcomes = await asyncio.gather(
                    *(leave() for leave in self._before_drain), return_exceptions=True
                )
        except TimeoutError:
            logger.warning("a registry did not take the workers off its list in time")
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                logger.warning("before the drain: %s", outcome)

    def _judge(self) -> None:
        for name in self.health.services():
            well = any(name not in word.unhealthy for word in self._words.values())
            self.health.set(name, Status.SERVING if well else Status.NOT_SERVING)
