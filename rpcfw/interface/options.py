"""What ``@method`` and its like attach to a function: options that its annotations cannot say.

They wait on the function, unjudged, until the class around it is declared as a service (see `signature`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rpcfw.errors import InterfaceError
from rpcfw.interface.spec import Offload

_ATTRIBUTE = "__rpcfw_method__"


@dataclasses.dataclass(frozen=True, slots=True)
class MethodOptions:
    """The options of one method; each stands at its default where it was not given."""

    timeout_s: float | None = None
    idempotent: bool = False
    oneway: bool = False
    raises: Sequence[type[Exception]] = ()
    offload: Offload | None = None
    name: str | None = None
    local: bool = False


NO_OPTIONS = MethodOptions()


def options_of(function: Any) -> MethodOptions | None:
    """The options attached to a function, None without any."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, MethodOptions) else None


def attach(function: Any, options: MethodOptions) -> None:
    """Add options to those a function has. Raises InterfaceError when one was given before with another value."""
    merged: dict[str, Any] = {}
    present = options_of(function) or NO_OPTIONS
    for field in dataclasses.fields(MethodOptions):
        values = [getattr(given, field.name) for given in (present, options)]
        given = [value for value in values if value != field.default]
        if len(given) == 2 and given[0] != given[1]:
            raise InterfaceError(
                f"{getattr(function, '__qualname__', function)}: the option {field.name} is given twice, "
                f"as {given[0]!r} and {given[1]!r}; keep one"
            )
        merged[field.name] = given[0] if given else field.default
    try:
        setattr(function, _ATTRIBUTE, MethodOptions(**merged))
    except AttributeError:
        raise InterfaceError(
            f"{function!r} takes no options: put the decorator on a function of a class"
        ) from None
