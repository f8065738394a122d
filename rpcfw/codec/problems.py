"""Why a message was refused, for a person: the field by its path, the value found there, what was expected.

Only called once something is wrong, so it may search: it decodes without a type, walks to the path the engine
names, and shows the value shortened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from rpcfw.codec.containers import ContainersError

_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_AT = re.compile(r"(?P<what>.*?)(?: - at (?P<where>`\$[^`]*`|`key` in `\$[^`]*`))?$", re.DOTALL)
_MAX_SHOWN = 60
_MAX_SEARCHED_BYTES = 1 << 20
_ANY_KEY = "..."
"""How msgspec names the key of a dict in a path: not at all."""

Buffer = bytes | bytearray | memoryview


def explain_decoding(error: Exception, data: Buffer, decode: Callable[[Buffer], Any]) -> str:
    """The message of a decoding error, with the path and the value that broke the rule.

    Args:
        error: what `decode` has raised.
        data: what it was given.
        decode: asked again about parts of the message, to find the key of a dict.
    """
    if isinstance(error, RecursionError):
        return "the message is nested too deeply; flatten it or send it as a stream"
    located: Any = getattr(error, "errors", None)
    if callable(located):  # pydantic_core.ValidationError; msgspec raises its own when the model lies inside
        problems: Any = located()
        return "; ".join(
            f"{_dotted(e['loc']) or 'the value'}: {e['msg']}, got {_shown(e['input'])}" for e in problems[:5]
        )
    cause = error.__cause__
    if (
        isinstance(error, msgspec.ValidationError)
        and cause is not None
        and callable(getattr(cause, "errors", None))
    ):
        prefix, _ = _locate(_path_of(str(error)), data, decode)
        first = cause.errors()[0]  # type: ignore[attr-defined]  # checked above
        where = ".".join(part for part in (prefix, _dotted(first["loc"])) if part)
        return f"{where or 'the value'}: {first['msg']}, got {_shown(first['input'])}"
    match = _AT.match(str(error))
    what = match["what"] if match else str(error)
    path = _path_of(str(error))
    if isinstance(error, ContainersError):
        return str(error)
    if not isinstance(error, msgspec.ValidationError):
        return f"the bytes are not a valid message: {what}"
    path, found = _locate(path, data, decode)
    return f"{path or 'the value'}: {what[:1].lower()}{what[1:]}{found}"


def explain_encoding(error: Exception, value: Any) -> str:
    """The message of an encoding error: the first part of `value`, by path, that cannot travel."""
    for path, part in _parts("", value, 0):
        try:
            msgspec.msgpack.encode(part, enc_hook=_as_empty)
        except RecursionError:
            return f"{path or 'the value'}: nested too deeply, or holds itself"
        except OverflowError:
            return (
                f"{path or 'the value'}: {_shown(part)} does not fit into 64 bits; "
                "declare the field as str or decimal.Decimal to send larger whole numbers"
            )
        except (TypeError, ValueError, NotImplementedError) as problem:
            return f"{path or 'the value'}: {_shown(part)} cannot travel: {problem}"
    return str(error)


def _as_empty(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_validator__"):
        return None
    raise NotImplementedError(f"objects of type {type(value).__qualname__} cannot travel")


def _parts(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The leaves of a value with their paths; containers only by what they hold."""
    if depth > 100:
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _parts(f"{path}.{key}" if path else str(key), part, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            yield from _parts(f"{path}[{index}]", part, depth + 1)
    else:
        names = getattr(type(value), "__struct_fields__", None) or getattr(
            type(value), "__dataclass_fields__", None
        )
        fields = {name: getattr(value, name) for name in names} if names else getattr(value, "__dict__", None)
        if hasattr(type(value), "__pydantic_validator__") or names:
            yield from _parts(path, fields or {}, depth + 1)
        else:
            yield path, value


def _path_of(message: str) -> str:
    match = _AT.match(message)
    where = match["where"] if match else None
    if not where:
        return ""
    path = where.replace("`", "").replace("key in ", "").removeprefix("$")
    return path.removeprefix(".")


def _locate(path: str, data: Buffer, decode: Callable[[Buffer], Any]) -> tuple[str, str]:
    """A path with the keys of dicts in it, and `: 'three'`, the value there; as far as they can be found."""
    if len(data) > _MAX_SEARCHED_BYTES:
        return path, ""
    try:
        message: Any = msgspec.msgpack.decode(data)
        exact, value = "", message
        for name, index in _STEP.findall("." + path if path and not path.startswith("[") else path):
            key = name or (int(index) if index != _ANY_KEY else _culprit(value, message, path, decode))
            exact += f".{name}" if name else f"[{key!r}]"
            value = value[key]
    except (msgspec.MsgspecError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return path, ""
    return exact.removeprefix("."), f": {_shown(value)}"


def _culprit(entries: dict[Any, Any], message: Any, path: str, decode: Callable[[Buffer], Any]) -> Any:
    """The key of an entry that is refused at `path`, by halves; the other entries are taken out of the message."""
    suspects = list(entries.items())
    while True:
        half = suspects[: (len(suspects) + 1) // 2]
        entries.clear()
        entries.update(half)
        try:
            decode(msgspec.msgpack.encode(message))
            refused = False
        except msgspec.ValidationError as error:
            refused = _path_of(str(error)) == path
        if len(suspects) <= 1:
            break
        suspects = half if refused else suspects[len(half) :]
    if not refused:
        raise LookupError("none of them")
    return suspects[0][0]


def _dotted(location: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
