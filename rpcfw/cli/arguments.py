"""The arguments of a call as they were typed: ``key=value``, a JSON object by name, a JSON list by position.

They are read by what the server or the interface says of the method, so that a mistake is told before anything is
called. How one value is read is in `rpcfw.cli.values`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rpcfw.cli.notation import parameters_of
from rpcfw.cli.output import CommandError, Exit
from rpcfw.cli.values import ValueProblem, ValueReader
from rpcfw.interface import Schema


def read_arguments(
    method: Schema,
    definitions: Mapping[str, Schema],
    typed: Sequence[str],
    *,
    document: str | None = None,
    stdin: bool = False,
) -> dict[str, Any]:
    """The arguments by name, as they cross the wire; ``key=value`` comes last and wins over a document.

    Args:
        method: its schema.
        definitions: those of its service's schema.
        typed: ``key=value`` each, or one JSON list or object of all of them.
        document: what ``--args`` says, a JSON object.
        stdin: read that object from stdin, unless the method's stream comes from there.

    Raises:
        ValueProblem: an argument cannot be read, is not known, or is missing.
    """
    reader = ValueReader(definitions)
    parameters = {p["name"]: p for p in method["parameters"] if not p.get("stream")}
    takes = ", ".join(parameters_of(method, definitions)) or "no arguments"
    path = f"{method['name']}({takes})"
    if stdin and len(parameters) == len(method["parameters"]):
        if document is not None:
            raise ValueProblem("--args and --stdin both give the arguments; keep one of them")
        given, where = sys.stdin.read(), "stdin"
    else:
        given, where = document, "--args"
    named = {} if given is None else _object(given, where)
    if len(typed) == 1 and typed[0].lstrip()[:1] in ("[", "{"):
        if given is not None:
            raise ValueProblem(f"{where} and {typed[0]!r} both give the arguments; keep one of them")
        named, typed = _whole(typed[0], list(parameters), path), ()
    found = {
        name: reader.from_json(value, _known(parameters, name, path)["type"], name)
        for name, value in named.items()
    }
    seen: set[str] = set()
    for pair in typed:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueProblem(f"{pair!r} is not key=value; the method is {path}")
        if name in seen:
            raise ValueProblem(f"{name!r} is given twice, the second time as {pair!r}; the method is {path}")
        seen.add(name)
        found[name] = reader.from_text(text, _known(parameters, name, path)["type"], name)
    missing = [name for name, parameter in parameters.items() if parameter["required"] and name not in found]
    if missing:
        raise ValueProblem(f"the argument {missing[0]!r} is missing; the method is {path}")
    return found


def read_metadata(pairs: Sequence[str]) -> dict[str, str]:
    """What is sent beside the arguments. Raises CommandError for what is not ``key=value``."""
    for pair in pairs:
        if "=" not in pair:
            raise CommandError(f"--metadata {pair!r} is not key=value", Exit.USAGE)
    return dict(pair.split("=", 1) for pair in pairs)


def _known(parameters: Mapping[str, Schema], name: str, path: str) -> Schema:
    if name not in parameters:
        streamed = (
            ""
            if f"{name}: AsyncIterator" not in path
            else " beside the stream, whose items are read from stdin"
        )
        raise ValueProblem(f"there is no parameter {name!r}{streamed}; the method is {path}")
    return parameters[name]


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueProblem(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueProblem(
            f'{where} is {text.strip()[:40]!r}; give a JSON object of arguments by name: {{"key": ...}}'
        )
    return value


def _whole(text: str, names: Sequence[str], path: str) -> dict[str, Any]:
    """All arguments in one: a JSON object by name, or a list in the order of the signature."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueProblem(f"{text[:40]!r} is not JSON: {error}; the method is {path}") from None
    if isinstance(value, dict):
        return value
    if len(value) > len(names):
        raise ValueProblem(f"{text[:40]!r} has {len(value)} arguments, too many; the method is {path}")
    return dict(zip(names, value, strict=False))
