"""One-way calls, over datagrams and over TCP, in bursts; what arrived is asked for over TCP after each."""

from __future__ import annotations

from collections.abc import Callable

import uvloop

import rpcfw
from benchmarks.drive import WARM_UP_S, Meter
from benchmarks.limits.datagrams import BURST
from benchmarks.ours.contract import Journal
from benchmarks.subject import Sample, Subject, Task, Workload


class Tcp(Subject):
    """Over the connection that all calls share."""

    name = "rpcfw, one-way over TCP"
    packages = ("rpcfw", "uvloop")
    workloads = frozenset({Workload.ONEWAY})
    setting = f"{BURST} calls at a time, then an ordinary call"

    def serve(self, ready: Callable[[str], None]) -> None:
        uvloop.run(_serve(ready))

    def measure(self, address: str, task: Task) -> Sample:
        tcp, udp = address.split()
        return uvloop.run(self._measure(tcp, udp, task.seconds))

    def road(self, tcp: str, udp: str) -> str:
        """The endpoint that the one-way calls go to."""
        return tcp

    async def _measure(self, tcp: str, udp: str, seconds: float) -> Sample:
        async with rpcfw.connect(tcp) as client, rpcfw.connect(self.road(tcp, udp)) as oneway:
            asks, sends = (
                client.stub(Journal),
                (client if self.road(tcp, udp) == tcp else oneway).stub(Journal),
            )
            await _bursts(asks, sends, WARM_UP_S)
            return await _bursts(asks, sends, seconds)


class Udp(Tcp):
    """A datagram for each call."""

    name = "rpcfw, datagrams"

    def road(self, tcp: str, udp: str) -> str:
        return udp


async def _serve(ready: Callable[[str], None]) -> None:
    async with rpcfw.serve(Journal(), listen=["tcp://127.0.0.1:0", "udp://127.0.0.1:0"]) as server:
        ready(" ".join(str(endpoint) for endpoint in server.endpoints))
        await server.wait_closed()


async def _bursts(asks: Journal, sends: Journal, seconds: float) -> Sample:
    before = arrived = await asks.arrived(0)
    meter = Meter()
    while meter.elapsed_s < seconds:
        for number in range(BURST):
            await sends.seen(number)
        arrived = await asks.arrived(arrived + BURST)
    return meter.sample(arrived - before)


SUBJECTS: dict[str, Subject] = {"tcp": Tcp(), "udp": Udp()}
