"""What all connections of a client, or of a server, share: the memory they may hold, and how they wait."""

from __future__ import annotations

import dataclasses

from rpcfw.connection.spin import Spin
from rpcfw.wire.reader import SCRATCH_BYTES, Budget


def _scratch() -> memoryview:
    return memoryview(bytearray(SCRATCH_BYTES))


@dataclasses.dataclass(slots=True)
class Resources:
    """Shared by the connections of one owner, all on one loop.

    Attributes:
        budget: memory for large messages.
        spin: looks out for frames a little longer before the loop sleeps.
        scratch: read buffer; one is enough, as each read is handled at once.
        links: how many are open now.
    """

    budget: Budget
    spin: Spin = dataclasses.field(default_factory=lambda: Spin(0))
    scratch: memoryview = dataclasses.field(default_factory=_scratch)
    links: int = 0
