"""Annotations resolved to types: forward references, classes declared inside functions, bound type variables.

Nothing here judges whether a type can travel (see `schema`). It exists beside `typing.get_type_hints` because that one
cannot see the locals of a function, does not bind type variables, and does not say which annotation failed.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, get_args, get_origin

Namespace = Mapping[str, Any]
"""Names that annotations may use beyond those of their module: the locals of the functions around a declaration."""

Bindings = Mapping[Any, Any]
"""Type variables to the types they stand for."""


class UnresolvedAnnotation(Exception):
    """An annotation names something that cannot be found. The message says which, and how to mend it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def namespace_of(frame: FrameType | None) -> Namespace:
    """The locals visible where a class is being declared: those of class bodies around it and of their function."""
    names: dict[str, Any] = {}
    while frame is not None and frame.f_locals is not frame.f_globals:
        names = {**frame.f_locals, **names}
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            break
        frame = frame.f_back
    return names


def function_hints(function: Callable[..., Any], namespace: Namespace, bindings: Bindings) -> dict[str, Any]:
    """The types of a function's parameters and, under "return", of its result.

    Raises UnresolvedAnnotation for the first annotation that cannot be resolved.
    """
    inner: Any = inspect.unwrap(function)
    scope = _scope(inner.__qualname__, inner.__globals__, namespace, getattr(inner, "__type_params__", ()))
    return {name: substitute(hint, bindings) for name, hint in _resolve(function.__annotations__, scope)}


def class_hints(cls: type, arguments: tuple[Any, ...], namespace: Namespace) -> dict[str, Any]:
    """The types of a class's fields, inherited ones first, with its type variables bound to `arguments`.

    A class declared inside a function keeps its resolved annotations, as if they had not been postponed: codecs read
    them later, when the locals of the function are gone.

    Raises UnresolvedAnnotation for the first annotation that cannot be resolved.
    """
    bound = class_bindings(cls, arguments)
    everywhere = {variable: value for bindings in bound.values() for variable, value in bindings.items()}
    hints: dict[str, Any] = {}
    for definer in reversed(cls.__mro__):
        annotations = inspect.get_annotations(definer)
        module = sys.modules.get(definer.__module__)
        names = {**definer.__dict__, **(module.__dict__ if module else {})}
        scope = _scope(definer.__qualname__, names, namespace, getattr(definer, "__type_params__", ()))
        # A TypedDict keeps none of its bases, only their annotations: there the variables of all of them are in play.
        bindings = everywhere if typing.is_typeddict(cls) else bound.get(definer, {})
        resolved = dict(_resolve(annotations, scope))
        if "<locals>" in definer.__qualname__ and resolved != annotations:
            definer.__annotations__ = resolved
        hints |= {name: substitute(hint, bindings) for name, hint in resolved.items()}
    return hints


def class_bindings(cls: type, arguments: tuple[Any, ...] = ()) -> dict[type, Bindings]:
    """What the type variables of a class and of each of its generic bases stand for."""
    found: dict[type, Bindings] = {}
    pending: list[tuple[Any, tuple[Any, ...]]] = [(cls, arguments)]
    while pending:
        current, given = pending.pop()
        own = dict(zip(getattr(current, "__parameters__", ()), given, strict=False))
        found.setdefault(current, own)
        for parent in current.__dict__.get("__orig_bases__", current.__bases__):
            origin = get_origin(parent) or parent
            if isinstance(origin, type) and origin not in (typing.Generic, typing.Protocol):
                pending.append((origin, tuple(substitute(argument, own) for argument in get_args(parent))))
    return found


def substitute(hint: Any, bindings: Bindings) -> Any:
    """The type with its type variables replaced; those without a binding stay."""
    if not bindings:
        return hint
    if isinstance(hint, typing.TypeVar):
        return bindings.get(hint, hint)
    if isinstance(hint, type) or not getattr(hint, "__parameters__", ()):
        return hint
    return hint[tuple(bindings.get(parameter, parameter) for parameter in hint.__parameters__)]


def _scope(
    qualname: str, names: Mapping[str, Any], namespace: Namespace, variables: Iterable[Any]
) -> dict[str, Any]:
    """What the annotations of a declaration may name. Locals count only for what was declared inside a function."""
    inside = namespace if "<locals>" in qualname else {}
    return {**names, **inside, **{variable.__name__: variable for variable in variables}}


def _resolve(annotations: Mapping[str, Any], scope: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, annotation in annotations.items():
        holder = type("Annotations", (), {"__annotations__": {name: annotation}})
        try:
            yield (
                name,
                typing.get_type_hints(holder, globalns=scope, localns=dict(scope), include_extras=True)[name],
            )
        except NameError as error:
            raise UnresolvedAnnotation(
                name,
                f"the annotation {_shown(annotation)} names {error.name!r}, which is not known when the service is "
                "declared; define or import it above, and not under `if TYPE_CHECKING:`",
            ) from None
        except Exception as error:
            message = f"the annotation {_shown(annotation)} is not a valid type: {error}; write a type"
            raise UnresolvedAnnotation(name, message) from error


def _shown(annotation: Any) -> str:
    text: str = (
        annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", str(annotation))
    )
    return "`" + text.strip("'\"") + "`"
