"""Replies that are more than a plain result: what becomes of them for the call that waits.

A plain result the connection decodes itself, without a step aside.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rpcfw.call import Call, unpack_metadata
from rpcfw.connection.failures import unpack_failure
from rpcfw.connection.method import MethodCodec
from rpcfw.connection.session import Session
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.wire.frames import ERROR, METADATA, PARTED, REFUSED, UNKEPT, split_metadata

Pending = tuple["asyncio.Future[Any]", MethodCodec, Call]
"""A call in progress: its future has the outcome, None where the result is a stream."""


def settle(pending: Pending, flags: int, body: bytes | memoryview, session: Session) -> None:
    """Give a call the outcome that a reply says: a result or an error, with metadata or without, or a stream's end.

    Metadata of more than the session's `max_metadata_bytes` is not read, and the call fails.
    """
    future, codec, call = pending
    if flags & UNKEPT:
        message = f"{codec.path}: the reply found no memory; raise max_memory_bytes of this client"
        future.set_exception(RpcError(Code.RESOURCE_EXHAUSTED, message, executed=True))
        return
    if flags & METADATA:
        try:
            metadata, body = split_metadata(body, session.settings.max_metadata_bytes)
            if call.reply_metadata is not None:
                call.reply_metadata.update(unpack_metadata(metadata))
        except RpcError as error:
            message = f"{codec.path}: the metadata of the reply cannot be read: {error.message}"
            future.set_exception(RpcError(Code.INTERNAL, message, origin=Origin.CONNECTION, executed=True))
            return
    if flags & ERROR:
        future.set_exception(unpack_failure(codec, body, refused=bool(flags & REFUSED)))
    elif codec.items_out is not None:
        future.set_result(None)
    else:
        try:
            if flags & PARTED:
                future.set_result(codec.result.decode_parts(session.head, memoryview(body)))
            else:
                future.set_result(codec.decode_result(body))
        except Exception as error:
            future.set_exception(unreadable(codec, error, session.head + body))


def unreadable(codec: MethodCodec, error: Exception, body: bytes | memoryview) -> RpcError:
    """The error of a call whose result cannot be decoded."""
    problem = codec.result.decoding_error(error, body)
    message = f"{codec.path}: the reply does not fit {codec.spec.result!r}: {problem}"
    return RpcError(Code.INTERNAL, message, origin=Origin.CONNECTION, executed=True)
