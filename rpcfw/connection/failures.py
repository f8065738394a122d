"""Exceptions to error replies and back: the one place where the two meet.

A declared error travels by its name and fields and arrives as itself. Whatever else a handler raises becomes an
`RpcError`; its text and traceback leave the server only in dev mode.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import msgpack

from rpcfw.codec import MessageError
from rpcfw.codec.containers import ContainersError, check_containers
from rpcfw.connection.method import MethodCodec
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.wire.frames import pack_error, unpack_error

logger = logging.getLogger("rpcfw")

_DECLARED = "declared"
_FIELDS = "fields"
_MAX_CONTAINERS = 10_000
"""How many lists and maps the details of an error may hold."""


def pack_failure(codec: MethodCodec, error: BaseException, *, dev: bool) -> bytes:
    """The body of the error reply for what a handler raised. Never raises, whatever that is."""
    try:
        return _pack_failure(codec, error, dev=dev)
    except Exception as problem:  # its own __str__ may fail, its fields may be anything
        what = (
            f"{codec.path} failed with {type(error).__name__}, which cannot be told: {type(problem).__name__}"
        )
        logger.error("%s", what, exc_info=problem)
        return pack_error(RpcError(Code.INTERNAL, what))


def _pack_failure(codec: MethodCodec, error: BaseException, *, dev: bool) -> bytes:
    if isinstance(error, RpcError):
        return pack_error(_as_own(error))
    declared = codec.errors.get(type(error).__name__)
    if declared is not None and isinstance(error, declared.error):
        try:
            fields = declared.encode(error)
        except MessageError as problem:
            return pack_error(
                RpcError(Code.INTERNAL, f"{codec.path} raised {type(error).__name__}: {problem}")
            )
        known = {
            "code": int(Code.UNKNOWN),
            "message": f"{type(error).__name__}: {error}",
            _DECLARED: type(error).__name__,
        }
        return bytes(msgpack.packb({**known, _FIELDS: fields}))
    if isinstance(error, asyncio.CancelledError):
        return pack_error(RpcError(Code.CANCELLED, f"{codec.path}: the handler was cancelled"))
    logger.error("%s failed: %s: %s", codec.path, type(error).__name__, error, exc_info=error)
    if not dev:
        return pack_error(
            RpcError(
                Code.UNKNOWN,
                f"{codec.path} failed with {type(error).__name__}; the server's log has the traceback",
            )
        )
    failure = RpcError(Code.UNKNOWN, f"{codec.path} failed: {type(error).__name__}: {error}")
    failure.remote_traceback = "".join(traceback.format_exception(error))
    return pack_error(failure)


def unpack_failure(codec: MethodCodec, body: bytes | memoryview, *, refused: bool) -> Exception:
    """The exception for an error reply: the declared error itself, or an `RpcError`."""
    try:
        check_containers(body, _MAX_CONTAINERS)
    except ContainersError as problem:
        message = f"{codec.path}: its error cannot be read: {problem}"
        return RpcError(Code.INTERNAL, message, origin=Origin.CONNECTION, executed=not refused)
    name, fields = _declared(body)
    declared = codec.errors.get(name)
    if declared is not None:
        try:
            return declared.decode(fields)
        except MessageError as problem:
            message = f"{codec.path}: its declared error {name} cannot be read: {problem}"
            return RpcError(Code.INTERNAL, message, origin=Origin.CONNECTION, executed=True)
    error = unpack_error(body)
    error.executed = not refused
    return error


def _declared(body: bytes | memoryview) -> tuple[str, bytes]:
    try:
        fields: Any = msgpack.unpackb(body, max_array_len=10_000, max_map_len=10_000)
        name, packed = fields.get(_DECLARED, ""), fields.get(_FIELDS, b"")
    except (ValueError, AttributeError, RecursionError, msgpack.UnpackException):
        return "", b""
    return (name, packed) if isinstance(name, str) and isinstance(packed, bytes) else ("", b"")


def _as_own(error: RpcError) -> RpcError:
    """A handler's RpcError as this server's answer: the handler ran, whatever happened further down."""
    return RpcError(error.code, error.message, error.details, executed=True)
