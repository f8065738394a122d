"""Whether a receiver can tell the members of a union apart by what arrives.

A value on the wire shows only its msgpack family: nil, boolean, integer, float, text, array or map. Two members of one
family need a tag inside; the rules are msgspec's, and for pydantic models those of a discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rpcfw.interface.notation import spell

_FAMILIES = ("null", "bool", "int", "float", "text", "array", "map")
_FAMILY_OF = {
    "null": "null",
    "bool": "bool",
    "int": "int",
    "float": "float",
    "array": "array",
    "set": "array",
    "tuple": "array",
    "map": "map",
}
_PLURALS = {"text": "text", "array": "arrays", "map": "maps"}

Schema = Mapping[str, Any]


def settle(union: dict[str, Any], definitions: Mapping[str, Schema], engines: Mapping[str, str]) -> str:
    """Put the members of a union into an order that does not depend on how it was written, once they are known.

    Where members go by the value of one of their fields, the union gets its name as its "discriminator".

    Args:
        definitions: the finished definitions that members refer to.
        engines: the library that reads each of them, where that matters.

    Returns:
        What is wrong with the union and how to mend it, empty when its members can be told apart.
    """
    members: list[Schema] = union["members"]
    by_family: dict[str, list[Schema]] = {}
    for member in members:
        for family in _families(member, definitions):
            by_family.setdefault(family, []).append(member)
    for family, rivals in by_family.items():
        if len(rivals) < 2:
            continue
        names = " and ".join(spell(rival, definitions) for rival in rivals)
        field = _discriminator(rivals, definitions, engines)
        if field is None:
            arrive = _PLURALS.get(family, family)
            return f"a receiver cannot tell {names} apart: all arrive as {arrive}; {_mend(family, rivals)}"
        union["discriminator"] = field
    structs = [
        member for member in members if member["kind"] == "ref" and engines[member["name"]] == "msgspec"
    ]
    if len({definitions[struct["name"]]["layout"] for struct in structs}) > 1:
        names = " and ".join(spell(struct, definitions) for struct in structs)
        return f"{names} are Structs of which some are array_like; make all of them so, or none"
    members.sort(key=lambda member: member_key(member, union.get("discriminator"), definitions))
    return ""


def member_key(
    member: Schema, discriminator: str | None, definitions: Mapping[str, Schema]
) -> tuple[int, str]:
    """What a receiver tells a member by: its family, and where members of one family go by a field, its value there."""
    family = _FAMILIES.index(_families(member, definitions)[0])
    if discriminator is None or member["kind"] != "ref":
        return family, ""
    return family, repr(_values_of(definitions[member["name"]], discriminator))


def _families(member: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    kind = member["kind"]
    if kind == "ref":
        return [definitions[member["name"]]["layout"]]
    if kind == "enum":
        types = {type(value) for value in member["values"]}
        return [family for family, cls in (("bool", bool), ("int", int), ("text", str)) if cls in types]
    return [_FAMILY_OF.get(kind, "text")]


def _discriminator(
    rivals: list[Schema], definitions: Mapping[str, Schema], engines: Mapping[str, str]
) -> str | None:
    """The field whose value tells each of the rivals from the others, None if there is none."""
    if not all(rival["kind"] == "ref" for rival in rivals):
        return None
    classes = [definitions[rival["name"]] for rival in rivals]
    if all("tag" in cls for cls in classes):
        names = list(dict.fromkeys(cls["tag"]["field"] for cls in classes))
        candidates = names if len(names) == 1 else []
    else:
        is_model = all(engines[rival["name"]] == "pydantic" for rival in rivals)
        candidates = [field["name"] for field in classes[0]["fields"]] if is_model else []
    for name in candidates:
        values = [_values_of(cls, name) for cls in classes]
        if all(values) and _are_distinct(values):
            return str(name)
    return None


def _values_of(cls: Schema, name: str) -> list[Any]:
    """The values that a field of a class may have, if they are few and known."""
    if "tag" in cls and cls["tag"]["field"] == name:
        return [cls["tag"]["value"]]
    for field in cls["fields"]:
        if field["name"] == name and field["type"]["kind"] == "enum":
            return list(field["type"]["values"])
    return []


def _are_distinct(values: list[list[Any]]) -> bool:
    every = [value for some in values for value in some]
    return len({type(value) for value in every}) == 1 and len(set(every)) == len(every)


def _mend(family: str, rivals: list[Schema]) -> str:
    if all(rival["kind"] == "ref" for rival in rivals):
        return "make them Structs with a tag (msgspec.Struct, tag=True) or pydantic models with a Literal field each"
    if family in ("array", "map"):
        return "keep one of them, or wrap each in a tagged msgspec.Struct"
    return "keep one of them, or wrap each in a field of its own"
