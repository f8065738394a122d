"""Histories: what each client asked of a system, what it was told, and when; one JSON line per operation.

Only the record lives here: what is right or wrong about it is for the checkers, which read it after the run.
After Jepsen's histories, with a call and its return on one line.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

Status = Literal["ok", "fail", "unknown"]
"""ok: it took effect, with this result. fail: it never did. unknown: it may, at any time after its call, or never."""

FIELDS = ("client", "op", "key", "args", "result", "status", "call", "return")
"""The members of a line of a history, all of them always there, in this order."""


class HistoryError(ValueError):
    """A line is not an operation of a history; the message says which line and why."""


def _no_clock() -> float:
    raise RuntimeError("this operation was loaded, not begun: begin it on a History to end it")


@dataclass(slots=True)
class Operation:
    """One operation of one client; from its call on it is unknown, until `ok` or `fail` says more.

    Attributes:
        key: what it is about, the unit that checkers divide a history by; None for an operation on many keys.
        result: what it returned, when it is ok; the error's text, when it failed.
        called: when it was called, in seconds of the history's clock.
        returned: when the client had its answer, or gave up waiting; None while it waits.
    """

    client: str | int
    op: str
    key: Any
    args: list[Any]
    result: Any = None
    status: Status = "unknown"
    called: float = 0.0
    returned: float | None = None
    _clock: Callable[[], float] = field(default=_no_clock, repr=False, compare=False)

    def ok(self, result: Any = None) -> None:
        """It took effect and returned this; lists and dicts are kept as they are now, not as they become."""
        self._end("ok", _copy(result))

    def fail(self, error: object = None) -> None:
        """It certainly did not take effect and never will. In doubt it is `unknown`."""
        self._end("fail", None if error is None else str(error))

    def unknown(self) -> None:
        """The client gave up: it may have taken effect, may yet do so, or never."""
        self._end("unknown", None)

    def _end(self, status: Status, result: Any) -> None:
        if self.returned is not None:
            raise RuntimeError(f"{self} has ended before; end each operation once")
        self.returned = self._clock()
        self.status = status
        self.result = result

    def as_line(self) -> str:
        """The operation as a line of JSON, without its end of line."""
        members = (
            self.client,
            self.op,
            self.key,
            self.args,
            self.result,
            self.status,
            self.called,
            self.returned,
        )
        return _encode(dict(zip(FIELDS, members, strict=True)), self)

    @classmethod
    def from_line(cls, line: str) -> Operation:
        """Read one line.

        Raises:
            HistoryError: the line is not exactly an operation.
        """
        try:
            members = json.loads(line)
        except ValueError as error:
            raise HistoryError(f"not JSON ({error}): {line[:80]!r}") from error
        if not isinstance(members, dict) or set(members) != set(FIELDS):
            names = sorted(members) if isinstance(members, dict) else type(members).__name__
            raise HistoryError(
                f"an operation has exactly the members {', '.join(FIELDS)}; this line has {names}"
            )
        operation = cls(*(members[name] for name in FIELDS))
        _validate(operation)
        return operation

    def __str__(self) -> str:
        words = [str(self.client), self.op]
        if self.key is not None:
            words.append(shorten(self.key))
        words.extend(shorten(arg) for arg in self.args)
        if self.status == "ok" and self.result is not None:
            words.append(f"-> {shorten(self.result)}")
        end = "?" if self.returned is None or self.status == "unknown" else f"{self.returned:.6f}"
        return f"{' '.join(words)}  ({self.status}, {self.called:.6f} .. {end})"


class History:
    """The operations of a run, in the order of their calls; recorded live, or loaded.

    All clients of a history share its clock, and no two events have the same time: where the clock stands still, an
    event is dated the smallest step after the one before, so that what happened first is known to have.

    Args:
        clock: seconds that never go back, the same for every host: the running loop's true time unless given.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.operations: list[Operation] = []
        self._clock = clock or _loop_time
        self._last = -math.inf

    def begin(self, client: str | int, op: str, key: Any = None, args: Iterable[Any] = ()) -> Operation:
        """An operation of `client` is being called now; end it with its `ok`, `fail` or `unknown`."""
        operation = Operation(
            client, op, key, [_copy(arg) for arg in args], called=self._now(), _clock=self._now
        )
        self.operations.append(operation)
        return operation

    def _now(self) -> float:
        self._last = max(self._clock(), math.nextafter(self._last, math.inf))
        return self._last

    def lines(self) -> Iterator[str]:
        """Each operation as a line of JSON; those still waiting are unknown."""
        return (operation.as_line() for operation in self.operations)

    def save(self, path: str | Path) -> None:
        """Write the history to a file of JSON lines, over what was there."""
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self.lines())

    @classmethod
    def from_lines(cls, lines: Iterable[str], clock: Callable[[], float] | None = None) -> History:
        """A history from its JSON lines, to be read or gone on with; empty lines are passed over.

        Raises:
            HistoryError: a line is not an operation; the message has its number.
        """
        history = cls(clock)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                operation = Operation.from_line(line)
            except HistoryError as error:
                raise HistoryError(f"line {number}: {error}") from error
            history._last = max(history._last, operation.called, operation.returned or -math.inf)
            history.operations.append(operation)
        return history

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history from a file of JSON lines."""
        with Path(path).open(encoding="utf-8") as file:
            return cls.from_lines(file)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)


def freeze(value: Any) -> Hashable:
    """The value as a hashable one that is equal when the values are: lists become tuples, dicts sets of pairs."""
    if isinstance(value, list | tuple):
        frozen = tuple(value)
        try:
            hash(frozen)
        except TypeError:
            frozen = tuple(map(freeze, frozen))
        return frozen
    if isinstance(value, dict):
        return frozenset((name, freeze(part)) for name, part in value.items())
    return cast("Hashable", value)


def shorten(value: Any) -> str:
    """The value for a person: of a long list its end, where what is new stands."""
    if isinstance(value, list | tuple):
        shown = [repr(part) for part in value]
        if len(shown) > _LONG_LIST:
            shown[:-_SHOWN_TAIL] = [f".. {len(shown) - _SHOWN_TAIL} more"]
        return f"[{', '.join(shown)}]"
    return value if isinstance(value, str) else repr(value)


_LONG_LIST = 8
_SHOWN_TAIL = 4


def _loop_time() -> float:
    loop = asyncio.get_running_loop()
    return cast("float", getattr(loop, "global_time", loop.time)())  # a simulated host's own clock may drift


def _encode(value: Any, operation: Operation) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise HistoryError(
            f"{operation.op!r} of {operation.client!r} holds what JSON cannot: {error}"
        ) from error


def _copy(value: Any) -> Any:
    """The value as it is now: whoever gave it may go on changing it."""
    if isinstance(value, list | tuple):
        return [_copy(part) for part in value]
    if isinstance(value, dict):
        return {name: _copy(part) for name, part in value.items()}
    return value


def _validate(operation: Operation) -> None:
    if operation.status not in ("ok", "fail", "unknown"):
        raise HistoryError(f"status is {operation.status!r}; it is one of ok, fail, unknown")
    if not isinstance(operation.args, list):
        raise HistoryError(f"args is {operation.args!r}; it is a list, also of one argument or none")
    if not _is_time(operation.called):
        raise HistoryError(f"call is {operation.called!r}; it is a time in seconds")
    if operation.returned is None:
        if operation.status != "unknown":
            raise HistoryError(
                f"return is null, but the status is {operation.status}; only unknown ones never return"
            )
    elif not _is_time(operation.returned) or operation.returned < operation.called:
        raise HistoryError(
            f"return is {operation.returned!r}; it is a time not before the call, {operation.called}"
        )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
