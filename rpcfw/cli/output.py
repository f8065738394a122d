"""What the commands share when they speak: exit codes, errors for a person or a program, tables, JSON.

Results go to stdout, everything else to stderr. The exit codes are part of the interface: scripts test them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rpcfw.cli.values import jsonable
from rpcfw.errors import Code, InterfaceError, RpcError, ServiceError
from rpcfw.generic import GenericError

if TYPE_CHECKING:
    from rich.table import Table


class Exit(enum.IntEnum):
    """What a command's exit code says, in the words of `EXIT_CODES`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    DIFFERS = 5


EXIT_CODES = """\
Exit codes:
  0  done
  1  the call or the command failed: a declared error, or any other
  2  wrong usage: options, arguments, values that cannot be read
  3  no server there, or no reply before the deadline
  4  the server refused the call: unknown service or method, invalid argument,
     not allowed, over a limit
  5  breaking changes found (check), generated files are stale (gen --check)
  128 + n  ended by signal n: 130 after Ctrl-C, 143 after SIGTERM"""
EXIT_CODES_SHORT = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server or no reply in time, 4 refused by the server, "
    "5 breaking changes or stale files. rpcfw --help says more."
)

_UNREACHABLE = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
_REFUSED = (
    Code.INVALID_ARGUMENT,
    Code.PERMISSION_DENIED,
    Code.RESOURCE_EXHAUSTED,
    Code.UNAUTHENTICATED,
    Code.UNIMPLEMENTED,
)


class CommandError(Exception):
    """A command cannot do what it was asked. The message says why, and how to mend it."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def reporting(*, as_json: bool = False, debug: bool = False) -> Iterator[None]:
    """Run a command: its errors are told on stderr, as JSON where asked for, and become exit codes."""
    try:
        yield
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        # The reader has enough, as `head` does. Python would try to flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        code, told = _told(error)
        if as_json:
            say(to_json(told))
        else:
            say(f"error: {_in_words(error, told)}")
        raise SystemExit(code) from None


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr. Nobody there is no reason to fail."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def put(line: str) -> None:
    """A line of the result, on stdout, at once."""
    sys.stdout.write(f"{line}\n")  # with its end, so that lines of several processes do not mix
    sys.stdout.flush()


def to_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON; what JSON has no form for is written as `rpcfw.cli.values` reads it."""
    return json.dumps(jsonable(value), ensure_ascii=False, indent=indent)


def put_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns; the last one is broken into lines where the terminal is narrow."""
    put(table_lines(headers, rows))


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """What `put_table` prints."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 1_000, highlight=False)
    with console.capture() as captured:
        console.print(table_of(headers, rows))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def table_of(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The table that `put_table` prints, for who shows it otherwise."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for header in headers[:-1]:
        table.add_column(header, no_wrap=True)
    table.add_column(headers[-1], overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _told(error: Exception) -> tuple[Exit, dict[str, Any]]:
    """The exit code of an error, and the error as plain data."""
    if isinstance(error, RpcError):
        told: dict[str, Any] = {
            "error": error.code.name,
            "message": error.message,
            "origin": error.origin.value,
        }
        told |= {"details": error.details} if error.details else {}
        told |= {"remote_traceback": error.remote_traceback} if error.remote_traceback else {}
        if error.code in _UNREACHABLE:
            return Exit.UNREACHABLE, told
        return Exit.REFUSED if error.code in _REFUSED else Exit.FAILED, told
    if isinstance(error, GenericError | ServiceError):
        return Exit.FAILED, {"error": type(error).__name__, **_fields(error)}
    code = error.code if isinstance(error, CommandError) else Exit.FAILED
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return code, {"error": type(error).__name__, "message": message}


def _fields(error: Exception) -> Mapping[str, Any]:
    if dataclasses.is_dataclass(error):
        return {"fields": {field.name: getattr(error, field.name) for field in dataclasses.fields(error)}}
    return {"arguments": list(error.args)}


def _in_words(error: Exception, told: Mapping[str, Any]) -> str:
    if isinstance(error, RpcError):
        return str(error)
    if "fields" in told:
        fields = [f"{name}={to_json(value)}" for name, value in told["fields"].items()]
        return f"{told['error']}: {', '.join(fields)}" if fields else told["error"]
    if "arguments" in told:
        return ": ".join([told["error"], *map(str, told["arguments"])])
    if isinstance(error, CommandError | InterfaceError) or type(error).__name__ == "CodegenError":
        return told["message"]  # type: ignore[no-any-return]  # a str, as _told has it
    if isinstance(error, OSError):
        name = f": {error.filename}" if error.filename else ""
        return f"{told['message']}{name}"
    return f"{type(error).__name__}: {error} (the same with --debug shows where)"
