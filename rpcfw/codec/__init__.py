"""Typed values to bytes and back: one plan per declared type, built once."""

from rpcfw.codec.containers import GUARDED_BYTES
from rpcfw.codec.plan import (
    Buffer,
    Encoded,
    MessageError,
    Plan,
    encode_value,
    plan_of,
    plan_of_arguments,
    plan_of_items,
    size_of,
)

__all__ = [
    "GUARDED_BYTES",
    "Buffer",
    "Encoded",
    "MessageError",
    "Plan",
    "encode_value",
    "plan_of",
    "plan_of_arguments",
    "plan_of_items",
    "size_of",
]
