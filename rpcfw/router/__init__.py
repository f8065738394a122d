"""Which nodes may take a call: one rule per file."""

from rpcfw.router.policy import Router
from rpcfw.router.sticky import Sticky
from rpcfw.router.subset import Subset, subset
from rpcfw.router.tag import ByTag
from rpcfw.router.version import ByVersion, Canary
from rpcfw.router.zone import PreferZone

__all__ = ["ByTag", "ByVersion", "Canary", "PreferZone", "Router", "Sticky", "Subset", "subset"]
