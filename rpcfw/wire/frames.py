"""The frames: a fixed 16-byte header and an opaque body. docs/wire.md specifies every byte.

Constants and pure functions only; what frames mean to a connection stands in `reader`, `handshake` and `window`.
The fixed header gives size checks before decoding and bodies that are decoded once, where they are used.
"""

from __future__ import annotations

import math
import struct
from typing import Final

import msgpack

from rpcfw.errors import Code, Origin, RpcError

HEADER: Final = struct.Struct("<IBBHII")
"""Body length, frame type, flags, method id, stream id, and a field whose meaning follows from the type."""
HEADER_BYTES: Final = HEADER.size

# frame types
HELLO: Final = 0
REQUEST: Final = 1
REPLY: Final = 2
ITEMS: Final = 3
CREDIT: Final = 4
RESET: Final = 5
PING: Final = 6
PONG: Final = 7
GOAWAY: Final = 8
CHUNK: Final = 9
FRAME_NAMES: Final = (
    "HELLO",
    "REQUEST",
    "REPLY",
    "ITEMS",
    "CREDIT",
    "RESET",
    "PING",
    "PONG",
    "GOAWAY",
    "CHUNK",
)

# flags
END: Final = 0x01
"""The sender sends nothing more on this stream."""
METADATA: Final = 0x02
"""The body begins with metadata: its length in four bytes, then a msgpack map."""
END_METADATA: Final = END | METADATA
"""What a call with metadata and without streams has."""
ERROR: Final = 0x04
"""A REPLY that carries an error instead of a result."""
ONEWAY: Final = 0x08
"""A REQUEST that wants no reply."""
REFUSED: Final = 0x10
"""With ERROR: the handler never ran, so the call may be sent again."""
PARTED: Final = 0x100
"""Never sent, a byte has no room for it: a reader's remark that it received the body in parts."""
UNKEPT: Final = 0x200
"""Never sent either: the reader's remark that the message found no memory, and that the body is empty for that."""

MAGIC: Final = 0x46435052
"""In a HELLO's last header field: "RPCF" as bytes. Tells a stranger's protocol at the first frame."""
VERSION: Final = 1

BY_NAME: Final = 0
"""The method id of a request that names its method in the metadata entry `METHOD_NAME` instead."""
METHOD_NAME: Final = ":method"
KEY: Final = ":key"
"""In the metadata of a call that is to run once, however often it comes."""
MEMORY: Final = ":memory"
"""In the metadata of a call that comes again: the only memory of calls that may take it."""
MAX_STREAM_ID: Final = 2**30 - 1
"""A client then goes on over another connection. 32 bits would do on the wire; up to here Python compares faster."""
TICKS_PER_S: Final = 100_000.0
_U32 = struct.Struct("<I")

Frame = tuple[int, int, int, int, int, bytes | memoryview]
"""Type, flags, method id, stream id, the last header field, body."""


def frame(kind: int, flags: int, method: int, stream: int, extra: int, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(len(body), kind, flags, method, stream, extra) + body


def ticks_of(remaining_s: float) -> int:
    """A remaining time as the header carries it: units of 10 microseconds, rounded down so that no hop adds time."""
    return 0 if remaining_s == math.inf else max(1, min(int(remaining_s * TICKS_PER_S), 0xFFFF_FFFF))


def seconds_of(ticks: int) -> float:
    """The remaining time of a header field; 0 says that there is no deadline."""
    return ticks / TICKS_PER_S if ticks else math.inf


def with_metadata(metadata: bytes, body: bytes) -> bytes:
    """A body for a frame with the METADATA flag."""
    return _U32.pack(len(metadata)) + metadata + body


def split_metadata(body: bytes | memoryview, limit: int) -> tuple[bytes, bytes | memoryview]:
    """Metadata and the rest of a body.

    Raises RpcError RESOURCE_EXHAUSTED beyond `limit`, INVALID_ARGUMENT when it is cut short.
    """
    if len(body) < 4:
        message = "a body with metadata must begin with the four bytes of its length"
        raise RpcError(Code.INVALID_ARGUMENT, message, executed=False)
    (size,) = _U32.unpack_from(body)
    if size > limit:
        raise RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"metadata of {size:,} bytes is over the limit of {limit:,}",
            executed=False,
        )
    if size > len(body) - 4:
        message = f"metadata of {size:,} bytes does not fit into a body of {len(body):,}"
        raise RpcError(Code.INVALID_ARGUMENT, message, executed=False)
    return bytes(body[4 : 4 + size]), body[4 + size :]


def pack_error(error: RpcError) -> bytes:
    """The body of a REPLY with the ERROR flag. Details that cannot travel are left out, and the message says so."""
    try:
        return _pack_error(error)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        note = f"{error.message} (its details cannot travel: {problem})"
        return _pack_error(
            RpcError(error.code, note.encode(errors="backslashreplace").decode(), executed=error.executed)
        )


def _pack_error(error: RpcError) -> bytes:
    fields: dict[str, object] = {"code": int(error.code), "message": error.message}
    if error.details:
        fields["details"] = error.details
    if error.executed is not None:
        fields["executed"] = error.executed
    if error.remote_traceback:
        fields["traceback"] = error.remote_traceback
    return bytes(msgpack.packb(fields))


def unpack_error(body: bytes | memoryview) -> RpcError:
    """Read an error. What does not fit becomes an INTERNAL error that says so, never an exception of another kind."""
    try:
        fields = msgpack.unpackb(body, max_array_len=10_000, max_map_len=10_000)
        code, message, details = Code(fields["code"]), fields["message"], fields.get("details")
        if not isinstance(message, str) or not isinstance(details, dict | None):
            raise ValueError("its fields are of the wrong types")
        error = RpcError(
            code, message, details, origin=Origin.REMOTE, executed=fields.get("executed") is True
        )
        trace = fields.get("traceback")
        error.remote_traceback = trace if isinstance(trace, str) else None
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        msgpack.UnpackException,
    ) as problem:
        return RpcError(
            Code.INTERNAL, f"the peer sent an error that cannot be read: {problem}", origin=Origin.CONNECTION
        )
    return error
