"""The `Store` of one process on the network: says again and again that its registrations are there, or that they left.

Whether multicast works is not asked of the system but found out: what is said has to be heard by ourselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Collection

from zeroconf import ServiceInfo

from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away
from rpcfw.registry.zeroconf_network import Network
from rpcfw.registry.zeroconf_records import TYPE, label_of, txt_of

HEARD_S = 0.25
"""What we say, we hear within this time, or not at all."""
_ATTEMPTS = 4
_AT_ONCE = 50
"""Announcements sent without a pause."""
_PAUSE_S = 0.01


Heard = tuple[bytes, float] | None


class Announcer:
    """Announces registrations.

    Args:
        network: where.
        group: in which.
        owner: names this process.
        ttl_s: after so long without another announcement they are to be forgotten.
        heard: the TXT last heard under a label, and until when it is believed.
    """

    def __init__(
        self, network: Network, *, group: str, owner: str, ttl_s: float, heard: Callable[[str], Heard]
    ) -> None:
        self._network = network
        self._group = group
        self._owner = owner
        self._ttl_s = max(1, round(ttl_s))
        self._heard = heard
        self._infos: dict[str, ServiceInfo] = {}
        self._news = asyncio.Event()
        self.overrun = False
        """Packets had to be dropped since the last renewal: that we do not hear ourselves says nothing."""

    def listen(self) -> None:
        """Something was heard."""
        self._news.set()

    async def put(self, registration: Registration) -> None:
        """See `Store.put`."""
        info = await self._info(registration)
        await self._network.open()
        self._infos[registration.key] = info
        await self._announce(info)

    async def remove(self, registration: Registration) -> None:
        """See `Store.remove`. Said twice, for nobody confirms it."""
        info = self._infos.pop(registration.key, None)
        if info is not None:
            self._network.retract(info)
            self._network.retract(info)

    async def renew(self, registrations: Collection[Registration]) -> list[str]:
        """See `Store.renew`. That we hear the last of them tells that the network works."""
        self.overrun = False
        await self._network.open()
        infos = [
            self._infos[registration.key] for registration in registrations if registration.key in self._infos
        ]
        for number, info in enumerate(infos[:-1]):
            self._network.announce(info)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(_PAUSE_S)
        if infos:
            await self._announce(infos[-1])
        return [registration.key for registration in registrations if registration.key not in self._infos]

    async def end(self) -> None:
        """See `Store.end`."""

    async def _info(self, registration: Registration) -> ServiceInfo:
        label = label_of(self._owner, registration.key)
        return ServiceInfo(
            TYPE,
            f"{label}.{TYPE}",
            registration.endpoint.port,
            properties=txt_of(registration, self._group),
            server=f"{label}.local.",
            host_ttl=self._ttl_s,
            other_ttl=self._ttl_s,
            parsed_addresses=await addresses_of(registration.endpoint.host),
        )

    async def _announce(self, info: ServiceInfo) -> None:
        """Announce until it is heard. Raises `Away`, and closes the network, for sockets may have outlived theirs."""
        label = info.name.removesuffix(f".{TYPE}")
        before = self._heard(label)
        for _ in range(_ATTEMPTS):
            self._network.announce(info)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARD_S):
                    while (heard := self._heard(label)) == before or heard is None or heard[0] != info.text:
                        self._news.clear()
                        await self._news.wait()
                    return
            if self.overrun:
                return
        await self._network.close()
        raise Away(self._network.unheard)


async def addresses_of(host: str) -> list[str]:
    """The addresses of a server's host. Raises `Away` for a name that cannot be resolved."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Away(
            f"{host!r} cannot be resolved: {error}; register an address instead of the name"
        ) from error
    return sorted({str(entry[4][0]) for entry in found})
