"""Types to source: what a resolved annotation looks like when written in a generated module.

Unions are written with ``|``, the containers of `typing` as the built-in ones, aliases and NewTypes by their names.
Nothing here lays text out over lines (see `layout`) or decides what a name is called (see `names`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

from rpcfw_codegen.aliases import Alias
from rpcfw_codegen.defaults import literal
from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.layout import Atom, Either, Node, subscript
from rpcfw_codegen.names import Names
from rpcfw_codegen.whereabouts import Homes, origin_of


def annotation(hint: Any, names: Names, homes: Homes, aliases: Sequence[Alias] = ()) -> Node:
    """The source of one type.

    Args:
        hint: a resolved annotation, extras included.
        names: notes what the source refers to.
        homes: the modules in which the annotation may have been written.
        aliases: those that were used in writing it, and are used again.
    """
    return _Writer(names, homes, aliases).node(hint)


@dataclasses.dataclass(frozen=True, slots=True)
class _Writer:
    names: Names
    homes: Homes
    aliases: Sequence[Alias]

    def node(self, hint: Any) -> Node:
        if hint is None or hint is types.NoneType:
            return Atom("None")
        if hint is Ellipsis:
            return Atom("...")
        if generic := getattr(hint, "__pydantic_generic_metadata__", {}).get("origin"):
            arguments = hint.__pydantic_generic_metadata__["args"]
            return subscript(self._name(generic), map(self.node, arguments))
        if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
            return Atom(self._name(hint))
        if isinstance(hint, NewType) or type(hint).__name__ == "TypeAliasType":
            return Atom(self._name(hint))
        for alias in self.aliases:
            if type(alias.value) is type(hint) and alias.value == hint:
                return Atom(self.names.refer(*alias.origin))
        return self._parametrised(hint)

    def _parametrised(self, hint: Any) -> Node:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(hint)
        if origin is Literal:
            return subscript(self.names.refer("typing", "Literal"), map(self._literal, arguments))
        if origin in (Union, types.UnionType):
            return Either(tuple(map(self.node, arguments)))
        if origin is not None:
            head = self._name(origin)
            if origin is tuple and not arguments:
                return subscript(head, [Atom("()")])
            return subscript(head, map(self.node, arguments)) if arguments else Atom(head)
        if getattr(hint, "__module__", "") == "typing" and getattr(hint, "_name", None):
            return Atom(self.names.refer("typing", hint._name))
        if isinstance(hint, typing.TypeVar):
            raise CodegenError(
                f"{self.homes[0]} leaves the type variable {hint.__name__} open, and generated code cannot know what "
                "it stands for; give it a type where the interface inherits: `class Users(Store[User], Protocol)`"
            )
        raise CodegenError(
            f"{self.homes[0]} uses the type {hint!r}, which the generator cannot write as source; give it a name at "
            "module level, or report this with the annotation"
        )

    def _name(self, thing: Any) -> str:
        return self.names.refer(*origin_of(thing, self.homes))

    def _literal(self, value: Any) -> Node:
        text = literal(value, self.names, self.homes)
        if text is None:
            raise CodegenError(f"{self.homes[0]} uses Literal[{value!r}], whose value has no source form")
        return Atom(text)

    def _annotated(self, hint: Any) -> Node:
        """``Annotated`` with what of its metadata has a source form; the rest says nothing to a caller."""
        inner = self.node(hint.__origin__)
        kept = [text for item in hint.__metadata__ if (text := self._metadata(item)) is not None]
        if not kept:
            return inner
        return subscript(self.names.refer("typing", "Annotated"), [inner, *map(Atom, kept)])

    def _metadata(self, item: Any) -> str | None:
        """A literal, or ``Meta(gt=0)``: a call that makes an equal object from what the object says of itself."""
        if (text := literal(item, self.names, self.homes)) is not None:
            return text
        describe = getattr(item, "__rich_repr__", None)
        if describe is not None:
            pairs = list(describe())
            given = {pair[0]: pair[1] for pair in pairs if isinstance(pair, tuple) and len(pair) == 2}
            if len(given) != len(pairs):
                return None
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            given = {
                field.name: getattr(item, field.name) for field in dataclasses.fields(item) if field.init
            }
        else:
            return None
        try:
            if type(item)(**given) != item:
                return None
            head = origin_of(type(item), self.homes)
        except (CodegenError, TypeError, ValueError):
            return None
        values = {name: literal(value, self.names, self.homes) for name, value in given.items()}
        if None in values.values():
            return None
        return f"{self.names.refer(*head)}({', '.join(f'{name}={value}' for name, value in values.items())})"
