"""A server's objects as handlers: a call comes in, the method of that name is called with its arguments.

Here a method is found and judged; where it runs off the loop is a matter of `offload`.
"""

from __future__ import annotations

import abc
import asyncio
import dis
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar

from rpcfw.call import Call, Direct, Handler
from rpcfw.errors import InterfaceError
from rpcfw.interface import MethodSpec, ServiceSpec, offload_of, spec_of
from rpcfw.offload import Executors, process_handler, thread_handler, with_keywords


class Skeleton(abc.ABC):
    """Base of generated skeletons: subclass one, write its methods, and serve an instance."""

    service: ClassVar[ServiceSpec]
    __rpcfw_service__: ClassVar[ServiceSpec]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "service" in cls.__dict__:
            cls.__rpcfw_service__ = cls.service


def handlers_of(implementation: Any, executors: Executors) -> Mapping[MethodSpec, Handler]:
    """A handler for each method of an implementation.

    Args:
        implementation: an instance of a decorated class, of a skeleton, or of a class that fulfils the interface.
        executors: for blocking code, asked at the first call that needs one.

    Raises:
        InterfaceError: a method is missing, or an abstract class was given.
    """
    spec = spec_of(implementation)
    if isinstance(implementation, type):
        raise InterfaceError(
            f"{implementation.__qualname__} is a class; serve an instance: {implementation.__qualname__}()"
        )
    return {method: _handler(implementation, method, executors) for method in spec.methods.values()}


def _handler(implementation: Any, method: MethodSpec, executors: Executors) -> Handler:
    name = type(implementation).__qualname__
    function = getattr(implementation, method.attribute, None)
    if not callable(function):
        raise InterfaceError(f"{name} lacks the method {method.attribute!r} of {method.service}; write it")
    _refuse_if_unwritten(implementation, function, method)
    call_it = with_keywords(function, method)
    offload = offload_of(method, implementation)
    if method.kind.streams_out:
        return _stream_handler(call_it)
    if offload == "thread":
        return thread_handler(call_it, executors)
    if offload == "process":
        return process_handler(implementation, method, executors)
    if asyncio.iscoroutinefunction(function):
        return Direct(call_it)

    async def handle_inline(call: Call) -> Any:
        result = call_it(*call.arguments)
        return await result if isinstance(result, Awaitable) else result

    return handle_inline


def _stream_handler(call_it: Callable[..., Any]) -> Handler:
    async def handle_stream(call: Call) -> Any:
        items = call_it(*call.arguments)
        return await items if isinstance(items, Awaitable) else items

    return handle_stream


def _refuse_if_unwritten(implementation: Any, function: Callable[..., Any], method: MethodSpec) -> None:
    """An interface's own function, inherited, is no implementation unless it has a body."""
    written = getattr(function, "__func__", function)
    for cls in type(implementation).__mro__:
        if cls.__dict__.get(method.attribute) is written:
            break
    else:
        return  # given to the instance, or by a descriptor
    abstract = getattr(written, "__isabstractmethod__", False)
    if abstract or (getattr(cls, "_is_protocol", False) and _does_nothing(written)):
        name = type(implementation).__qualname__
        raise InterfaceError(
            f"{name} lacks the method {method.attribute!r} of {method.service}: it inherits that of "
            f"{cls.__qualname__}, which has no body; write it in {name}"
        )


def _does_nothing(function: Any) -> bool:
    """Whether a body is `...`, `pass` or a docstring: it compiles to what such a body compiles to, as nothing else."""
    function = inspect.unwrap(function)
    if (
        not isinstance(function, FunctionType) or function.__code__.co_flags & _GENERATOR
    ):  # an empty stream is one
        return False
    return _steps(function) in (_steps(_empty), _steps(_empty_coroutine))


def _steps(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    # by value, since a docstring changes the numbers of the constants
    return [(step.opname, step.argval) for step in dis.get_instructions(function)]


_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _empty() -> None: ...


async def _empty_coroutine() -> None: ...
