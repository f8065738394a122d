"""The schema of what crosses the wire: plain data that tells types apart exactly as far as the wire does.

A schema is JSON-able and the same in every process, so that it can be printed, stored, sent by reflection, compared
(see `compatibility`) and hashed (see `fingerprint`). How a single type is described is in `describer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpcfw.interface.describer import Describer, Schema, describe_default
from rpcfw.interface.hints import Namespace
from rpcfw.interface.spec import MethodSpec, ServiceSpec


def schema_of(declared: Any, namespace: Namespace | None = None) -> Schema:
    """The schema of one type: ``{"type": ..., "definitions": {...}}``. Raises InterfaceError when it cannot travel."""
    describer = Describer(namespace or {})
    described = describer.describe(declared)
    return {"type": described, "definitions": describer.finish()}


def service_schema(spec: ServiceSpec) -> Schema:
    """The schema of a service: its methods by name, and the definitions of every type that they name."""
    if spec.schema:
        return dict(spec.schema)
    describer = Describer({})
    methods = {name: method_schema(method, describer) for name, method in spec.methods.items()}
    return service_document(spec, methods, describer.finish())


def service_document(
    spec: ServiceSpec, methods: Mapping[str, Schema], definitions: Mapping[str, Schema]
) -> Schema:
    """The schemas of methods put together to that of their service."""
    return {
        "service": spec.name,
        "version": spec.version,
        "doc": spec.doc,
        "methods": dict(methods),
        "definitions": dict(definitions),
    }


def method_schema(method: MethodSpec, describer: Describer) -> Schema:
    """The schema of one method; what its types are named for stays in the describer, to be finished by the caller."""
    parameters = []
    for parameter in method.parameters:
        described = describer.describe(parameter.type)
        schema: Schema = {"name": parameter.name, "type": described, **describe_default(parameter.default)}
        parameters.append({**schema, "stream": True} if parameter.is_stream else schema)
    return {
        "name": method.name,
        "kind": method.kind.value,
        "doc": method.doc,
        "parameters": parameters,
        "result": describer.describe(method.result),
        "raises": [
            {"name": error.__name__, "type": describer.describe_error(error)} for error in method.raises
        ],
        "timeout_s": method.timeout_s,
        "idempotent": method.idempotent,
        "oneway": method.oneway,
    }
