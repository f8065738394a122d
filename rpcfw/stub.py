"""The client's side of an interface: an object with its methods, each of which makes a call.

Generated stubs and `make_stub`, which needs no generated file, are both thin: they name the method and hand its
arguments to the client's handler, so both behave the same.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, Protocol, Self, TypeVar

from rpcfw.call import Call, Handler, Metadata, Route, check_timeout, pack_metadata, serving
from rpcfw.errors import Code, InterfaceError, RpcError
from rpcfw.interface import REQUIRED, CallKind, MethodSpec, ServiceSpec, spec_of
from rpcfw.items import batches_of

T = TypeVar("T")
S = TypeVar("S")
_FOREVER = math.inf
_UNARY = CallKind.UNARY


class Caller(Protocol):
    """What a stub needs of a client."""

    @property
    def handler(self) -> Handler:
        """Where calls go."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """Seconds a unary call may take where neither the interface nor the caller says otherwise."""
        ...

    def attach(self) -> AbstractEventLoop:
        """The running loop. Raises RpcError when the client belongs to another one."""
        ...


class Stub:
    """Base of generated stubs. Cheap to make, shares the client's connections, safe for many tasks at a time."""

    # a copy with options has them at hand as the original does, which it would not in a dict
    __slots__ = ("_client", "_default_timeout_s", "_handler", "_loop", "_metadata", "_reply_metadata", "_route",
                 "_timeout_s")  # fmt: skip

    service: ClassVar[ServiceSpec]

    def __init__(self, client: Caller) -> None:
        self._client = client
        self._handler = client.handler
        self._loop: AbstractEventLoop | None = None
        self._default_timeout_s = client.timeout_s
        self._timeout_s: float | None = None
        self._metadata = b""
        self._reply_metadata: dict[str, str | bytes] | None = None
        self._route: Route | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client!r}>"

    def with_options(
        self,
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
        reply_metadata: dict[str, str | bytes] | None = None,
        route: Route | None = None,
    ) -> Self:
        """A copy of this stub whose calls carry these options; what is not given stays.

        Args:
            timeout_s: seconds a call may take, instead of the interface's or the client's.
            metadata: sent with each call: lower-case names to text or bytes.
            reply_metadata: a dict that is filled with what the server sends back beside the reply.
            route: is filled with who decided what for the call: router, balancer, breaker, retry. For one call.
        """
        check_timeout(timeout_s, "with_options")
        stub = copy.copy(self)
        if timeout_s is not None:
            stub._timeout_s = timeout_s
        if metadata is not None:
            stub._metadata = pack_metadata(metadata)
        if reply_metadata is not None:
            stub._reply_metadata = reply_metadata
        if route is not None:
            stub._route = route
        return stub

    def _call(self, method: MethodSpec, arguments: tuple[Any, ...]) -> Awaitable[T]:  # pyright: ignore[reportInvalidTypeVarUse]
        """Make a call whose reply is one value, of the type that the generated method declares."""
        loop = get_running_loop()
        if loop is not self._loop:
            self._loop = self._client.attach()
        timeout_s = self._timeout_s or method.timeout_s
        if timeout_s is None and method.kind is _UNARY:
            timeout_s = self._default_timeout_s
        deadline = _FOREVER if timeout_s is None else loop.time() + timeout_s
        origin = serving()
        if origin is not None and origin.deadline < deadline and not origin.is_over:
            deadline = origin.deadline
        handler = self._handler
        return handler(
            Call(method, arguments, deadline, self._metadata, self._reply_metadata, None, self._route)
        )

    def _stream(self, method: MethodSpec, arguments: tuple[Any, ...]) -> AsyncIterator[T]:  # pyright: ignore[reportInvalidTypeVarUse]
        """Make a call whose reply is a stream. The call begins when the stream is first asked for an item."""
        return self._items(method, arguments)

    async def _items(self, method: MethodSpec, arguments: tuple[Any, ...]) -> AsyncIterator[Any]:
        items: Any = await self._call(method, arguments)
        try:
            async for batch in batches_of(items):
                for item in batch:
                    yield item
        finally:
            await items.aclose()


def with_options(
    stub: S,
    *,
    timeout_s: float | None = None,
    metadata: Metadata | None = None,
    reply_metadata: dict[str, str | bytes] | None = None,
    route: Route | None = None,
) -> S:
    """A copy of a stub whose calls carry these options: `Stub.with_options` for stubs that are typed as an interface.

        orders = client.stub(Orders)
        await rpcfw.with_options(orders, timeout_s=0.2).get(7)

    Raises:
        TypeError: it is not a stub.
    """
    make = getattr(stub, "with_options", None)
    if make is None:
        raise TypeError(f"{stub!r} is not a stub; make one with client.stub(Interface)")
    copied: S = make(timeout_s=timeout_s, metadata=metadata, reply_metadata=reply_metadata, route=route)
    return copied


def make_stub(interface: Callable[..., S], client: Caller) -> S:
    """A stub of an interface without a generated file, typed as the interface.

    The parameter is a class; it is declared as a callable because type checkers refuse a Protocol as ``type[S]``.

    Raises InterfaceError when the class is not decorated with `@rpcfw.service`.
    """
    declared: Any = interface
    if isinstance(declared, str):
        raise InterfaceError(
            f"stub({declared!r}): a stub is made of the interface, a class, not of its name: write "
            f"stub({declared.rpartition('.')[2] or 'Interface'}); without the class, rpcfw.generic makes calls by name"
        )
    if not isinstance(declared, type):
        name = type(declared).__name__
        raise InterfaceError(
            f"a stub is made of a class, not of an instance: say stub({name}), without parentheses"
        )
    stub: Any = _stub_class(declared)(client)
    return stub  # type: ignore[no-any-return]  # it has the interface's methods


@functools.lru_cache(maxsize=1024)
def _stub_class(interface: type) -> type[Stub]:
    spec = spec_of(interface)
    methods: dict[str, Any] = {method.attribute: _method(method) for method in spec.methods.values()}
    for name, call in methods.items():
        call.__signature__ = inspect.signature(getattr(spec.interface, name))  # for notebooks and help()
    return type(f"{interface.__name__}Stub", (Stub,), {"service": spec, "__doc__": spec.doc, **methods})


def _method(method: MethodSpec) -> Callable[..., Any]:
    as_given = -1 if any(p.keyword_only for p in method.parameters) else len(method.parameters)
    make = Stub._stream if method.kind.streams_out else Stub._call

    def call(self: Stub, *arguments: Any, **named: Any) -> Any:
        if named or len(arguments) != as_given:
            arguments = bind_arguments(method, arguments, named)
        return make(self, method, arguments)

    call.__name__ = method.attribute
    call.__qualname__ = f"{method.service}.{method.attribute}"
    call.__doc__ = method.doc
    return call


def bind_arguments(method: MethodSpec, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments in the order of the signature, with defaults. Raises TypeError as a wrong call of a function does."""
    names = [parameter.name for parameter in method.parameters]
    positional = [parameter.name for parameter in method.parameters if not parameter.keyword_only]
    if len(arguments) > len(positional):
        raise TypeError(
            f"{method.path} takes {len(positional)} positional arguments, {len(arguments)} were given; "
            f"its parameters are ({', '.join(names)})"
        )
    given = dict(zip(positional, arguments, strict=False))
    for name, value in named.items():
        if name not in names:
            raise TypeError(f"{method.path} has no parameter {name!r}; it has ({', '.join(names)})")
        if name in given:
            raise TypeError(f"{method.path} got {name!r} twice")
        given[name] = value
    for parameter in method.parameters:
        if parameter.name not in given:
            if parameter.default is REQUIRED:
                raise TypeError(f"{method.path} lacks the argument {parameter.name!r}")
            given[parameter.name] = parameter.default
    return tuple(given[name] for name in names)


def wrong_loop() -> RpcError:
    """A client was used on a loop that is not its own."""
    return RpcError(
        Code.FAILED_PRECONDITION,
        "this client belongs to another event loop, or was made before a fork; make a client in each process and loop",
        executed=False,
    )


__all__ = ["Caller", "Stub", "bind_arguments", "make_stub"]
