"""Messages in two parts: the bytes that end one are handed out as they are, and everything else as from one piece."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from rpcfw.codec import Plan, plan_of, plan_of_arguments

REQUIRED = object()
BLOB = b"b" * 100_000


@dataclasses.dataclass
class Piece:
    at: int
    data: bytes


def parts_of(message: bytes) -> tuple[bytes, memoryview]:
    assert message.endswith(BLOB)
    return message[: -len(BLOB)], memoryview(BLOB)


def arguments(*fields: tuple[str, Any]) -> Plan:
    return plan_of_arguments("f", [(name, declared, REQUIRED) for name, declared in fields], REQUIRED)


def joined(plan: Plan, value: Any) -> bytes:
    encoded = plan.encode(value)
    return encoded if isinstance(encoded, bytes) else b"".join(encoded)


def test_declared_bytes_are_handed_out_uncopied() -> None:
    assert plan_of(bytes).decode_parts(*parts_of(msgspec.msgpack.encode(BLOB))) is BLOB
    plan = arguments(("name", str), ("data", bytes), ("at", int))
    name, data, at = plan.decode_parts(*parts_of(joined(plan, ("n", BLOB, 7))))
    assert (name, at) == ("n", 7)
    assert data is BLOB


def test_large_bytes_go_after_all_else_so_that_they_end_the_message() -> None:
    plan = arguments(("data", bytes), ("other", bytes), ("name", str))
    encoded = joined(plan, (BLOB, b"x" * 70_000, "n"))
    assert plan.decode(encoded) == (BLOB, b"x" * 70_000, "n")
    assert encoded.endswith(b"x" * 70_000)
    assert plan.decode(joined(plan, (BLOB, b"small", "n"))) == (BLOB, b"small", "n")
    assert joined(plan, (BLOB, b"small", "n")).endswith(BLOB)


@pytest.mark.parametrize(
    ("names", "last"), [(("b", "\u00e1b"), 0), (("b", "\u00e1b"), 1), (("\u00e1b", "b"), 1)]
)
def test_a_name_that_ends_like_another_is_not_taken_for_it(names: tuple[str, str], last: int) -> None:
    plan = arguments((names[0], bytes), (names[1], bytes))
    message = msgspec.msgpack.encode({names[1 - last]: b"small", names[last]: BLOB})
    values = plan.decode_parts(*parts_of(message))
    assert values[last] is BLOB
    assert values[1 - last] == b"small"


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        (bytes | None, BLOB, BLOB),
        (Piece, {"at": 1, "data": BLOB}, Piece(1, BLOB)),
        (dict[str, bytes], {"a": BLOB}, {"a": BLOB}),
        (bytearray, BLOB, bytearray(BLOB)),
    ],
)
def test_other_types_are_decoded_from_the_whole(declared: Any, value: Any, expected: Any) -> None:
    assert plan_of(declared).decode_parts(*parts_of(msgspec.msgpack.encode(value))) == expected
    (argument,) = arguments(("value", declared)).decode_parts(
        *parts_of(msgspec.msgpack.encode({"value": value}))
    )
    assert argument == expected


def test_a_name_that_is_not_known_is_passed_over_and_one_of_another_type_is_refused() -> None:
    plan = plan_of_arguments("f", [("data", bytes, b"none")], REQUIRED)
    assert plan.decode_parts(*parts_of(msgspec.msgpack.encode({"later": BLOB}))) == (b"none",)
    for refuse, message in (
        (arguments(("name", str)), {"name": BLOB}),
        (arguments(("data", bytes), ("name", str)), {"data": BLOB}),
        (arguments(("data", bytes), ("name", str)), {"name": 5, "data": BLOB}),
        (plan_of(str), BLOB),
    ):
        with pytest.raises(msgspec.ValidationError):
            refuse.decode_parts(*parts_of(msgspec.msgpack.encode(message)))
