"""Interfaces: a typed Python class read into the description from which everything else is made."""

from rpcfw.interface.compatibility import Change, compare, compare_all
from rpcfw.interface.declare import idempotent, local, method, offload_of, service, spec_of
from rpcfw.interface.describer import Schema
from rpcfw.interface.schema import schema_of, service_schema
from rpcfw.interface.spec import REQUIRED, CallKind, MethodSpec, Offload, Parameter, ServiceSpec

__all__ = [
    "REQUIRED",
    "CallKind",
    "Change",
    "MethodSpec",
    "Offload",
    "Parameter",
    "Schema",
    "ServiceSpec",
    "compare",
    "compare_all",
    "idempotent",
    "local",
    "method",
    "offload_of",
    "schema_of",
    "service",
    "service_schema",
    "spec_of",
]
