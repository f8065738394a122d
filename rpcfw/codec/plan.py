"""One plan per declared type: how its values become bytes and how bytes become valid values again.

A plan is built once and holds bound C functions, so using it costs no Python of ours. The engine follows from the
declared type alone, never from a peer's wish: msgspec for builtins, dataclasses and Structs, pydantic-core for
pydantic models inside them, a pydantic TypeAdapter where only pydantic can tell union members apart.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import msgspec

from rpcfw.codec.containers import GUARDED_BYTES, check_containers, check_values, holds_many, holds_models
from rpcfw.codec.models import decodable, pack_foreign, unpack_foreign, validator_of
from rpcfw.codec.problems import explain_decoding, explain_encoding

Buffer = bytes | bytearray | memoryview
Encoded = bytes | list[Buffer]
"""One buffer, or several to be sent one after the other, so that large payloads need not be copied together."""

LARGE_BYTES = 64 * 1024
"""A bytes argument of at least this size is sent from where it lies instead of being copied into the message."""

_BINARY_HEAD_BYTES = 5
_EMPTY_BINARY = b"\xc4\x00"

ENCODER = msgspec.msgpack.Encoder(enc_hook=pack_foreign)
encode_value: Callable[[Any], bytes] = ENCODER.encode


def size_of(body: Encoded) -> int:
    """Bytes in all."""
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


class MessageError(ValueError):
    """A message does not fit its declared type, or a value cannot travel. Names the field by path and the value."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How one declared type travels.

    `encode` and `decode` raise whatever their engine raises; hand that error to `encoding_error` or
    `decoding_error`, which search the value for the culprit. So the common case pays nothing for good messages.
    `decode_small` does the same as `decode` for messages of up to `GUARDED_BYTES`, and is not guarded.
    """

    type: Any
    encode: Callable[[Any], Encoded]
    decode: Callable[[Buffer], Any]
    decode_small: Callable[[Buffer], Any]

    def decode_parts(self, head: bytes, binary: memoryview) -> Any:
        """Decode a message in two parts: `binary` is all of a `bytes`, the content of the binary value that ends it.

        Where that value is declared as `bytes`, it is those, uncopied.
        """
        if self.type is bytes and len(head) == _BINARY_HEAD_BYTES:
            return binary.obj
        return self.decode(head + binary)

    def encoding_error(self, error: Exception, value: Any) -> MessageError:
        """What to raise when `encode` has failed."""
        return MessageError(explain_encoding(error, value))

    def decoding_error(self, error: Exception, data: Buffer) -> MessageError:
        """What to raise when `decode` has failed."""
        return MessageError(explain_decoding(error, data, self.decode))


def plan_of(declared: Any) -> Plan:
    """The plan of a declared type. Raises TypeError, with the reason, for a type that cannot travel."""
    try:
        hash(declared)
    except TypeError:  # what stands in an Annotated may be anything
        return _make_plan(declared)
    return _known_plan(declared)


def _make_plan(declared: Any) -> Plan:
    if declared is bytes:
        return Plan(declared, _encode_bytes, *_decoders(declared))
    return Plan(declared, encode_value, *_decoders(declared))


_known_plan = functools.lru_cache(maxsize=4096)(_make_plan)


def plan_of_items(item: Any) -> Plan:
    """The plan of a batch of stream items: encodes one item, decodes an array of them."""
    batch = plan_of(list[item])
    return Plan(item, encode_value, batch.decode, batch.decode_small)


def plan_of_arguments(name: str, fields: Sequence[tuple[str, Any, Any]], required: Any) -> Plan:
    """The plan of a call's arguments: a tuple of values to a map by name, and back.

    Args:
        name: what to call it in errors.
        fields: name, declared type and default of each; `required` stands for no default.
    """
    specs: list[tuple[str, Any, Any]] = []
    for field, declared, default in fields:
        specs.append(
            (field, decodable(declared), msgspec.field() if default is required else _default(default))
        )
    optional = [default is not required for _, _, default in fields]
    in_order = optional == sorted(optional)
    record = msgspec.defstruct(name, specs, frozen=True, kw_only=not in_order)
    names = tuple(field for field, _, _ in fields)
    decode, decode_small = (_to_tuple(decode) for decode in _decoders(record))

    def encode_in_order(values: tuple[Any, ...]) -> Encoded:
        return encode_value(record(*values))

    def encode_by_name(values: tuple[Any, ...]) -> Encoded:
        return encode_value(dict(zip(names, values, strict=True)))

    encode: Callable[[tuple[Any, ...]], Encoded] = encode_in_order if in_order else encode_by_name
    binaries = [(encode_value(name), place) for place, name in enumerate(names) if fields[place][1] is bytes]
    binaries.sort(key=lambda binary: -len(binary[0]))
    if binaries:
        encode = _vectored(names, encode)
    return _ArgumentsPlan(record, encode, decode, decode_small, names, tuple(binaries))


def _to_tuple(decode: Callable[[Buffer], Any]) -> Callable[[Buffer], tuple[Any, ...]]:
    astuple = msgspec.structs.astuple
    return lambda data: astuple(decode(data))


def _default(value: Any) -> Any:
    return msgspec.field(default_factory=lambda: value)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _ArgumentsPlan(Plan):
    names: tuple[str, ...] = ()
    binaries: tuple[tuple[bytes, int], ...] = ()
    """Parameters declared as `bytes`: the name as it is encoded, and the place. Longer names first."""

    def decode_parts(self, head: bytes, binary: memoryview) -> Any:
        """As for any plan."""
        before = head[:-_BINARY_HEAD_BYTES]
        for name, place in self.binaries:
            if before.endswith(name):
                values: tuple[Any, ...] = self.decode(before + _EMPTY_BINARY)
                return (*values[:place], binary.obj, *values[place + 1 :])
        return self.decode(head + binary)

    def encoding_error(self, error: Exception, value: Any) -> MessageError:
        """As for any plan, with the arguments by their names."""
        return MessageError(explain_encoding(error, dict(zip(self.names, value, strict=True))))


def _decoders(declared: Any) -> tuple[Callable[[Buffer], Any], Callable[[Buffer], Any]]:
    """For messages of any size, and for small ones."""
    decode = _model_decoder(declared) or _msgspec_decoder(declared)
    if not holds_many(declared, _hints):
        return decode, decode

    check = check_values if holds_models(declared, _hints) else check_containers

    def decode_guarded(data: Buffer) -> Any:
        if len(data) > GUARDED_BYTES:
            check(data)
        return decode(data)

    return decode_guarded, decode


def _msgspec_decoder(declared: Any) -> Callable[[Buffer], Any]:
    return msgspec.msgpack.Decoder(decodable(declared), dec_hook=unpack_foreign).decode


def _model_decoder(declared: Any) -> Callable[[Buffer], Any] | None:
    """For a model by itself: to its validator without the detour over msgspec's hook, which looks it up each time."""
    is_model = isinstance(declared, type) and not dataclasses.is_dataclass(
        declared
    )  # msgspec reads those itself
    validate = validator_of(declared) if is_model else None
    if validate is None:
        return None
    decode_plain: Callable[[Buffer], Any] = msgspec.msgpack.Decoder().decode

    def decode_model(data: Buffer) -> Any:
        return validate(decode_plain(data))

    return decode_model


def _hints(declared: type) -> dict[str, Any]:
    return get_type_hints(declared, include_extras=True)


def _encode_bytes(value: bytes) -> Encoded:
    if len(value) < LARGE_BYTES:
        return encode_value(value)
    return [_binary_header(len(value)), value]


def _binary_header(size: int) -> bytes:
    return b"\xc6" + size.to_bytes(4, "big")


def _vectored(
    names: tuple[str, ...], encode: Callable[[tuple[Any, ...]], Encoded]
) -> Callable[[tuple[Any, ...]], Encoded]:
    """Send large bytes arguments from where they lie, after the rest of the map: so the last one can be received so."""
    keys = tuple(encode_value(name) for name in names)

    def encode_vectored(values: tuple[Any, ...]) -> Encoded:
        if not any(isinstance(value, bytes) and len(value) >= LARGE_BYTES for value in values):
            return encode(values)
        parts: list[Buffer] = []
        small = b"\xde" + len(values).to_bytes(2, "big")
        for key, value in zip(keys, values, strict=True):
            if isinstance(value, bytes) and len(value) >= LARGE_BYTES:
                parts += [key + _binary_header(len(value)), value]
            else:
                small += key + encode_value(value)
        return [small, *parts]

    return encode_vectored
