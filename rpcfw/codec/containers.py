"""A guard against messages that are small on the wire and huge in memory.

Four megabytes of empty lists are 300 MB of Python objects, and pydantic keeps an error of a kilobyte for each of a
million values that do not fit. Only types that can hold many are guarded, only messages beyond `GUARDED_BYTES`, and
only when a count at C speed says that there may be too many is the message walked.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

GUARDED_BYTES = 64 * 1024
"""Messages up to this size are decoded without a look: they cannot hold more than 65,536 containers."""

MAX_CONTAINERS = 250_000
"""How many lists, maps and objects one message may hold."""

MAX_MODEL_VALUES = 100_000
"""How many values one message may hold where pydantic validates it."""

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


def holds_models(declared: Any, hints: Callable[[type], dict[str, Any]]) -> bool:
    """Whether values of a type may hold pydantic models."""
    seen: set[Any] = set()

    def walk(tp: Any) -> bool:
        target = get_origin(tp) or tp
        if isinstance(target, type) and target not in seen:
            seen.add(target)
            if getattr(target, "__pydantic_validator__", None) is not None:
                return True
            if hasattr(target, "__annotations__") and any(map(walk, hints(target).values())):
                return True
        return any(map(walk, get_args(tp)))

    return walk(declared)


def check_values(data: bytes | bytearray | memoryview, limit: int = MAX_MODEL_VALUES) -> None:
    """Refuse a msgpack message with more than `limit` values of any kind. Raises ContainersError with both figures."""
    if len(data) > limit and _more_than(bytes(data), len(data), limit):
        raise ContainersError(
            f"the message of {len(data):,} bytes holds more than {limit:,} values, too many for pydantic models; "
            "use dataclasses, or send it as a stream"
        )


def check_containers(data: bytes | bytearray | memoryview, limit: int = MAX_CONTAINERS) -> None:
    """Refuse a msgpack message with more than `limit` containers. Raises ContainersError with both figures."""
    flat = bytes(data)
    suspects = len(flat) - len(flat.translate(None, _CONTAINER_BYTES))
    if suspects > limit and _more_than(flat, limit, len(flat)):
        raise ContainersError(
            f"the message of {len(flat):,} bytes holds more than {limit:,} lists and maps; send it as a stream"
        )


@functools.cache
def _runs() -> re.Pattern[bytes]:
    """Matches values of msgpack that are no containers, as many as follow each other: at C speed, as far as it goes.

    Text and binary longer than 15 bytes (31 where the head says so itself) are left to the caller.
    """
    one_of = "[{}]".format
    kinds = [one_of(r"\x00-\x7f\xe0-\xff\xc0\xc2\xc3") + "++"]
    kinds += [one_of(_escaped(heads)) + f".{{{size}}}" for heads, size in _FIXED.items()]
    kinds += [_escaped(bytes((0xA0 | size,))) + f".{{{size}}}" for size in range(32)]
    for heads_of, (width, extra) in _COUNTED.items():
        short = (_escaped(size.to_bytes(width, "big")) + f".{{{size + extra}}}" for size in range(16))
        kinds.append(f"{one_of(_escaped(heads_of))}(?:{'|'.join(short)})")
    return re.compile(f"(?:{'|'.join(kinds)})++".encode(), re.DOTALL)


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


_FIXED = {
    b"\xcc\xd0": 1, b"\xcd\xd1\xd4": 2, b"\xd5": 3, b"\xca\xce\xd2": 4, b"\xd6": 5, b"\xcb\xcf\xd3": 8, b"\xd7": 9,
    b"\xd8": 17,
}  # fmt: skip
"""Heads of numbers and small extensions: how many bytes follow."""
_COUNTED = {
    b"\xc4\xd9": (1, 0), b"\xc5\xda": (2, 0), b"\xc6\xdb": (4, 0), b"\xc7": (1, 1), b"\xc8": (2, 1), b"\xc9": (4, 1)
}  # fmt: skip
"""Heads of text, binary and extensions: the width of their length, and what comes beside the bytes it counts."""
_SIZES = {head: sizes for heads, sizes in _COUNTED.items() for head in heads}


def _more_than(data: bytes, max_containers: int, max_values: int) -> bool:
    """Walk the values of a msgpack message. A malformed one is left for the decoder to refuse."""
    position, containers, values, size, run = 0, 0, 0, len(data), _runs().match
    while position < size:
        if passed := run(data, position):
            position = passed.end()
            continue
        head = data[position]
        if head in _SIZES:
            width, extra = _SIZES[head]
            position += 1 + width + extra + int.from_bytes(data[position + 1 : position + 1 + width], "big")
        elif head in _CONTAINER_BYTES:
            width = 0 if head < 0xA0 else 2 if head in (0xDC, 0xDE) else 4
            position += 1 + width
            count = int.from_bytes(data[position - width : position], "big") if width else head & 0x0F
            containers += 1
            values += count * 2 if head < 0x90 or head > 0xDD else count
            if containers > max_containers or values > max_values:
                return True
        else:
            return False
    return False
