"""rpcfw: typed RPC between Python services. The contract is a Python interface.

    @rpcfw.service("shop.Orders")
    class Orders(Protocol):
        async def get(self, order_id: int) -> Order: ...

Serve an implementation with `serve` or ``rpcfw run``; call it through `connect` and a stub.
"""

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
    "method",
    "open_registry",
    "register",
    "serve",
    "service",
    "set_reply_metadata",
    "spec_of",
    "with_options",
]
