"""rpcfw: typed RPC between Python services. The contract is a Python interface.

    @rpcfw.service("shop.Orders")
    class Orders(Protocol):
        async def get(self, order_id: int) -> Order: ...

Serve an implementation with `serve` or ``rpcfw run``; call it through `connect` and a stub.
"""

from typing import TYPE_CHECKING, Any

from rpcfw.blocking import BlockingClient, BlockingStub
from rpcfw.call import Call, Handler, Metadata, Middleware, Route, current_call, set_reply_metadata
from rpcfw.client import Client, connect
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.options import ClusterOptions
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, InterfaceError, Origin, RpcError, ServiceError
from rpcfw.interface import (
    CallKind,
    MethodSpec,
    Parameter,
    ServiceSpec,
    idempotent,
    local,
    method,
    service,
    spec_of,
)
from rpcfw.membership import Membership, register
from rpcfw.registry import Registration, Registry, open_registry
from rpcfw.server import Limits, Server, serve
from rpcfw.skeleton import Skeleton
from rpcfw.stub import Stub, with_options
from rpcfw.transport import TlsConfig
from rpcfw.wire.handshake import Settings

if TYPE_CHECKING:
    from rpcfw import naming as naming
    from rpcfw.naming import lookup as lookup

__version__ = "0.1.0"

__all__ = [
    "BlockingClient",
    "BlockingStub",
    "Call",
    "CallKind",
    "Client",
    "ClusterOptions",
    "Code",
    "ConnectionOptions",
    "Endpoint",
    "Event",
    "EventKind",
    "Handler",
    "InterfaceError",
    "Limits",
    "Membership",
    "Metadata",
    "MethodSpec",
    "Middleware",
    "Origin",
    "Parameter",
    "Registration",
    "Registry",
    "Route",
    "RpcError",
    "Server",
    "ServiceError",
    "ServiceSpec",
    "Settings",
    "Skeleton",
    "Stub",
    "TlsConfig",
    "connect",
    "current_call",
    "idempotent",
    "local",
    "lookup",
    "method",
    "naming",
    "open_registry",
    "register",
    "serve",
    "service",
    "set_reply_metadata",
    "spec_of",
    "with_options",
]


def __getattr__(name: str) -> Any:
    """What few programs need is imported when it is asked for."""
    if name in ("naming", "lookup"):
        from importlib import import_module

        naming = import_module("rpcfw.naming")
        return naming if name == "naming" else naming.lookup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
