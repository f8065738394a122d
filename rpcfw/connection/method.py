"""A method together with the plans of everything it sends: arguments, result, items, declared errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from rpcfw.codec import Encoded, MessageError, Plan, encode_value, plan_of, plan_of_arguments, plan_of_items
from rpcfw.errors import Code, RpcError
from rpcfw.interface.spec import REQUIRED, CallKind, MethodSpec


class MethodCodec:
    """Turns the calls of one method into bytes and back.

    `encode_call` and `decode_result` are for the hot path and raise whatever the plan's engine raises.
    """

    __slots__ = ("arguments", "decode_result", "decode_small", "encode_call", "errors", "is_plain", "is_unary",
                 "items_in", "items_out", "path", "result", "spec", "stream_index")  # fmt: skip

    def __init__(self, spec: MethodSpec) -> None:
        self.spec = spec
        self.path = spec.path
        self.is_unary = spec.kind is CallKind.UNARY
        self.is_plain = self.is_unary and not spec.oneway
        fields = [(p.name, p.type, p.default) for p in spec.parameters if not p.is_stream]
        self.arguments: Plan = plan_of_arguments(f"{spec.name}_arguments", fields, REQUIRED)
        self.result: Plan = plan_of(spec.result)
        self.decode_result, self.decode_small = self.result.decode, self.result.decode_small
        self.stream_index: int | None = next((i for i, p in enumerate(spec.parameters) if p.is_stream), None)
        self.encode_call: Callable[[tuple[Any, ...]], Encoded] = (
            self.arguments.encode if self.stream_index is None else self._encode_without_stream
        )
        streamed = spec.stream_parameter
        self.items_in: Plan | None = plan_of_items(streamed.type) if streamed else None
        self.items_out: Plan | None = plan_of_items(spec.result) if spec.kind.streams_out else None
        self.errors: dict[str, ErrorCodec] = {raised.__name__: ErrorCodec(raised) for raised in spec.raises}

    def encode_arguments(self, arguments: tuple[Any, ...]) -> bytes:
        """A call's arguments in one piece. Raises RpcError INVALID_ARGUMENT that names the field and the value."""
        try:
            encoded = self.encode_call(arguments)
        except Exception as error:
            raise self.unsendable(arguments, error) from error
        return encoded if isinstance(encoded, bytes) else b"".join(encoded)

    def unsendable(self, arguments: tuple[Any, ...], error: Exception) -> RpcError:
        """What to raise when `encode_call` has failed: names the field and the value."""
        problem = self.arguments.encoding_error(error, self._without_stream(arguments))
        return RpcError(Code.INVALID_ARGUMENT, f"{self.path}: {problem}", executed=False)

    def _without_stream(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        index = self.stream_index
        return arguments if index is None else arguments[:index] + arguments[index + 1 :]

    def _encode_without_stream(self, arguments: tuple[Any, ...]) -> Encoded:
        return self.arguments.encode(self._without_stream(arguments))

    def with_stream(self, arguments: tuple[Any, ...], stream: Any) -> tuple[Any, ...]:
        """Put the stream among the arguments, where the signature has it."""
        index = self.stream_index
        return arguments if index is None else (*arguments[:index], stream, *arguments[index:])


class ErrorCodec:
    """A declared error's fields as a map, and the error made again from them."""

    __slots__ = ("_names", "_plan", "error")

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self._plan: Plan | None = None
        self._names: tuple[str, ...] = ()
        if dataclasses.is_dataclass(error):
            hints = get_type_hints(error, include_extras=True)
            fields = [field for field in dataclasses.fields(error) if field.init]
            self._names = tuple(field.name for field in fields)
            self._plan = plan_of_arguments(
                error.__name__, [(f.name, hints[f.name], _default(f)) for f in fields], REQUIRED
            )

    def encode(self, error: Exception) -> bytes:
        """Raises MessageError when a field cannot travel."""
        if self._plan is None:
            return encode_value(
                [arg if isinstance(arg, str | int | float | bool | None) else str(arg) for arg in error.args]
            )
        values = tuple(getattr(error, name) for name in self._names)
        try:
            encoded = self._plan.encode(values)
        except Exception as problem:
            raise self._plan.encoding_error(problem, values) from problem
        return encoded if isinstance(encoded, bytes) else b"".join(encoded)

    def decode(self, data: bytes) -> Exception:
        """Raises MessageError when the fields do not fit."""
        try:
            if self._plan is None:
                return self.error(*msgspec.msgpack.decode(data, type=list[str | int | float | bool | None]))
            return self.error(**dict(zip(self._names, self._plan.decode(data), strict=True)))
        except Exception as problem:  # of the decoder, or of the error's own __init__ or __post_init__
            explained = self._plan.decoding_error(problem, data) if self._plan is not None else problem
            raise MessageError(str(explained)) from problem


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else REQUIRED


@functools.lru_cache(maxsize=4096)
def codec_of(spec: MethodSpec) -> MethodCodec:
    """The codec of a method, built at its first use. Raises TypeError for a type that cannot travel."""
    return MethodCodec(spec)
