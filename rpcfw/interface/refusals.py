"""What to say of types that cannot travel: their name as the user wrote it, and what to use instead.

Words only; which types travel is decided in `schema`.
"""

from __future__ import annotations

import collections
import collections.abc
import datetime
import decimal
import fractions
import ipaddress
import itertools
import pathlib
import re
import sys
import types
import typing
import uuid
from typing import Any, get_args, get_origin

_COLLECTIONS: tuple[type, ...] = (list, tuple, dict, set, frozenset)
_SCALARS = (int, float, str, bytes, bytearray, decimal.Decimal, uuid.UUID)
_TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)
_TEXT_LIKE = (pathlib.PurePath, re.Pattern, fractions.Fraction, *_ADDRESSES)
_STREAMS = (collections.abc.AsyncIterable, collections.abc.AsyncIterator, collections.abc.AsyncGenerator)
_LAZY = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)


def label(declared: Any) -> str:
    """A type as a person would write it: `Page[Order]`, `list[int]`, `threading.Lock`."""
    if declared is Ellipsis:
        return "..."
    if isinstance(declared, list):  # the parameters of a Callable
        return f"[{', '.join(map(label, declared))}]"
    if declared is None or declared is type(None):
        return "None"
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is typing.Annotated:
        return label(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(label(argument) for argument in arguments)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None and arguments:
        return f"{label(origin)}[{', '.join(label(argument) for argument in arguments)}]"
    name = getattr(declared, "__qualname__", None) or getattr(declared, "__name__", None) or str(declared)
    return str(name).rpartition("<locals>.")[2]


def full_label(declared: Any) -> str:
    """A type as `label` has it, with its public module unless it is a builtin: for types the reader may not know."""
    module = str(getattr(declared, "__module__", "builtins"))
    if not isinstance(declared, type) or module == "builtins":
        return label(declared)
    public = itertools.takewhile(lambda part: not part.startswith("_"), module.split("."))
    return ".".join([*public, label(declared)])


def mend_for(declared: Any) -> str:
    """What to use instead of a type that cannot travel."""
    target: Any = get_origin(declared) or declared
    if isinstance(declared, typing.TypeVar):
        return "it stands for nothing yet; bind it where its class is used, as in Page[Order]"
    if declared is typing.Self:
        return "write the class by its name"
    if not isinstance(target, type):
        return "use a type that is data: a dataclass, str, int, list[...] and so on"
    if hasattr(target, "__rpcfw_service__"):
        return "a service is called, not sent; send a name or an address instead"
    if target in _STREAMS:
        return "a stream must be a parameter or the result itself, not a part of it"
    if target in _LAZY:
        return "use list[...] for what is finished, AsyncIterator[...] as the whole parameter or result for a stream"
    if target in (collections.abc.Awaitable, collections.abc.Coroutine):
        return "write `async def` and the type of the result itself"
    if target is complex:
        return "use tuple[float, float]"
    if issubclass(target, _TEXT_LIKE):
        return "use str"
    for plain in (*_COLLECTIONS, *_SCALARS, *_TIMES):
        if issubclass(target, plain):
            name = plain.__name__
            return f"as a subclass it would arrive as a plain {name}: use {name}, or typing.NewType"
    if target.__name__ == "Callable":
        return "functions stay in their process; send data, or declare a method for it"
    if issubclass(target, BaseException):
        return "list it in raises=[...] where it is an error, or send its text as str"
    root = target.__module__.partition(".")[0]
    if root == "pydantic":
        return "use str or another plain type, and check its form with a validator"
    if target is collections.deque:
        return "use list"
    if root in sys.stdlib_module_names:
        return "it belongs to its process; send the data that it stands for"
    return "make it a dataclass, a msgspec.Struct, a pydantic model, a TypedDict or a NamedTuple"
