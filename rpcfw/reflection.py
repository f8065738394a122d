"""What a server says about itself: its services, their methods and schemas, as an ordinary service."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rpcfw.errors import Code, RpcError
from rpcfw.interface import ServiceSpec, idempotent, local, service, service_schema

REFLECTION = "rpcfw.Reflection"


@dataclasses.dataclass(frozen=True)
class ServiceInfo:
    """A service in a listing."""

    name: str
    version: str
    methods: list[str]
    doc: str = ""


@service(REFLECTION)
class Reflection:
    """Lists and describes the services of the server that serves it."""

    def __init__(self, specs: Sequence[ServiceSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}

    @idempotent
    async def list(self) -> list[ServiceInfo]:
        """All services of this server."""
        return [ServiceInfo(s.name, s.version, [*s.methods], s.doc) for s in self._specs.values()]

    @idempotent
    async def describe(self, service: str) -> dict[str, Any]:
        """The schema of a service: its methods, their parameters and results, all message types."""
        spec = self._specs.get(service)
        if spec is None:
            known = ", ".join(sorted(self._specs))
            raise RpcError(Code.NOT_FOUND, f"there is no service {service!r} here; there are {known}")
        return dict(service_schema(spec))

    @local
    def add(self, spec: ServiceSpec) -> None:
        """Know one more service."""
        self._specs[spec.name] = spec
