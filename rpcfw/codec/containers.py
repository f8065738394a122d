"""A guard against messages that are small on the wire and huge in memory.

Four megabytes of empty lists are 300 MB of Python objects. Only types that can hold many containers are guarded, only
messages beyond `GUARDED_BYTES`, and only when a count at C speed says that there may be too many is the message walked.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

GUARDED_BYTES = 64 * 1024
"""Messages up to this size are decoded without a look: they cannot hold more than 65,536 containers."""

MAX_CONTAINERS = 250_000
"""How many lists, maps and objects one message may hold."""

_CONTAINER_BYTES = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_FLAT = (str, bytes, int, float, bool, type(None), memoryview, bytearray)


class ContainersError(ValueError):
    """A message holds more lists and maps than one message may."""


def holds_many(declared: Any, hints: Callable[[type], dict[str, Any]]) -> bool:
    """Whether values of a type can hold arbitrarily many containers: a collection of anything but flat values."""
    seen: set[Any] = set()

    def walk(tp: Any) -> bool:
        origin, args = get_origin(tp), get_args(tp)
        if origin is Annotated:
            return walk(args[0])
        if origin in (Union, types.UnionType):
            return any(walk(arg) for arg in args)
        if tp in _FLAT:
            return False
        if tp in (Any, object, list, dict, tuple, set, frozenset) or isinstance(tp, TypeVar):
            return True
        if origin is tuple and Ellipsis not in args:
            return any(walk(arg) for arg in args)
        if isinstance(origin, type) and not hasattr(origin, "__annotations__"):
            return any(arg not in _FLAT for arg in args if arg is not Ellipsis)
        target = origin or tp
        if not isinstance(target, type) or target in seen:
            return target in seen
        seen.add(target)
        if getattr(target, "__pydantic_validator__", None) is not None:
            return True
        return (
            any(walk(field) for field in hints(target).values())
            if hasattr(target, "__annotations__")
            else False
        )

    return walk(declared)


def check_containers(data: bytes | bytearray | memoryview, limit: int = MAX_CONTAINERS) -> None:
    """Refuse a msgpack message with more than `limit` containers. Raises ContainersError with both figures."""
    flat = bytes(data)
    suspects = len(flat) - len(flat.translate(None, _CONTAINER_BYTES))
    if suspects > limit and _more_containers_than(flat, limit):
        raise ContainersError(
            f"the message of {len(flat):,} bytes holds more than {limit:,} lists and maps; send it as a stream"
        )


_FIXED_SIZES = {
    0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5,
    0xD3: 9, 0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
_COUNTED_SIZES = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0),
    0xDB: (4, 0),
}  # fmt: skip


def _more_containers_than(data: bytes, limit: int) -> bool:
    """Walk the values of a msgpack message. A malformed one is left for the decoder to refuse."""
    position, containers, values, size = 0, 0, 1, len(data)
    while position < size and values:
        values -= 1
        head = data[position]
        if head < 0x80 or head >= 0xE0:
            position += 1
        elif head < 0xA0 or 0xDC <= head <= 0xDF:
            containers += 1
            if containers > limit:
                return True
            width = 0 if head < 0xA0 else 2 if head in (0xDC, 0xDE) else 4
            count = (
                head & 0x0F
                if head < 0xA0
                else int.from_bytes(data[position + 1 : position + 1 + width], "big")
            )
            is_map = head < 0x90 or head in (0xDE, 0xDF)
            values += count * 2 if is_map else count
            position += 1 + width
        elif head < 0xC0:
            position += 1 + (head & 0x1F)
        elif head in _COUNTED_SIZES:
            width, extra = _COUNTED_SIZES[head]
            position += 1 + width + extra + int.from_bytes(data[position + 1 : position + 1 + width], "big")
        else:
            position += _FIXED_SIZES.get(head, 1)
    return False
