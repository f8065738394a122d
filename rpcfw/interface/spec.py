"""What a service is, once its class has been read: names, kinds of call, declared types, options.

Plain immutable data, the one description from which stubs, skeletons, codec plans, reflection and the compatibility
check are made. Nothing here reads annotations (see `declare`) or touches a codec.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final, Literal


class CallKind(enum.Enum):
    """The four kinds of call, as gRPC names them."""

    UNARY = "unary"
    SERVER_STREAM = "server stream"
    CLIENT_STREAM = "client stream"
    BIDIRECTIONAL = "bidirectional"

    streams_in: bool
    """The client sends a stream of items."""
    streams_out: bool
    """The server replies with a stream of items."""

    def __init__(self, label: str) -> None:
        # plain attributes, because every call asks for them
        self.streams_in = label in ("client stream", "bidirectional")
        self.streams_out = label in ("server stream", "bidirectional")


class _Required(enum.Enum):
    REQUIRED = "required"

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required.REQUIRED
"""Stands where a parameter has no default."""

MAX_TIMEOUT_S: Final = 42_949
"""The longest timeout that a method may declare and the wire can carry, in seconds (11.9 hours)."""

Offload = Literal["none", "thread", "process"]
"""Where a handler runs: on the event loop, in a thread, or in another process (for code that blocks)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method, in the order of the signature.

    `type` is the resolved annotation. For the parameter that carries the client's stream, `is_stream` is true and
    `type` is that of one item. `keyword_only` matters to whoever writes the signature down, not to the wire.
    """

    name: str
    type: Any
    default: Any = REQUIRED
    is_stream: bool = False
    keyword_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MethodSpec:
    """One remote method. `result` is the type of one item where the reply is a stream.

    Attributes:
        name: the method's name on the wire,
        path: and with its service's, as it crosses the wire: ``shop.Orders/place``.
        attribute: the method's name in Python, which differs where ``name=`` gave it another on the wire.
        timeout_s: seconds a call may take unless the caller says otherwise; None leaves it to the client.
        raises: the declared errors, which arrive as themselves.
        fingerprint: 16 hex digits over everything the wire depends on: names, types, defaults' presence, kind.
    """

    service: str
    name: str
    kind: CallKind
    parameters: tuple[Parameter, ...]
    result: Any
    timeout_s: float | None = None
    idempotent: bool = False
    oneway: bool = False
    raises: tuple[type[Exception], ...] = ()
    offload: Offload = "none"
    doc: str = ""
    fingerprint: str = ""
    attribute: str = ""
    path: str = dataclasses.field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", f"{self.service}/{self.name}")
        if not self.attribute:
            object.__setattr__(self, "attribute", self.name)

    @property
    def stream_parameter(self) -> Parameter | None:
        """The parameter that carries the client's stream, if there is one."""
        return next((parameter for parameter in self.parameters if parameter.is_stream), None)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ServiceSpec:
    """One service: its name and version on the wire, its methods by name in the order they were declared.

    `schema` is its plain description, made once with the declaration; see `schema.service_schema`.
    """

    name: str
    version: str
    methods: Mapping[str, MethodSpec]
    interface: type
    doc: str = ""
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)
