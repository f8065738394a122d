"""Redis as registries use it: scripts, a stream of changes, and the `Store` of one process.

Whatever goes wrong is an `Away` that says where and why. Needs redis-py, whose own retries are off: when to try again
is decided by who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
from collections.abc import AsyncIterator, Collection
from typing import Any, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from rpcfw.registry.redis_scripts import PUT, READ, REMOVE, SERVICES, channel_of, keys_of, services_of
from rpcfw.registry.registration import MAX_REGISTRATION_BYTES, Registration
from rpcfw.registry.remote import Away, bytes_of
from rpcfw.registry.snapshots import MAX_REGISTRATIONS

MAX_SERVICES = 20_000
SILENCE_S = 5.0
"""After so long without a change the server is asked for a sign of life, and given as long to answer."""
_AT_ONCE = 4
"""Requests under way at a time; each has a connection."""
_OWNER_BITS = 64
_WHAT = "is it a Redis server, with TLS (rediss://) or not?"


class Server:
    """One Redis. Opened by the first request.

    Args:
        url: as redis-py has it: ``redis://user:password@host:port/0``.
        name: how to name it in messages, without the password.
        prefix: what all keys begin with.
        timeout_s: for one request.
    """

    def __init__(self, url: str, *, name: str, prefix: str, timeout_s: float) -> None:
        self._name = name
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._client = redis.asyncio.Redis.from_url(
            url,
            # Times are kept by `run`: redis-py's own way, asyncio.wait_for, loses cancellations before Python 3.12.
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )

    async def run(self, script: str, keys: tuple[str, ...], *arguments: str | bytes) -> Any:
        """Run a script. Raises `Away`."""
        async with self._turn:
            with self._translated():
                async with asyncio.timeout(self._timeout_s):
                    return await cast(Any, self._client.eval(script, len(keys), *keys, *arguments))

    async def read(self, service: str) -> tuple[str, list[tuple[str, bytes, float]]]:
        """The epoch, empty when nothing is kept at all; and the entries of a service. Raises `Away`.

        An entry is address, JSON, and the seconds left of the lease.
        """
        limit, longest = str(MAX_REGISTRATIONS + 1), str(MAX_REGISTRATION_BYTES + 100)
        epoch, *flat = await self.run(READ, keys_of(self._prefix, service), limit, longest)
        rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return epoch.decode(errors="replace"), [
            (address.decode(errors="replace"), value.partition(b" ")[2], int(left_ms) / 1000)
            for address, value, left_ms in rows
        ]

    async def services(self) -> frozenset[str]:
        """The services that have registrations. Raises `Away`."""
        names = await self.run(SERVICES, (services_of(self._prefix),), str(MAX_SERVICES))
        return frozenset(name.decode(errors="replace") for name in names)

    @contextlib.asynccontextmanager
    async def changes(self) -> AsyncIterator[Changes]:
        """What servers tell of their registrations from now on. Raises `Away`, also inside, when it breaks."""
        pubsub = self._client.pubsub()
        try:
            with self._translated():
                async with asyncio.timeout(self._timeout_s):
                    await pubsub.subscribe(channel_of(self._prefix))
                yield Changes(pubsub, self._name)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await cast(Any, pubsub).aclose()

    async def close(self) -> None:
        """Give up all connections. May be called again."""
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except TimeoutError:
            raise Away(f"redis at {self._name} does not answer in time") from None
        except (RedisError, OSError) as error:
            raise Away(f"redis at {self._name}{_trouble(error)}") from error


def _trouble(error: RedisError | OSError) -> str:
    """Why it does not do what it is asked, and the mend."""
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno:
        why = os.strerror(cause.errno).lower()
        check = "check that Redis runs and listens exactly there"
        if cause.errno in (errno.ECONNRESET, errno.EPIPE):
            check = _WHAT
        return f" cannot be reached: {why}; {check}"
    if isinstance(error, AuthenticationError):
        return f" refuses this user: {error}; give user and password in the URL: redis://USER:PASSWORD@HOST"
    said = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, RedisConnectionError | InvalidResponse):
        return f": {said[0].lower()}{said[1:]}; {_WHAT}"
    return f": {error or type(error).__name__}"


class Changes:
    """What is told on the channel, one line after the other."""

    def __init__(self, pubsub: Any, name: str) -> None:
        self._pubsub = pubsub
        self._name = name

    async def next(self) -> str:
        """The service of which something has changed; empty when the subscription begins. Raises `Away`."""
        asked = False
        while True:
            message = await self._pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if asked:
                    raise Away(f"redis at {self._name} does not answer in time")
                await self._pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                return ""
            if message["type"] == "message":
                service: str = message["data"].decode(errors="replace")
                return service


class Leases:
    """The `Store` of one process: each registration has a lease of its own."""

    def __init__(self, server: Server, prefix: str, lease_s: float, rng: random.Random) -> None:
        self._server = server
        self._prefix = prefix
        self._lease_ms = str(max(1, round(lease_s * 1000)))
        self._owner = f"{rng.getrandbits(_OWNER_BITS):016x}"

    async def put(self, registration: Registration) -> None:
        """See `Store.put`."""
        await self._put(registration, "put")

    async def renew(self, registrations: Collection[Registration]) -> tuple[str, ...]:
        """See `Store.renew`. What the server has forgotten is made again at once, so none is ever missing."""
        for registration in registrations:
            await self._put(registration, "renew")
        return ()

    async def remove(self, registration: Registration) -> None:
        """See `Store.remove`."""
        await self._server.run(
            REMOVE, keys_of(self._prefix, registration.service), *self._named(registration)
        )

    async def end(self) -> None:
        """See `Store.end`."""

    async def _put(self, registration: Registration, how: str) -> None:
        json = bytes_of(registration)
        keys = keys_of(self._prefix, registration.service)
        await self._server.run(PUT, keys, *self._named(registration), json, self._lease_ms, how)

    def _named(self, registration: Registration) -> tuple[str, str, str, str]:
        channel = channel_of(self._prefix)
        return registration.endpoint.address, self._owner, registration.service, channel
