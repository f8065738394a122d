"""Calls without an interface: a service as its server describes it, its messages as plain values.

For command lines, consoles and proxies. Nothing is checked here beyond names: the server validates what arrives, and
what comes back is what lies on the wire (dict, list, str, bytes, numbers), without the classes it was made from.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import msgspec

from rpcfw.errors import Code, RpcError, ServiceError
from rpcfw.interface import REQUIRED, CallKind, MethodSpec, Parameter, Schema, ServiceSpec
from rpcfw.interface.fingerprint import fingerprint
from rpcfw.reflection import Reflection, ServiceInfo
from rpcfw.stub import Caller, Stub, bind_arguments, make_stub


async def services_of(client: Caller) -> list[ServiceInfo]:
    """The services of the server at the other end. Raises RpcError."""
    return await make_stub(Reflection, client).list()


async def schema_from(client: Caller, service: str) -> Schema:
    """What the server says of one of its services. Raises RpcError NOT_FOUND naming those it has."""
    return await make_stub(Reflection, client).describe(service)


async def generic_stub(client: Caller, service: str) -> GenericStub:
    """A stub of a service by its name alone. Raises RpcError NOT_FOUND naming the services that the server has."""
    return GenericStub(client, service_from_schema(await schema_from(client, service)))


class GenericStub(Stub):
    """Calls methods by name, with arguments by name; what has a default may be left out.

        orders = await generic_stub(client, "shop.Orders")
        order = await orders.call("get", order_id=7)            # {"id": 7, "items": [...]}
        async for event in orders.stream("watch", user="ada"):
            ...

    Declared errors arrive as exceptions of classes made for the occasion: named and with fields as the server says,
    but equal to no class of this program; they derive from `GenericError`.
    """

    def __init__(self, client: Caller, spec: ServiceSpec) -> None:
        super().__init__(client)
        self.spec = spec

    def call(self, method: str, /, **arguments: Any) -> Awaitable[Any]:
        """Make a call whose reply is one value. Raises TypeError for wrong arguments, RpcError as any call does."""
        spec = self.method(method)
        if spec.kind.streams_out:
            raise TypeError(f"{spec.path} replies with a stream; use .stream({method!r}, ...)")
        return self._call(spec, bind_arguments(spec, (), arguments))

    def stream(self, method: str, /, **arguments: Any) -> AsyncIterator[Any]:
        """Make a call whose reply is a stream. Raises TypeError for wrong arguments, RpcError as any call does."""
        spec = self.method(method)
        if not spec.kind.streams_out:
            raise TypeError(f"{spec.path} replies with one value; use .call({method!r}, ...)")
        return self._stream(spec, bind_arguments(spec, (), arguments))

    def method(self, name: str) -> MethodSpec:
        """A method by its name on the wire. Raises RpcError UNIMPLEMENTED naming those that the service has."""
        found = self.spec.methods.get(name)
        if found is None:
            known = ", ".join(self.spec.methods)
            message = f"{self.spec.name} has no method {name!r}; it has {known}"
            raise RpcError(Code.UNIMPLEMENTED, message, executed=False)
        return found


class GenericError(Exception):
    """A declared error of a service known by its schema alone. Its class has the error's name."""


def service_from_schema(schema: Schema) -> ServiceSpec:
    """The description of a service that can be called, made from its schema. All values travel as they are given."""
    name, definitions = schema["service"], schema["definitions"]
    methods = {key: _method(name, method, definitions) for key, method in schema["methods"].items()}
    return ServiceSpec(name, schema["version"], methods, GenericStub, schema["doc"], schema)


def _method(service: str, schema: Schema, definitions: Mapping[str, Schema]) -> MethodSpec:
    # What is UNSET is not sent. Those with a default come last, as Python has it; the wire goes by name.
    in_order = sorted(schema["parameters"], key=lambda parameter: not parameter["required"])
    parameters = []
    for parameter in in_order:
        default = REQUIRED if parameter["required"] else msgspec.UNSET
        streams = bool(parameter.get("stream"))
        parameters.append(Parameter(parameter["name"], Any, default, streams, keyword_only=True))
    return MethodSpec(
        service,
        schema["name"],
        CallKind(schema["kind"]),
        tuple(parameters),
        Any,
        timeout_s=schema["timeout_s"],
        idempotent=schema["idempotent"],
        oneway=schema["oneway"],
        raises=tuple(_error(error, definitions) for error in schema["raises"]),
        doc=schema["doc"],
        fingerprint=fingerprint(schema, definitions),
    )


def _error(schema: Schema, definitions: Mapping[str, Schema]) -> type[Exception]:
    """A class for a declared error: with its fields, or with plain arguments where it has none."""
    name = schema["name"]
    if schema["type"]["kind"] != "ref":
        return type(name, (GenericError,), {"__module__": __name__})
    fields = definitions[schema["type"]["name"]]["fields"]
    body: dict[str, Any] = {field["name"]: None for field in fields if not field["required"]}
    # KW_ONLY, so that a field with a default may stand before one without.
    body["__annotations__"] = {"_": dataclasses.KW_ONLY, **{field["name"]: Any for field in fields}}
    body["__module__"] = __name__
    return types.new_class(
        name, (GenericError, ServiceError), exec_body=lambda namespace: namespace.update(body)
    )


__all__ = ["GenericError", "GenericStub", "generic_stub", "schema_from", "service_from_schema", "services_of"]
