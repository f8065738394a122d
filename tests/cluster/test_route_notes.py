"""What a route says of the node that was chosen."""

from __future__ import annotations

import rpcfw
from rpcfw.call import Route
from rpcfw.transport import MemoryTransport
from tests.calls.place import QUIET
from tests.calls.virtual import virtual_time


@rpcfw.service("tests.Clock")
class Clock:
    async def tick(self) -> int:
        return 1


@virtual_time
async def test_a_latency_that_was_not_measured_yet_is_not_told_as_a_number() -> None:
    transports = {"mem": MemoryTransport()}
    server = rpcfw.serve(Clock(), listen="mem://x", transports=transports, limits=QUIET)
    client = rpcfw.connect("mem://x", transports=transports, cluster=rpcfw.ClusterOptions())
    async with server, client:
        await client.ready(Clock)
        route = Route()
        assert await rpcfw.with_options(client.stub(Clock), route=route).tick() == 1
    notes = [note.what for note in route.notes if note.who == "balancer"]
    assert notes == ["mem://x: the only one; 0 in flight, latency not measured yet"]
