"""A server's objects as handlers: a call comes in, the method of that name is called with its arguments.

Code that would block the event loop runs in a thread or, decoded and encoded there, in another process.
"""

from __future__ import annotations

import abc
import asyncio
import contextvars
import functools
import importlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar

from rpcfw.call import Call, Handler
from rpcfw.connection.method import codec_of
from rpcfw.errors import InterfaceError
from rpcfw.interface import MethodSpec, Offload, ServiceSpec, offload_of, spec_of


class Skeleton(abc.ABC):
    """Base of generated skeletons: subclass one, write its methods, and serve an instance."""

    service: ClassVar[ServiceSpec]
    __rpcfw_service__: ClassVar[ServiceSpec]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "service" in cls.__dict__:
            cls.__rpcfw_service__ = cls.service


def handlers_of(
    implementation: Any, executors: Callable[[Offload], Executor]
) -> Mapping[MethodSpec, Handler]:
    """A handler for each method of an implementation.

    Args:
        implementation: an instance of a decorated class, of a skeleton, or of a class that fulfils the interface.
        executors: gives the executor for blocking code, asked at the first call that needs it.

    Raises:
        InterfaceError: a method is missing, or an abstract class was given.
    """
    spec = spec_of(implementation)
    if isinstance(implementation, type):
        raise InterfaceError(
            f"{implementation.__qualname__} is a class; serve an instance: {implementation.__qualname__}()"
        )
    return {method: _handler(implementation, method, executors) for method in spec.methods.values()}


def _handler(implementation: Any, method: MethodSpec, executors: Callable[[Offload], Executor]) -> Handler:
    name = type(implementation).__qualname__
    function = getattr(implementation, method.attribute, None)
    if not callable(function):
        raise InterfaceError(f"{name} lacks the method {method.attribute!r} of {method.service}; write it")
    call_it = _with_keywords(function, method)
    offload = offload_of(method, implementation)
    if method.kind.streams_out:
        return _stream_handler(call_it)
    if offload == "thread":
        return _thread_handler(call_it, executors)
    if offload == "process":
        return _process_handler(implementation, method, executors)
    if asyncio.iscoroutinefunction(function):

        def handle(call: Call) -> Awaitable[Any]:
            return call_it(*call.arguments)  # type: ignore[no-any-return]  # a coroutine function

        return handle

    async def handle_inline(call: Call) -> Any:
        result = call_it(*call.arguments)
        return await result if isinstance(result, Awaitable) else result

    return handle_inline


def _with_keywords(function: Callable[..., Any], method: MethodSpec) -> Callable[..., Any]:
    positional = sum(not parameter.keyword_only for parameter in method.parameters)
    keywords = [parameter.name for parameter in method.parameters[positional:]]
    if not keywords:
        return function

    def call_with_keywords(*arguments: Any) -> Any:
        return function(*arguments[:positional], **dict(zip(keywords, arguments[positional:], strict=True)))

    return call_with_keywords


def _stream_handler(call_it: Callable[..., Any]) -> Handler:
    async def handle_stream(call: Call) -> Any:
        items = call_it(*call.arguments)
        return await items if isinstance(items, Awaitable) else items

    return handle_stream


def _thread_handler(call_it: Callable[..., Any], executors: Callable[[Offload], Executor]) -> Handler:
    async def handle_in_thread(call: Call) -> Any:
        context = contextvars.copy_context()
        work = functools.partial(context.run, call_it, *call.arguments)
        return await _to_its_end(executors("thread"), work)

    return handle_in_thread


async def _to_its_end(executor: Executor, work: Callable[[], Any]) -> Any:
    """Run work in a thread. Cancelled, it waits for what a thread has begun, and has it leave out what none has begun.

    So a handler counts as running until it has really ended.
    """
    given_up = False

    def work_unless_given_up() -> Any:
        return None if given_up else work()

    future = asyncio.get_running_loop().run_in_executor(executor, work_unless_given_up)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        given_up = True
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


def _process_handler(
    implementation: Any, method: MethodSpec, executors: Callable[[Offload], Executor]
) -> Handler:
    cls, codec = type(implementation), codec_of(method)
    if "<locals>" in cls.__qualname__:
        raise InterfaceError(
            f"{cls.__qualname__}.{method.attribute}: offload='process' needs a class at the top of a module"
        )
    where = (cls.__module__, cls.__qualname__, method.name)

    async def handle_in_process(call: Call) -> Any:
        data = codec.encode_arguments(call.arguments)
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(executors("process"), _run_in_process, where, data)
        return codec.result.decode(reply)

    return handle_in_process


@functools.cache
def _worker(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found()


def _run_in_process(where: tuple[str, str, str], data: bytes) -> bytes:
    """In the other process: the same method on an instance of its own, made without arguments."""
    module, qualname, name = where
    worker = _worker(module, qualname)
    method = spec_of(worker).methods[name]
    codec = codec_of(method)
    result = _with_keywords(getattr(worker, method.attribute), method)(*codec.arguments.decode(data))
    encoded = codec.result.encode(result)
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)
