"""Bare uvloop datagrams: sent in bursts, each confirmed by one datagram, so that none is lost for want of a buffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.drive import WARM_UP_S, Meter
from benchmarks.subject import Sample, Subject, Task, Workload

BURST = 64
_BYTES = 60
"""A header, the name of a method and a number."""
_PATIENCE_S = 0.05


class Datagrams(Subject):
    """One system call for each datagram on both sides."""

    name = "raw uvloop, datagrams"
    packages = ("uvloop",)
    workloads = frozenset({Workload.ONEWAY})
    setting = f"{_BYTES} bytes each, {BURST} at a time, then one datagram back"

    def serve(self, ready: Callable[[str], None]) -> None:
        uvloop.run(_serve(ready))

    def measure(self, address: str, task: Task) -> Sample:
        return uvloop.run(_measure(int(address), task.seconds))


class _Server(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]  # of datagrams

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._count += 1
        if data[0]:  # the last of a burst
            self._transport.sendto(self._count.to_bytes(4, "little"), addr)
            self._count = 0


class _Client(asyncio.DatagramProtocol):
    confirmed: asyncio.Future[int]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.confirmed.done():
            self.confirmed.set_result(int.from_bytes(data, "little"))


async def _serve(ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_Server, local_addr=("127.0.0.1", 0))
    ready(str(transport.get_extra_info("sockname")[1]))
    await loop.create_future()


async def _measure(port: int, seconds: float) -> Sample:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(_Client, remote_addr=("127.0.0.1", port))
    await _bursts(transport, client, WARM_UP_S)
    sample = await _bursts(transport, client, seconds)
    transport.close()
    return sample


async def _bursts(transport: asyncio.DatagramTransport, client: _Client, seconds: float) -> Sample:
    loop = asyncio.get_running_loop()
    one, last = bytes(_BYTES), b"\1" + bytes(_BYTES - 1)
    count, meter = 0, Meter()
    while meter.elapsed_s < seconds:
        client.confirmed = loop.create_future()
        for _ in range(BURST - 1):
            transport.sendto(one)
        transport.sendto(last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                count += await client.confirmed
    return meter.sample(count)


SUBJECT = Datagrams()
