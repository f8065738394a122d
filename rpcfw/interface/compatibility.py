"""What changed between two versions of an interface, and whether old and new sides still understand each other.

Works on schemas alone, so that one side may be a stored file. A change is safe only if it is so both ways: old clients
with new servers and new clients with old servers, since during a deployment both exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rpcfw.interface.drift import Drift, type_drifts

Schema = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One difference between two versions.

    Attributes:
        path: what changed: ``shop.Orders.place.coupon``, or ``Order.price`` for a field of a message.
        kind: the sort of change in a few words, such as "parameter added".
        breaking: whether some pair of an old and a new side no longer understands each other.
        message: the path, what changed, and why that breaks or does not, with the mend.
    """

    path: str
    kind: str
    breaking: bool
    message: str


def compare(old: Schema, new: Schema) -> list[Change]:
    """The changes from one version of a service (or of a single type) to another, in the order of the interface.

    Args:
        old: what `service_schema` (or `schema_of`) gave for the old version.
        new: the same for the new version.
    """
    definitions = old["definitions"], new["definitions"]
    if "type" in old:
        return _changes(("", drift) for drift in type_drifts(old["type"], new["type"], "value", definitions))
    return _changes(_service(old, new))


def compare_all(old: Iterable[Schema], new: Iterable[Schema]) -> list[Change]:
    """The changes from one set of services to another, matched by their names."""
    before, after = ({schema["service"]: schema for schema in schemas} for schemas in (old, new))
    changes: list[Change] = []
    for name, schema in before.items():
        if name in after:
            changes += compare(schema, after[name])
        else:
            text = "the service was removed: its clients get UNIMPLEMENTED; keep it until they are gone"
            changes += _changes([("", Drift(name, "service removed", True, text))])
    added = (
        Drift(name, "service added", False, "the service was added") for name in after if name not in before
    )
    return changes + _changes(("", drift) for drift in added)


def _changes(found: Iterable[tuple[str, Drift]]) -> list[Change]:
    """Drifts told once each, with the methods that use what drifted."""
    users: dict[Drift, list[str]] = {}
    for user, drift in found:
        names = users.setdefault(drift, [])
        if user and user not in names:
            names.append(user)
    changes = []
    for drift, names in users.items():
        is_message = names and not any(
            drift.path == name or drift.path.startswith(f"{name}.") for name in names
        )
        used = f" (used by {', '.join(names)})" if is_message else ""
        changes.append(Change(drift.path, drift.kind, drift.breaking, f"{drift.path}{used}: {drift.text}"))
    return changes


def _service(old: Schema, new: Schema) -> Iterator[tuple[str, Drift]]:
    name = old["service"]
    if new["service"] != name:
        text = f"the service is now named {new['service']}: neither side finds the other; keep the name"
        yield "", Drift(name, "service renamed", True, text)
    if new["version"] != old["version"]:
        text = f"the version was {old['version']} and is now {new['version']}; it is told, not compared"
        yield "", Drift(name, "version changed", False, text)
    for key, method in old["methods"].items():
        path = f"{name}.{key}"
        if key not in new["methods"]:
            text = "the method was removed: old clients that call it get UNIMPLEMENTED; keep it until they are gone"
            yield path, Drift(path, "method removed", True, text)
            continue
        for drift in _method(method, new["methods"][key], path, (old["definitions"], new["definitions"])):
            yield path, drift
    for key in new["methods"]:
        if key not in old["methods"]:
            text = "the method was added: old servers answer UNIMPLEMENTED until they are replaced"
            yield f"{name}.{key}", Drift(f"{name}.{key}", "method added", False, text)


def _method(old: Schema, new: Schema, path: str, definitions: tuple[Any, Any]) -> Iterator[Drift]:
    if old["kind"] != new["kind"]:
        text = f"the call was {old['kind']} and is now {new['kind']}: the sides wait for each other; add a new method"
        yield Drift(path, "kind changed", True, text)
        return
    if old["oneway"] != new["oneway"]:
        was, now = ("one-way", "answered") if old["oneway"] else ("answered", "one-way")
        text = f"the call was {was} and is now {now}: one side waits for a reply that never comes; add a new method"
        yield Drift(path, "oneway changed", True, text)
    yield from _parameters(old["parameters"], new["parameters"], path, definitions)
    yield from type_drifts(old["result"], new["result"], f"{path}.return", definitions)
    yield from _raises(old["raises"], new["raises"], path, definitions)
    if old["timeout_s"] != new["timeout_s"]:
        text = f"timeout_s was {old['timeout_s']} and is now {new['timeout_s']}: each client goes by its own"
        yield Drift(path, "timeout changed", False, text)
    if old["idempotent"] != new["idempotent"]:
        text = (
            "the method is idempotent now: new clients may call again after a failure, old servers must bear it"
            if new["idempotent"]
            else "the method is no longer idempotent: old clients still call again after a failure; mind them"
        )
        yield Drift(path, "idempotent changed", False, text)


def _parameters(
    old: list[Schema], new: list[Schema], path: str, definitions: tuple[Any, Any]
) -> Iterator[Drift]:
    streams = [next((p for p in parameters if p.get("stream")), None) for parameters in (old, new)]
    if streams[0] and streams[1]:
        yield from type_drifts(
            streams[0]["type"], streams[1]["type"], f"{path}.{streams[1]['name']}", definitions
        )
    before, after = ({p["name"]: p for p in parameters if not p.get("stream")} for parameters in (old, new))
    for name, parameter in before.items():
        where = f"{path}.{name}"
        if name in after:
            yield from _parameter(parameter, after[name], where, definitions)
        elif parameter["required"]:
            text = f"parameter {name!r} was removed: new clients do not send it, and old servers require it; keep it"
            yield Drift(where, "parameter removed", True, text)
        else:
            text = f"parameter {name!r} was removed: old servers fill in its default, new servers ignore it"
            yield Drift(where, "parameter removed", False, text)
    for name, parameter in after.items():
        if name in before:
            continue
        if parameter["required"]:
            text = f"parameter {name!r} was added without a default: old clients do not send it; give it a default"
            yield Drift(f"{path}.{name}", "parameter added", True, text)
        else:
            text = (
                f"parameter {name!r} was added with a default: new servers fill it in, old servers ignore it"
            )
            yield Drift(f"{path}.{name}", "parameter added", False, text)
    if [name for name in before if name in after] != [name for name in after if name in before]:
        text = (
            "the order of the parameters changed: the wire goes by name, but Python calls by position do not"
        )
        yield Drift(path, "parameters reordered", False, text)


def _parameter(old: Schema, new: Schema, path: str, definitions: tuple[Any, Any]) -> Iterator[Drift]:
    name = old["name"]
    if old["required"] and not new["required"]:
        text = f"parameter {name!r} got a default: calls that name only what they need fail with old servers"
        yield Drift(path, "default added", False, f"{text}, generated and typed clients always send it")
    if new["required"] and not old["required"]:
        text = f"parameter {name!r} lost its default: new servers refuse calls that leave it out; keep the default"
        yield Drift(path, "default removed", True, text)
    if "default" in old and "default" in new and old["default"] != new["default"]:
        text = f"the default was {old['default']!r} and is now {new['default']!r}: each side goes by its own"
        yield Drift(path, "default changed", False, text)
    yield from type_drifts(old["type"], new["type"], path, definitions)


def _raises(old: list[Schema], new: list[Schema], path: str, definitions: tuple[Any, Any]) -> Iterator[Drift]:
    before, after = ({error["name"]: error for error in errors} for errors in (old, new))
    for name, error in before.items():
        if name in after:
            yield from type_drifts(error["type"], after[name]["type"], f"{path}.raises.{name}", definitions)
        else:
            text = f"the error {name} was removed: where old servers raise it, it arrives at new clients as RpcError"
            yield Drift(f"{path}.raises.{name}", "error removed", False, text)
    for name in after:
        if name not in before:
            text = f"the error {name} was added: it arrives at old clients as RpcError"
            yield Drift(f"{path}.raises.{name}", "error added", False, text)
