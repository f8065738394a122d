"""A call as every part sees it, and the two function types everything else is made of.

A client is a stack of handlers that ends at a connection, a server one that ends at a skeleton; a middleware turns a
handler into another. No I/O happens here. After go-kratos' ``middleware.Handler`` and tower's ``Service``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgpack
import msgspec

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.interface.spec import MethodSpec
from rpcfw.mistakes import check_number

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

Metadata = Mapping[str, str | bytes]
"""What travels beside the arguments: lower-case names to text or bytes. Names that start with ":" are rpcfw's own."""

NO_METADATA: Metadata = MappingProxyType({})
MAX_TIMEOUT_S = 42_949.0
"""The longest deadline the wire can carry, in seconds (11.9 hours)."""


class Exchange(Protocol):
    """The server's side of one call in progress: who asks, and what goes back beside the reply."""

    @property
    def peer(self) -> str:
        """The caller's address, for logs; with mutual TLS also the subject of its certificate."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the handler has ended; what it left running no longer serves this call."""
        ...

    @property
    def orphaned(self) -> bool:
        """Whether the link to the caller broke: it wants a reply no more here, but may come again."""
        ...

    def set_reply_metadata(self, metadata: Metadata) -> None:
        """Send these with the reply. Later calls add to and overwrite earlier ones."""


MAX_NOTES = 1000
"""So many decisions a route keeps."""


class Note(NamedTuple):
    """One decision about a call.

    Attributes:
        at: seconds of the loop's clock.
        who: the part that decided: ``retry``, ``router``, ``balancer``, ``breaker`` ...
        what: what it decided, and why, in words.
    """

    at: float
    who: str
    what: str


class Outcomes(list[tuple[str, Any]]):
    """What became of a call at each node: pairs of an address and a result, or an exception."""


class Route:
    """Client side: the way one call takes through the nodes. Calls that are retried, steered or explained have one.

    Give one to a call to learn afterwards who decided what: ``rpcfw.with_options(stub, route=route)``, then print it.

    Attributes:
        tried: addresses of nodes that the call was given to, in order; other ones are preferred for its next attempt.
        pinned: the address of the only node that may take it, or None.
        every: whether each node is to take it (broadcast); what comes back is `Outcomes` then.
        notes: who decided what.
    """

    __slots__ = ("every", "notes", "pinned", "tried")

    def __init__(self, *, pinned: str | Endpoint | None = None, every: bool = False) -> None:
        """Args: pinned: the node's address, or its endpoint."""
        if pinned is not None and not isinstance(pinned, str):
            if not isinstance(pinned, Endpoint):
                raise TypeError(f'pinned={pinned!r} is not an address: write "tcp://10.0.0.1:7000"')
            pinned = pinned.address
        self.tried: list[str] = []
        self.pinned: str | None = pinned
        self.every = every
        self.notes: list[Note] = []

    def note(self, at: float, who: str, what: str) -> None:
        """Note a decision; no more than `MAX_NOTES`, should one route be given to many calls."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(Note(at, who, what))

    def __str__(self) -> str:
        """A line for each decision, with milliseconds since the first."""
        start = self.notes[0].at if self.notes else 0.0
        width = max((len(note.who) for note in self.notes), default=0)
        return "\n".join(
            f"{(note.at - start) * 1000:9.3f} ms  {note.who:<{width}}  {note.what}" for note in self.notes
        )


class Call(msgspec.Struct, frozen=True, eq=False):
    """One call, the same on both sides of the wire.

    Attributes:
        method: what is called.
        arguments: one value per parameter, in the order of the signature; an async iterator where the client streams.
        deadline: when the call is to be over, in seconds of the running loop's clock; `math.inf` for never.
        metadata_bytes: the metadata as it crosses the wire, read through `metadata`.
        reply_metadata: client side: a dict to fill with what the server sends back, if the caller asked for it.
        exchange: server side: the call in progress, else None.
        route: client side: its way through the nodes, if anybody needs to know; see `Route`.
    """

    method: MethodSpec
    arguments: tuple[Any, ...]
    deadline: float = math.inf
    metadata_bytes: bytes = b""
    reply_metadata: dict[str, str | bytes] | None = None
    exchange: Exchange | None = None
    route: Route | None = None

    @property
    def metadata(self) -> Metadata:
        """The metadata, decoded at each reading."""
        return unpack_metadata(self.metadata_bytes) if self.metadata_bytes else NO_METADATA

    @property
    def peer(self) -> str:
        """The caller's address on the server's side, empty on the client's."""
        return self.exchange.peer if self.exchange is not None else ""

    @property
    def is_over(self) -> bool:
        """On the server's side, whether the handler has ended: what it left running has no part in the deadline."""
        return self.exchange is not None and self.exchange.ended

    def argument(self, name: str) -> Any:
        """The argument of that name. Raises KeyError when the method has no such parameter."""
        for parameter, value in zip(self.method.parameters, self.arguments, strict=True):
            if parameter.name == name:
                return value
        raise KeyError(f"{self.method.path} has no parameter {name!r}")

    def remaining_s(self, loop: AbstractEventLoop) -> float:
        """Seconds until the deadline, negative when it has passed, `math.inf` without one."""
        return self.deadline - loop.time()


Handler = Callable[[Call], Awaitable[Any]]
"""Answers a call; what it returns is the result, or an async iterator of items where the method streams out."""


Recover = Callable[[Call, float, RpcError], Awaitable[Any]]
"""What becomes of a call that failed: takes the call, when the attempt began by the loop's clock, and the error."""


class Attempter(abc.ABC):
    """A handler that leaves a failure to somebody else, who then needs no coroutine of its own around every call."""

    def __call__(self, call: Call) -> Awaitable[Any]:
        """Make a call."""
        return self.attempt(call)

    @abc.abstractmethod
    def attempt(self, call: Call, recover: Recover | None = None) -> Awaitable[Any]:
        """Make a call; where it fails with an RpcError, the outcome is what `recover` makes of that."""


class Witness(Protocol):
    """Sees the calls that a connection makes: each when it begins, and may refuse it, and how it ended."""

    def begins(self, call: Call, now: float, /) -> Any:
        """A call is about to begin. Returns what `succeeded` or `failed` is to be given, not None.

        Raises RpcError to refuse it; it is over then.
        """
        ...

    def succeeded(self, begun: float, now: float, entry: Any, /) -> None:
        """It has a result."""
        ...

    def failed(self, begun: float, error: BaseException, entry: Any, /) -> None:
        """It has none, or was cancelled."""
        ...


class Direct:
    """The handler that calls a coroutine function with the arguments, and nothing else.

    Where no middleware wraps it, a server calls `function` itself.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self.function = function

    def __call__(self, call: Call) -> Awaitable[Any]:
        """Call it."""
        return self.function(*call.arguments)


Middleware = Callable[[Handler], Handler]
"""Wraps a handler in another. Built once per client or server, never per call."""

Items = AsyncIterator[Any]


def chain(middleware: Sequence[Middleware], handler: Handler) -> Handler:
    """Stack middleware on a handler; the first of the list is outermost. With none, the handler itself."""
    for wrap in reversed(middleware):
        handler = wrap(handler)
    return handler


_current: ContextVar[Call | None] = ContextVar("rpcfw_call", default=None)


def current_call() -> Call:
    """The call that this code is serving. Raises LookupError outside a handler."""
    call = _current.get()
    if call is None:
        raise LookupError(
            "no call is being served here: current_call() works inside a handler and the tasks it starts"
        )
    return call


serving: Callable[[], Call | None] = _current.get
"""The call that this code is serving, or None outside a handler; calls made on its behalf inherit its deadline."""

enter_call: Callable[[Call], object] = _current.set
"""Make a call the one that tasks started from here on are serving: servers only."""


def set_reply_metadata(metadata: Metadata) -> None:
    """Send metadata back beside the reply of the call being served. Raises LookupError outside a handler."""
    call = current_call()
    assert call.exchange is not None
    pack_metadata(metadata)  # a wrong value is told here, where it was given
    call.exchange.set_reply_metadata(metadata)


def check_timeout(timeout_s: float | None, what: str) -> None:
    """Refuse a timeout that cannot be kept. Raises ValueError or TypeError naming `what`."""
    if timeout_s is not None and type(timeout_s) not in (int, float):
        check_number(timeout_s, f"{what}: timeout_s")
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ValueError(
            f"{what}: timeout_s={timeout_s!r} must be more than 0 and at most {MAX_TIMEOUT_S:.0f} seconds, or None"
        )


def pack_metadata(metadata: Metadata) -> bytes:
    """Metadata as a msgpack map. Raises RpcError INVALID_ARGUMENT for a name or value that cannot travel."""
    for name, value in metadata.items():
        if not isinstance(name, str) or not name or name != name.lower():
            raise RpcError(
                Code.INVALID_ARGUMENT, f"metadata name {name!r} must be lower-case text, not empty"
            )
        if not isinstance(value, str | bytes):
            raise RpcError(Code.INVALID_ARGUMENT, f"metadata {name!r} is {value!r}: give str or bytes")
    return bytes(msgpack.packb(dict(metadata))) if metadata else b""


def unpack_metadata(data: bytes | memoryview) -> Metadata:
    """Read metadata. Raises RpcError INVALID_ARGUMENT when it is not a flat map of names to text or bytes."""
    try:
        metadata = msgpack.unpackb(
            data, max_map_len=1024, max_array_len=0, max_ext_len=0, strict_map_key=True
        )
        if not isinstance(metadata, dict):
            raise ValueError(f"a map was expected, not {type(metadata).__name__}")
        for name, value in metadata.items():
            if not isinstance(name, str) or not isinstance(value, str | bytes):
                raise ValueError(f"{name!r}: {value!r} is not a name with text or bytes")
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"the metadata cannot be read: {error}") from None
    return metadata
