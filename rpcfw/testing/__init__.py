"""A whole cluster in one process, in virtual time, from one seed.

`run` and `SimLoop` are the event loop under it: unchanged services, clients and asyncio code run on it, and waiting
takes no time. Nothing else of rpcfw imports this package.
"""

from rpcfw.testing.clock import current_host
from rpcfw.testing.loop import SimLoop, Stuck, run
from rpcfw.testing.refusals import Unsimulated

__all__ = ["SimLoop", "Stuck", "Unsimulated", "current_host", "run"]
