"""The register: one value that is read, written, compared and set, and deleted; a key of a key-value store.

Only what the operations do one after another lives here; that they overlap is for `ordering.py`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple, cast

from rpcfw.testing.history import Operation, freeze

_ARGUMENTS = {"read": 0, "write": 1, "cas": 2, "delete": 0}


class Held(NamedTuple):
    """What a register holds; None is nothing, which is also how an absent key reads."""

    value: Hashable

    def __str__(self) -> str:
        return repr(self.value)


class Register:
    """The model of one key. Values are compared as Python compares them.

    read []: its result is the value, None when there is none. write [value]: its result is not looked at.
    cas [old, new]: its result is True when the value was old and is now new, False when it was another.
    delete []: a result of True or False says whether there was a value; other results are not looked at.

    Args:
        value: what a register holds at first.
    """

    def __init__(self, value: Any = None) -> None:
        self._initial = Held(freeze(value))

    def initial(self) -> Hashable:
        """What it holds at first."""
        return self._initial

    def step(self, state: Hashable, operation: Operation) -> Hashable | None:
        """What it holds after the operation, None where the result cannot be.

        Raises:
            ValueError: the result of an ok cas is neither True nor False.
        """
        held = cast("Held", state)
        op, args = operation.op, operation.args
        known = operation.status == "ok"
        if op == "read":
            return held if not known or held.value == freeze(operation.result) else None
        if op == "write":
            return Held(freeze(args[0]))
        if op == "cas":
            if known and not isinstance(operation.result, bool):
                raise ValueError(f"{operation}: an ok cas has the result true or false; record which it was")
            matches = held.value == freeze(args[0])
            if known and operation.result != matches:
                return None
            return Held(freeze(args[1])) if matches else held
        if known and isinstance(operation.result, bool) and operation.result != (held.value is not None):
            return None
        return Held(None)

    def only_reads(self, operation: Operation) -> bool:
        """Reads, and whatever is known to have changed nothing.

        Raises:
            ValueError: not an operation of a register, or not with these arguments.
        """
        if _ARGUMENTS.get(operation.op) != len(operation.args):
            raise _unfit(operation)
        if operation.op in ("cas", "delete"):
            return operation.status == "ok" and operation.result is False
        return operation.op == "read"


def _unfit(operation: Operation) -> ValueError:
    forms = "read [], write [value], cas [old, new], delete []"
    return ValueError(f"{operation} is no operation of a register; those are {forms}")
