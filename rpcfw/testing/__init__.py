"""A whole cluster in one process, in virtual time, from one seed.

`simulate` plays a scenario on simulated hosts; services, clients and asyncio code run unchanged on them, and waiting
takes no time. `History` and the checkers say whether what clients saw can be explained. Nothing else of rpcfw imports
this package.
"""

from rpcfw.testing.clock import current_host
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.disk import Disk, SimFile
from rpcfw.testing.guard import unguarded
from rpcfw.testing.history import History, Operation
from rpcfw.testing.host import Crashed, Host
from rpcfw.testing.linearizability import check_kv, check_linearizable
from rpcfw.testing.list_append import check_list_append
from rpcfw.testing.loop import SimLoop, Stuck, run
from rpcfw.testing.nemesis import Nemesis
from rpcfw.testing.refusals import Unsimulated
from rpcfw.testing.schedule import Fault, Schedule, random_schedule
from rpcfw.testing.shrinking import shrink
from rpcfw.testing.simulation import Simulation, simulate

__all__ = [
    "Conditions",
    "Crashed",
    "Disk",
    "Fault",
    "History",
    "Host",
    "Latency",
    "Nemesis",
    "Operation",
    "Schedule",
    "SimFile",
    "SimLoop",
    "Simulation",
    "Stuck",
    "Unsimulated",
    "check_kv",
    "check_linearizable",
    "check_list_append",
    "current_host",
    "random_schedule",
    "run",
    "shrink",
    "simulate",
    "unguarded",
]
