"""Which of a server's methods is meant: found by name in its handshake, and compared where the two sides differ.

A fingerprint that differs is not an error yet: adding a parameter with a default is compatible both ways. So the
server is asked for its schema, and only what is incompatible is told, by name and before the first call.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from rpcfw.connection.method import MethodCodec, codec_of
from rpcfw.errors import Code, RpcError
from rpcfw.interface import MethodSpec, ServiceSpec, service_schema, spec_of
from rpcfw.interface.compatibility import compare
from rpcfw.reflection import Reflection
from rpcfw.wire.handshake import Hello, MethodEntry

logger = logging.getLogger("rpcfw")

DESCRIBE = spec_of(Reflection).methods["describe"]

Bound = tuple[int, MethodCodec]
"""A method's number at one server, and its codec."""


async def bind(spec: MethodSpec, peer: str, hello: Hello, describe: Callable[[str], Awaitable[Any]]) -> Bound:
    """Find the server's number for a method, and make sure that both sides mean the same by it.

    Args:
        spec: the method as this side knows it.
        peer: the server's address, for errors.
        hello: what the server said about itself.
        describe: asks the server for the schema of a service.

    Raises:
        RpcError: UNIMPLEMENTED, saying what the server does have, or FAILED_PRECONDITION, naming what has changed
            incompatibly.
    """
    entry = _entry(spec, peer, hello)
    if entry.fingerprint != spec.fingerprint and spec is not DESCRIBE:
        _compare(spec, peer, await describe(spec.service))
    return entry.id, codec_of(spec)


def _entry(spec: MethodSpec, peer: str, hello: Hello) -> MethodEntry:
    service = hello.services.get(spec.service)
    if service is None:
        known = ", ".join(sorted(hello.services)) or "nothing"
        message = f"{peer} does not serve {spec.service!r}; it serves {known}"
        raise RpcError(Code.UNIMPLEMENTED, message, executed=False)
    version, methods = service
    entry = methods.get(spec.name)
    if entry is None:
        known = ", ".join(sorted(methods))
        message = f"{spec.service} {version} at {peer} has no method {spec.name!r}; it has {known}"
        raise RpcError(Code.UNIMPLEMENTED, message, executed=False)
    return entry


def _compare(spec: MethodSpec, peer: str, schema: Any) -> None:
    try:
        theirs = {**schema, "methods": {spec.name: schema["methods"][spec.name]}}
        ours = service_schema(ServiceSpec(spec.service, schema["version"], {spec.name: spec}, object))
        changes = compare(theirs, ours)
    except Exception as error:  # what a peer says of itself may be anything
        problem = f"{type(error).__name__} {error}"
        message = f"{spec.path} differs at {peer}, whose description of it cannot be read: {problem}"
        raise RpcError(Code.FAILED_PRECONDITION, message, executed=False) from error
    breaking = "; ".join(change.message for change in changes if change.breaking)
    if breaking:
        message = f"{spec.path} differs between this client and {peer}: {breaking}"
        raise RpcError(Code.FAILED_PRECONDITION, message, executed=False)
    for change in changes:
        logger.info("%s differs from the one at %s, compatibly: %s", spec.path, peer, change.message)
