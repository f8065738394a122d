"""`rpcfw call`: one call to a running server, by what the server says about the method; no stub, no interface."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from rpcfw.call import Route
from rpcfw.cli.arguments import read_arguments, read_metadata
from rpcfw.cli.output import CommandError, Exit, put, say, to_json
from rpcfw.cli.reach import Reach
from rpcfw.cli.show import method_in
from rpcfw.cli.values import ValueProblem, ValueReader
from rpcfw.generic import GenericStub, service_from_schema
from rpcfw.interface import Schema
from rpcfw.transport import Transport

_READ_BYTES = 64 * 1024
_LINES_AHEAD = 64
"""Lines read before the server has taken those before them."""


@dataclasses.dataclass(frozen=True, slots=True)
class CallOptions:
    """A call as it was typed. Seconds, and None where nothing was said.

    Attributes:
        method: ``Greeter.hello``, ``shop.Orders.get`` or ``shop.Orders/get``.
        pairs: ``key=value`` arguments, or one JSON list or object of all of them.
        arguments: a JSON object with more of them.
        stdin: read that JSON object from stdin.
        metadata: ``key=value``, sent beside the arguments.
        show_metadata: print what came back beside the reply, on stderr.
        why: print who decided what about the way of the call, on stderr.
        transports: the standard ones unless given.
    """

    method: str
    pairs: Sequence[str] = ()
    arguments: str | None = None
    stdin: bool = False
    endpoint: str = ""
    timeout_s: float | None = None
    metadata: Sequence[str] = ()
    show_metadata: bool = False
    why: bool = False
    as_json: bool = False
    transports: Mapping[str, Transport] | None = None


def call(options: CallOptions) -> None:
    """Make the call and print what comes, as it comes."""
    asyncio.run(_call(options))


async def _call(options: CallOptions) -> None:
    async with Reach(options.endpoint, transports=options.transports) as reach:
        service, name = await reach.split(options.method)
        schema = await reach.schema(service)
        if name is None:
            raise CommandError(
                f"{service} is a service; name a method too: {', '.join(schema['methods'])}", Exit.USAGE
            )
        method = method_in(schema, name)
        reader = ValueReader(schema["definitions"])
        try:
            arguments = read_arguments(
                method,
                schema["definitions"],
                options.pairs,
                document=options.arguments,
                stdin=options.stdin,
            )
        except ValueProblem as problem:
            raise CommandError(str(problem), Exit.USAGE) from None
        streamed = next((parameter for parameter in method["parameters"] if parameter.get("stream")), None)
        if streamed is not None:
            arguments[streamed["name"]] = _items_from_stdin(reader, streamed["type"])
        replied: dict[str, str | bytes] = {}
        route = Route()
        stub = GenericStub(reach.client, service_from_schema(schema)).with_options(
            timeout_s=options.timeout_s,
            metadata=read_metadata(options.metadata),
            reply_metadata=replied,
            route=route if options.why else None,
        )
        try:
            await _print_reply(stub, method, arguments, options.as_json)
        finally:  # most of all of a call that fails
            if options.why:
                _tell_why(route, options.as_json)
        if options.show_metadata:
            for key, value in replied.items():
                say(f"{key}: {value if isinstance(value, str) else to_json(value)}")


def _tell_why(route: Route, as_json: bool) -> None:
    if as_json:
        start = route.notes[0].at if route.notes else 0.0
        notes = [
            {"at_ms": round((note.at - start) * 1000, 3), "who": note.who, "what": note.what}
            for note in route.notes
        ]
        say(to_json(notes))
    else:
        say(str(route) or "nothing was decided: the call had one endpoint to go to")


async def _print_reply(stub: GenericStub, method: Schema, arguments: dict[str, Any], as_json: bool) -> None:
    name = method["name"]
    if stub.method(name).kind.streams_out:
        async with contextlib.aclosing(stub.stream(name, **arguments)) as items:  # type: ignore[type-var]  # a generator
            async for item in items:
                put(to_json(item))
        return
    reply = await stub.call(name, **arguments)
    if method["oneway"]:
        return
    if isinstance(reply, str) and not as_json:
        put(reply)
    else:
        put(to_json(reply, indent=None if as_json else 2))


async def _items_from_stdin(reader: ValueReader, schema: Schema) -> AsyncIterator[Any]:
    """The call's stream: a JSON value per line."""
    if sys.stdin.isatty():
        say("reading items from this terminal, one JSON value per line; end with Ctrl-D")
    number = 0
    async for line in _stdin_lines():
        number += 1
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            message = f"line {number} of stdin is not JSON ({error}); write one value per line, text in double quotes"
            raise CommandError(message, Exit.USAGE) from None
        try:
            yield reader.from_json(item, schema, "item")
        except ValueProblem as problem:
            raise CommandError(f"line {number} of stdin: {problem}", Exit.USAGE) from None


async def _stdin_lines() -> AsyncIterator[bytes]:
    """Lines as they come. A thread reads, since files, pipes and terminals have no other way in common."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(_LINES_AHEAD)
    # Without the buffer, whose lock the interpreter would wait for at its end while a terminal says nothing.
    source: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)

    def read() -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # the loop is closed: nobody wants the rest
            for line in _lines_of(source):
                room.acquire()
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="rpcfw-stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        room.release()
        yield line


def _lines_of(source: Any) -> Iterator[bytes]:
    rest = b""
    while part := source.read(_READ_BYTES):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
    yield rest
