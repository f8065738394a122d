"""The registry in etcd, over its JSON gateway: `EtcdRegistry` joins a lease, a follower per service, and a board.

Registrations stand under ``prefix/service/address`` in the JSON of `Registration`, so that ``etcdctl get --prefix``
shows them. Needs ``pip install 'rpcfw[etcd]'``, which is imported when a registry is made and not before.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from rpcfw.chance import new_rng
from rpcfw.errors import Code, RpcError
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Problems, end_all, seconds, split_options
from rpcfw.registry.snapshots import Board
from rpcfw.registry.upkeep import Upkeep

if TYPE_CHECKING:
    from rpcfw.registry.etcd_gateway import Gateway

LEASE_S = 10.0
TIMEOUT_S = 5.0
MAX_KEYS = 20_000
"""The most registrations that `EtcdRegistry.services` looks at."""
_PORT = 2379
_OPTIONS = frozenset({"lease_s", "timeout_s", "ca", "cert", "key"})


class EtcdRegistry:
    """Keeps who offers what in etcd 3.4 or later.

    Attributes:
        problem: why etcd cannot be reached at present, a sentence; empty when all is well.

    Args:
        urls: ``http://host:port`` of each member; one is used until it fails, then the next.
        prefix: what all keys begin with.
        lease_s: after so long without a sign of life a registration goes, rounded up to whole seconds. etcd raises it
            to one and a half election timeouts (2 s by default).
        timeout_s: how long `register` and `services` wait for an answer.
        tls: for ``https`` URLs.

    Raises:
        ValueError: at a URL or time that cannot be used.
        ImportError: without aiohttp.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        prefix: str = "rpcfw",
        lease_s: float = LEASE_S,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not urls:
            raise ValueError("an etcd registry needs the URL of a member: http://127.0.0.1:2379")
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is not the URL of an etcd member: write http://127.0.0.1:2379")
        self.problem = ""
        self._prefix = prefix.strip("/") or "rpcfw"
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._gateway = _gateway(urls, timeout_s, tls)
        self._board = Board(first=self._first, last=self._last)
        self._problems = Problems(self._told)
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._upkeep: Upkeep | None = None

    @classmethod
    def from_url(cls, url: str) -> EtcdRegistry:
        """Read ``etcd://host:port,host:port/prefix?lease_s=10&timeout_s=5``.

        ``ca``, or ``cert`` and ``key`` with it, name files and make it TLS. Raises ValueError that names what is wrong.
        """
        parts, options = split_options(url, "etcd", _OPTIONS)
        if "@" in parts.netloc:
            raise ValueError(
                "an etcd URL takes no user: etcd's JSON gateway is protected by TLS (ca, cert, key)"
            )
        tls = None
        if options.keys() & {"ca", "cert", "key"}:
            tls = ssl.create_default_context(cafile=options.get("ca"))
            if "cert" in options:
                tls.load_cert_chain(options["cert"], options.get("key"))
        scheme = "https" if tls is not None else "http"
        members = [_member(url, member) for member in (parts.netloc or "127.0.0.1").split(",")]
        return cls(
            [f"{scheme}://{member}" for member in members],
            prefix=parts.path,
            lease_s=seconds(url, "lease_s", options.get("lease_s", str(LEASE_S))),
            timeout_s=seconds(url, "timeout_s", options.get("timeout_s", str(TIMEOUT_S))),
            tls=tls,
        )

    def register(self, registration: Registration) -> AbstractAsyncContextManager[None]:
        """See `Registry.register`."""
        if self._upkeep is None:
            from rpcfw.registry.etcd_lease import Lease

            self._upkeep = Upkeep(
                Lease(self._gateway, self._prefix, self._lease_s),
                lease_s=self._lease_s,
                timeout_s=self._timeout_s,
                report=lambda problem: self._problems.report("registrations", problem),
                rng=new_rng(),
            )
        return self._upkeep.register(registration)

    def watch(self, service: str) -> AsyncGenerator[frozenset[Registration], None]:
        """See `Registry.watch`. Watchers of one service share one stream."""
        return self._board.watch(service)

    async def services(self) -> frozenset[str]:
        """See `Registry.services`. Raises RpcError UNAVAILABLE."""
        from rpcfw.registry.etcd_gateway import Ranged
        from rpcfw.registry.etcd_keys import folder_of, range_of, service_of

        body = {**range_of(folder_of(self._prefix)), "keys_only": True, "limit": MAX_KEYS}
        try:
            async with asyncio.timeout(self._timeout_s):
                ranged = await self._gateway.ask("kv/range", body, Ranged)
        except Away as away:
            raise RpcError(Code.UNAVAILABLE, str(away)) from away
        except TimeoutError:
            raise RpcError(Code.UNAVAILABLE, f"etcd does not answer within {self._timeout_s:g} s") from None
        return frozenset(service_of(self._prefix, entry.key) for entry in ranged.kvs) - {""}

    async def close(self) -> None:
        """See `Registry.close`. What is registered is taken back, unless etcd is away."""
        if self._upkeep is not None:
            await self._upkeep.close()
        self._board.close()
        await end_all([*self._followers.values(), *self._ending])
        self._followers.clear()
        await self._gateway.close()

    # ------------------------------------------------------------------------------------ watched services

    def _first(self, service: str) -> None:
        from rpcfw.registry.etcd_watch import Follower

        follower = Follower(
            self._gateway,
            self._prefix,
            service,
            grace_s=self._lease_s,
            publish=lambda registrations: self._board.publish(service, registrations),
        )

        def report(problem: str) -> None:
            self._problems.report(service, problem)

        task = asyncio.create_task(follower.run(report, new_rng()), name=f"rpcfw watch of {service}")
        self._followers[service] = task

    def _last(self, service: str) -> None:
        task = self._followers.pop(service, None)
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._board.forget(service)
        self._problems.report(service, "")

    def _told(self, problem: str) -> None:
        self.problem = problem


def _gateway(urls: Sequence[str], timeout_s: float, tls: ssl.SSLContext | None) -> Gateway:
    try:
        from rpcfw.registry.etcd_gateway import Gateway
    except ModuleNotFoundError as error:
        raise ImportError(f"a registry in etcd needs {error.name}: pip install 'rpcfw[etcd]'") from error
    # Two members at least are tried within the time of a call.
    return Gateway(urls, timeout_s=timeout_s / min(2, len(urls)), tls=tls)


def _member(url: str, member: str) -> str:
    """``host:port`` of one member, with etcd's own port where none is given. Raises ValueError."""
    host, colon, port = member.rpartition(":")
    if not colon or member.endswith("]"):
        host, port = member, str(_PORT)
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(
            f"{url!r}: {member!r} is not host:port: write etcd://127.0.0.1:2379,127.0.0.1:2380/prefix"
        )
    return f"{host}:{port}"
