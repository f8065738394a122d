"""Code that would block the event loop, run in a thread or in another process.

What crosses to another process and back is bytes, as the wire would carry them: nothing of the user's is pickled, so
no value and no exception can break a pool.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

from rpcfw.call import Call, Handler
from rpcfw.codec import MessageError
from rpcfw.connection.failures import pack_failure, unpack_failure
from rpcfw.connection.method import MethodCodec, codec_of
from rpcfw.errors import Code, InterfaceError, RpcError
from rpcfw.interface import MethodSpec, spec_of


class Executors:
    """The threads and processes of one server, made when a call first needs them.

    Args:
        threads: how many at the most.
        processes: how many at the most.
    """

    def __init__(self, threads: int, processes: int) -> None:
        self._sizes = threads, processes
        self._threads: ThreadPoolExecutor | None = None
        self._processes: Executor | None = None
        self._closed = False

    def threads(self) -> Executor:
        """For code that blocks."""
        if self._threads is None:
            self._check_open()
            self._threads = ThreadPoolExecutor(self._sizes[0], thread_name_prefix="rpcfw-handler")
        return self._threads

    def processes(self) -> Executor:
        """For code that computes."""
        if self._processes is None:
            self._check_open()
            from concurrent.futures import ProcessPoolExecutor  # few servers have such methods
            from multiprocessing import get_context

            self._processes = ProcessPoolExecutor(self._sizes[1], mp_context=get_context("spawn"))
        return self._processes

    def replace(self, broken: Executor) -> None:
        """Have the next call make new processes. All calls of a pool that breaks tell so; the first one is heard."""
        if broken is self._processes:
            self._processes = None
            broken.shutdown(wait=False)

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._closed = True
        for executor in (self._threads, self._processes):
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    def _check_open(self) -> None:
        if self._closed:
            raise RpcError(Code.UNAVAILABLE, "the server has shut down")


def with_keywords(function: Callable[..., Any], method: MethodSpec) -> Callable[..., Any]:
    """The function, taking its arguments in the order of the signature, also those that are keyword-only."""
    positional = sum(not parameter.keyword_only for parameter in method.parameters)
    keywords = [parameter.name for parameter in method.parameters[positional:]]
    if not keywords:
        return function

    def call_with_keywords(*arguments: Any) -> Any:
        return function(*arguments[:positional], **dict(zip(keywords, arguments[positional:], strict=True)))

    return call_with_keywords


def thread_handler(call_it: Callable[..., Any], executors: Executors) -> Handler:
    """A handler that calls a function in a thread."""

    async def handle_in_thread(call: Call) -> Any:
        context = contextvars.copy_context()
        work = functools.partial(context.run, call_it, *call.arguments)
        return await _to_its_end(executors.threads(), work)

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


def process_handler(implementation: Any, method: MethodSpec, executors: Executors) -> Handler:
    """A handler that calls a method in another process, on an instance of its own that was made without arguments.

    Raises InterfaceError when another process could not import the class.
    """
    cls, codec = type(implementation), codec_of(method)
    if "<locals>" in cls.__qualname__:
        raise InterfaceError(
            f"{cls.__qualname__}.{method.attribute}: offload='process' needs a class at the top of a module"
        )
    where = _Where(cls.__module__, cls.__qualname__, method.name)

    async def handle_in_process(call: Call) -> Any:
        data = codec.encode_arguments(call.arguments)
        outcome = await _in_process(executors, where, data, method.path)
        if outcome.result is not None:
            return _decoded(codec, outcome.result)
        if outcome.error is not None:
            raise unpack_failure(codec, outcome.error, refused=False)
        raise outcome.failure()

    return handle_in_process


async def _in_process(executors: Executors, where: _Where, data: bytes, path: str) -> _Outcome:
    pool, loop = executors.processes(), asyncio.get_running_loop()
    try:
        future = loop.run_in_executor(pool, _run_in_process, where, data)
    except BrokenExecutor:  # it broke while nothing ran, so nothing is lost
        executors.replace(pool)
        pool = executors.processes()
        future = loop.run_in_executor(pool, _run_in_process, where, data)
    try:
        return await future
    except BrokenExecutor as error:
        executors.replace(pool)
        raise RpcError(
            Code.UNAVAILABLE,
            f"{path}: the process that ran it, or one beside it, has died (killed, out of memory, os._exit, or a "
            "script without `if __name__ == '__main__':`); the next call gets a new one",
        ) from error


class _Where(NamedTuple):
    """A method, as another process finds it."""

    module: str
    qualname: str
    method: str


class _Outcome(NamedTuple):
    """What a call in another process came to. One of these: the result; an error that the caller is to have, packed
    as for the wire; or what else was raised, as its name, text and traceback.
    """

    result: bytes | None = None
    error: bytes | None = None
    name: str = ""
    text: str = ""
    trace: str = ""

    def failure(self) -> Exception:
        """What was raised, as an exception of the same name, which tells the other process' traceback as its cause."""
        failure: Exception = type(self.name, (Exception,), {})(self.text)
        failure.__cause__ = _Elsewhere(self.trace)
        return failure


class _Elsewhere(Exception):
    """A traceback of another process."""

    def __str__(self) -> str:
        return f"in another process:\n{self.args[0]}"


@functools.cache
def _worker(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found()


def _run_in_process(where: _Where, data: bytes) -> _Outcome:
    """In the other process: the same method on an instance of its own. Raises nothing, whatever the method does."""
    codec: MethodCodec | None = None
    try:
        worker = _worker(where.module, where.qualname)
        method = spec_of(worker).methods[where.method]
        codec = codec_of(method)
        result = with_keywords(getattr(worker, method.attribute), method)(*codec.arguments.decode(data))
        return _Outcome(result=_encoded(codec, result))
    except BaseException as error:  # SystemExit too, which would travel by pickle
        if codec is not None and _is_for_the_caller(codec, error):
            return _Outcome(error=pack_failure(codec, error, dev=False))
        trace = "".join(traceback.format_exception(error))
        return _Outcome(name=type(error).__name__, text=_text(error), trace=trace)


def _encoded(codec: MethodCodec, result: Any) -> bytes:
    try:
        encoded = codec.result.encode(result)
    except Exception as error:
        raise _untellable(codec, codec.result.encoding_error(error, result)) from error
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def _decoded(codec: MethodCodec, data: bytes) -> Any:
    try:
        return codec.result.decode(data)
    except Exception as error:
        raise _untellable(codec, codec.result.decoding_error(error, data)) from error


def _untellable(codec: MethodCodec, problem: MessageError) -> RpcError:
    return RpcError(Code.INTERNAL, f"{codec.path}: the result cannot travel: {problem}")


def _is_for_the_caller(codec: MethodCodec, error: BaseException) -> bool:
    declared = codec.errors.get(type(error).__name__)
    return isinstance(error, RpcError) or (declared is not None and isinstance(error, declared.error))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"its text cannot be told: {type(problem).__name__}"
