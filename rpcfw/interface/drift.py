"""Where two versions of a type drifted apart, and whether each still reads what the other writes.

Types are compared by what the wire shows of them: a renamed class is no drift, a renamed field is. Methods and services
are compared in `compatibility`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from rpcfw.interface.notation import spell
from rpcfw.interface.unions import member_key

Schema = Mapping[str, Any]
Definitions = tuple[Mapping[str, Schema], Mapping[str, Schema]]
"""The definitions of the old and of the new version."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drift:
    """One difference: where, of what sort, whether it breaks, and the sentence that says so without its path."""

    path: str
    kind: str
    breaking: bool
    text: str


def type_drifts(old: Schema, new: Schema, path: str, definitions: Definitions) -> Iterator[Drift]:
    """The differences of two types, those inside classes under the name of the class."""
    return _Comparison(definitions).types(old, new, path)


class _Comparison:
    """One walk through two types side by side, which enters each pair of classes once."""

    def __init__(self, definitions: Definitions) -> None:
        self._old, self._new = definitions
        self._entered: set[tuple[str, str]] = set()

    def types(self, old: Schema, new: Schema, path: str) -> Iterator[Drift]:
        if "union" in (old["kind"], new["kind"]):
            yield from self._unions(old, new, path)
        elif old["kind"] == new["kind"] == "ref":
            pair = old["name"], new["name"]
            if pair not in self._entered:
                self._entered.add(pair)
                yield from self._objects(self._old[pair[0]], self._new[pair[1]])
        elif {old["kind"], new["kind"]} == {"array", "set"}:
            text = f"{self._was(old, new)}: both are read as either, but a set loses order and duplicates"
            yield Drift(path, "type changed", False, text)
            yield from self.types(old["items"], new["items"], f"{path}[]")
        elif old["kind"] != new["kind"]:
            yield Drift(path, "type changed", True, f"{self._was(old, new)}: {_why(old, new)}")
        elif old["kind"] in ("array", "set"):
            yield from self.types(old["items"], new["items"], f"{path}[]")
        elif old["kind"] == "map":
            yield from self.types(old["keys"], new["keys"], f"{path} (its keys)")
            yield from self.types(old["values"], new["values"], f"{path}{{}}")
        elif old["kind"] == "tuple":
            yield from self._tuples(old, new, path)
        elif old["kind"] == "enum":
            yield from self._enums(old, new, path)

    def _unions(self, old: Schema, new: Schema, path: str) -> Iterator[Drift]:
        field = old.get("discriminator", new.get("discriminator"))
        before = _members(old, field, self._old)
        after = _members(new, new.get("discriminator", field), self._new)
        self._pair_namesakes(before, after)
        if not before.keys() & after.keys():
            yield Drift(path, "type changed", True, f"{self._was(old, new)}: {_why(old, new)}")
            return
        for key, member in before.items():
            if key in after:
                yield from self.types(member, after[key], path)
            else:
                name = spell(member, self._old)
                text = f"{name} is no longer possible here: the new version cannot read it from the old one; keep it"
                yield Drift(path, "union member removed", True, text)
        for key, member in after.items():
            if key not in before:
                name = spell(member, self._new)
                text = (
                    f"{name} is possible here now: the old version cannot read it; add a field with a default"
                )
                yield Drift(path, "union member added", True, text)

    def _pair_namesakes(self, before: dict[Any, Schema], after: dict[Any, Schema]) -> None:
        """Put a class that changed its tag or layout under one key, so that this is told, not that it came and went."""
        names = {spell(member, self._new): key for key, member in after.items() if key not in before}
        for key, member in before.items():
            name = spell(member, self._old)
            if key not in after and member["kind"] == "ref" and name in names:
                after[key] = after.pop(names[name])

    def _enums(self, old: Schema, new: Schema, path: str) -> Iterator[Drift]:
        where = new.get("name", path)
        for value in new["values"]:
            if value not in old["values"]:
                text = f"the value {value!r} was added: the old version cannot read it; send it only once all are new"
                yield Drift(where, "enum value added", True, text)
        for value in old["values"]:
            if value not in new["values"]:
                text = f"the value {value!r} was removed: the new version cannot read it from the old one; keep it"
                yield Drift(where, "enum value removed", True, text)

    def _tuples(self, old: Schema, new: Schema, path: str) -> Iterator[Drift]:
        if len(old["items"]) != len(new["items"]):
            text = f"{self._was(old, new)}: neither version reads another length; add a field with a default instead"
            yield Drift(path, "type changed", True, text)
            return
        for index, (before, after) in enumerate(zip(old["items"], new["items"], strict=True)):
            yield from self.types(before, after, f"{path}[{index}]")

    def _objects(self, old: Schema, new: Schema) -> Iterator[Drift]:
        path = new["name"]
        if old["layout"] != new["layout"]:
            text = f"it was sent as {old['layout']} and is now sent as {new['layout']}: neither version reads the other"
            yield Drift(path, "layout changed", True, f"{text}; make a new class")
            return
        if old.get("tag") != new.get("tag"):
            was, now = (
                f"{tag['field']}={tag['value']!r}" if tag else "none"
                for tag in (old.get("tag"), new.get("tag"))
            )
            text = f"its tag was {was} and is now {now}: neither version knows the other's; keep the tag"
            yield Drift(path, "tag changed", True, text)
        if old["layout"] == "array":
            before, after = (dict(enumerate(version["fields"])) for version in (old, new))
        else:
            before, after = ({field["name"]: field for field in version["fields"]} for version in (old, new))
        for key, field in before.items():
            if key in after:
                yield from self._fields(field, after[key], f"{path}.{after[key]['name']}")
            else:
                yield _removed(field, f"{path}.{field['name']}", closed=bool(new.get("closed")))
        for key, field in after.items():
            if key not in before:
                yield _added(field, f"{path}.{field['name']}", closed=bool(old.get("closed")))

    def _fields(self, old: Schema, new: Schema, path: str) -> Iterator[Drift]:
        if new["required"] and not old["required"]:
            text = "the field lost its default: messages from the old version may lack it; keep the default"
            yield Drift(path, "default removed", True, text)
        elif old["required"] and not new["required"]:
            breaking = bool(new.get("may_be_absent"))
            why = (
                "the new version may leave it out, and the old one requires it"
                if breaking
                else "it is still sent where it was set"
            )
            yield Drift(path, "default added", breaking, f"the field got a default: {why}")
        elif not old["required"] and old.get("default", ...) != new.get("default", ...):
            was, now = (repr(field["default"]) if "default" in field else "made anew" for field in (old, new))
            text = f"the default was {was} and is now {now}: each side goes by its own where nobody has set the field"
            yield Drift(path, "default changed", False, text)
        yield from self.types(old["type"], new["type"], path)

    def _was(self, old: Schema, new: Schema) -> str:
        return f"the type was {spell(old, self._old)} and is now {spell(new, self._new)}"


def _added(field: Schema, path: str, *, closed: bool) -> Drift:
    if closed:
        text = "the field was added: the old version refuses fields that it does not know"
        return Drift(
            path, "field added", True, f"{text}; first let a version without that refusal replace it"
        )
    if field["required"]:
        text = (
            "the field was added without a default: messages from the old version lack it; give it a default"
        )
        return Drift(path, "field added", True, text)
    return Drift(path, "field added", False, "the field was added with a default: the old version ignores it")


def _removed(field: Schema, path: str, *, closed: bool) -> Drift:
    if closed:
        text = "the field was removed: the new version refuses it when the old one sends it; keep it"
        return Drift(path, "field removed", True, text)
    if field["required"]:
        text = "the field was removed: messages from the new version lack it, and the old one requires it; keep it"
        return Drift(path, "field removed", True, text)
    return Drift(path, "field removed", False, "the field was removed: the old version fills in its default")


def _members(
    schema: Schema, discriminator: str | None, definitions: Mapping[str, Schema]
) -> dict[Any, Schema]:
    members = schema["members"] if schema["kind"] == "union" else [schema]
    return {member_key(member, discriminator, definitions): member for member in members}


def _why(old: Schema, new: Schema) -> str:
    kinds = old["kind"], new["kind"]
    if kinds == ("int", "float"):
        return "the old version cannot read fractions; add a new field instead"
    if kinds == ("float", "int"):
        return "the new version cannot read fractions from the old one; add a new field instead"
    if kinds[1] == "any":
        return "the old version reads only what it knew; add a new field instead"
    if kinds[0] == "any":
        return "the old version may send anything; add a new field instead"
    return "neither version reads what the other sends; add a new field instead"
