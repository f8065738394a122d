"""What a call is keyed by, for whatever sends calls of one key to one place: hashing, sticky and canary routing.

A key is a function from a call to bytes that are the same in every process, or None where the call has none.
"""

from __future__ import annotations

import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from rpcfw.call import Call
from rpcfw.mistakes import check_text

Key = Callable[[Call], bytes | None]
"""The key of a call, or None when it has none. The same call must give the same key in every process."""


def by_argument(*names: str) -> Key:
    """The value of one argument, or of several together.

    A call whose method lacks one of them, or where one is None, has no key. Raises TypeError, when the key is taken,
    for a value that cannot be written as JSON, such as a stream.
    """
    if not names:
        raise ValueError("by_argument() needs the name of at least one argument")

    for name in names:
        check_text(name, "name", 'by_argument("user_id")')

    def key(call: Call) -> bytes | None:
        parts = []
        for name in names:
            try:
                value = call.argument(name)
            except KeyError:
                return None
            if value is None:
                return None
            parts.append(_stable(value))
        if len(parts) == 1:
            return parts[0]
        return b"".join(b"%d:%b" % (len(part), part) for part in parts)  # ("ab", "c") is not ("a", "bc")

    return key


def by_metadata(name: str) -> Key:
    """The value of one entry of the metadata; a call without it has no key."""
    check_text(name, "name", 'by_metadata("session")')
    if not name or name != name.lower():
        raise ValueError(f"by_metadata({name!r}): names of metadata are lower-case text, not empty")

    def key(call: Call) -> bytes | None:
        value = call.metadata.get(name)
        return value.encode() if isinstance(value, str) else value

    return key


def _stable(value: Any) -> bytes:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, int | uuid.UUID | decimal.Decimal):
        return str(value).encode()
    return msgspec.json.encode(value, enc_hook=_plain, order="deterministic")


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic's, which msgspec does not know
    if dump is None:
        raise TypeError(f"{value!r} cannot be a key: name an argument that can be written as JSON")
    return dump(mode="json")
