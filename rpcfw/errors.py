"""The errors of a remote call: a closed set of codes, one exception that carries them, and a base for declared errors.

Nothing here knows how an error travels; the connection translates, once. The codes are gRPC's (google.rpc.Code),
because operators know them and gateways map onto them without loss.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, dataclass_transform


class Code(enum.IntEnum):
    """Why a call did not succeed. The numbers cross the wire and never change."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Origin(enum.Enum):
    """Who says that the call failed."""

    LOCAL = "local"
    """This process: the call was misused, or nothing could be sent."""
    CONNECTION = "connection"
    """The road between: it broke, timed out, or the peer broke the protocol."""
    REMOTE = "remote"
    """The other side answered with this error."""


class RpcError(Exception):
    """A call failed with a code.

    Attributes:
        code: one of the closed set `Code`.
        message: what was wrong, with the value, and how to mend it.
        details: further facts as plain values (str, int, float, bool, None, list, dict).
        origin: who says so; see `Origin`.
        executed: False when the handler surely never ran (safe to send again), None when nobody can know,
            True when it ran.
        endpoint: the address of the node that the call was given to last, where several were to choose from.
        remote_traceback: the other side's traceback, only from a server in dev mode.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        origin: Origin = Origin.LOCAL,
        executed: bool | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = details or {}
        self.origin = origin
        self.executed = executed
        self.endpoint = ""
        self.remote_traceback: str | None = None

    def __str__(self) -> str:
        text = f"{self.code.name}: {self.message}"
        return f"{text}\n\nremote traceback:\n{self.remote_traceback}" if self.remote_traceback else text

    def __repr__(self) -> str:
        # not from the arguments: the message may say more by now than at first
        return f"{type(self).__name__}({self.code}, {self.message!r})"


class ProtocolError(Exception):
    """The peer sent what the wire format forbids; the connection cannot go on. The message names the rule broken."""


class InterfaceError(TypeError):
    """A service was declared wrongly. Raised while the class is decorated; names class, method, parameter and mend."""


@dataclass_transform(kw_only_default=False, field_specifiers=(dataclasses.field,))
class ServiceError(Exception):
    """Base of declared errors: annotate fields, and the error arrives on the caller's side as itself.

        class OutOfStock(rpcfw.ServiceError):
            sku: str
            left: int = 0

    A subclass becomes a dataclass that compares by identity, as exceptions do. List it in
    ``@rpcfw.method(raises=[OutOfStock])``; an error that is not listed arrives as `RpcError`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(eq=False)(cls)

    def __str__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is made a dataclass above
        return ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields)
