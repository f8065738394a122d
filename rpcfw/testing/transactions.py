"""Transactions of list appends and reads: how an operation of a history says its steps, and how a person reads them.

What the transactions of a history make of each other is for `list_append.py`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

from rpcfw.testing.history import Operation, freeze, shorten

Key = Hashable
Step = tuple[str, Key, Any]
"""("append", key, element) or ("r", key, the list read as a tuple)."""


def read_steps(operation: Operation) -> list[Step]:
    """The steps that are known: of an ok transaction all, of others the appends."""
    if operation.op == "append" and len(operation.args) == 1:
        return [("append", freeze(operation.key), freeze(operation.args[0]))]
    if operation.op == "read" and not operation.args:
        return (
            [("r", freeze(operation.key), _list_read(operation, operation.result))]
            if _is_ok(operation)
            else []
        )
    if operation.op != "txn":
        raise ValueError(f"{operation} is neither txn [steps], append [element] nor read []")
    asked = [_step(operation, part) for part in operation.args]
    if not _is_ok(operation):
        return [step for step in asked if step[0] == "append"]
    if not isinstance(operation.result, list) or len(operation.result) != len(asked):
        raise ValueError(
            f"{operation}: the result of an ok txn is its {len(asked)} steps with what was read filled in"
        )
    told = [_step(operation, part) for part in operation.result]
    for one, other in zip(asked, told, strict=True):
        if one[:2] != other[:2] or (one[0] == "append" and one != other):
            raise ValueError(f"{operation}: asked for {one}, but the result has {other} in its place")
    return [(name, key, _list_read(operation, value) if name == "r" else value) for name, key, value in told]


def _step(operation: Operation, part: Any) -> Step:
    if not isinstance(part, list | tuple) or len(part) != 3 or part[0] not in ("append", "r"):
        raise ValueError(
            f'{operation}: {part!r} is neither ["append", key, element] nor ["r", key, null or the list]'
        )
    name, key, value = part
    return name, freeze(key), freeze(value)


def _list_read(operation: Operation, value: Any) -> tuple[Hashable, ...]:
    frozen = freeze(() if value is None else value)
    if not isinstance(frozen, tuple):
        raise ValueError(f"{operation}: read {value!r}, which is no list")
    return cast("tuple[Hashable, ...]", frozen)


def _is_ok(operation: Operation) -> bool:
    return operation.status == "ok"


def describe(operation: Operation) -> str:
    """A transaction on one line: client, steps and times."""
    words = [
        f"read {key} -> {shorten(value)}" if name == "r" else f"append {value!r} to {key}"
        for name, key, value in read_steps(operation)
    ]
    end = "?" if operation.returned is None else f"{operation.returned:.6f}"
    return f"{operation.client}: {', '.join(words)}  ({operation.status}, {operation.called:.6f} .. {end})"
