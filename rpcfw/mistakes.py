"""Arguments of the wrong kind, refused where they are given: each check names the argument, the value and the mend.

For what is built once, such as a client, its options, its policies; never for a call. What a value may be within its
kind, such as a range, is the business of whoever takes it. Nothing here knows any other part of rpcfw.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

_MAX_SHOWN = 80


def check_object(value: object, name: str, method: str, example: str) -> None:
    """Refuse what lacks the method, and a class in place of an object of it. Raises TypeError."""
    if isinstance(value, type):
        mend = _written(value) if callable(getattr(value, method, None)) else example
        raise TypeError(f"{name}={shown(value)} is a class: write {mend}")
    if not callable(getattr(value, method, None)):
        raise TypeError(f"{name}={shown(value)} has no method {method}(): write {example}")


def check_objects(values: object, name: str, method: str, example: str) -> None:
    """Refuse what is not a sequence of objects with the method. Raises TypeError."""
    for index, value in enumerate(_listed(values, name, method, example)):
        check_object(value, f"{name}[{index}]", method, example)


def check_middleware(values: object, name: str = "middleware") -> None:
    """Refuse what is not a sequence of functions from a handler to a handler, as far as can be seen. Raises TypeError.

    A class passes where its objects are handlers: where calling them is a coroutine.
    """
    for index, value in enumerate(_listed(values, name, "__call__", "Retry()")):
        which = f"{name}[{index}]={shown(value)}"
        if isinstance(value, type):
            if not inspect.iscoroutinefunction(inspect.getattr_static(value, "__call__", None)):
                raise TypeError(f"{which} is a class: write {_written(value)}")
        elif not callable(value):
            raise TypeError(f"{which} is not a function that takes a handler and returns one: write Retry()")
        elif inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
            raise TypeError(
                f"{which} is a coroutine function: write a plain one, which takes a handler and returns one that "
                "awaits it"
            )


def check_maker(value: object, name: str, method: str, example: str) -> None:
    """Refuse what is not a function without arguments that makes objects with the method. Raises TypeError.

    What it makes is not looked at, unless it is a class: nothing is made here.
    """
    if not callable(value):
        if callable(getattr(value, method, None)):
            raise TypeError(
                f"{name}={shown(value)} is one object, and each node needs its own: "
                f"write {name}=lambda: {_written(value)}"
            )
        raise TypeError(f"{name}={shown(value)} is not a function that makes one: write {name}={example}")
    if isinstance(value, type) and not callable(getattr(value, method, None)):
        raise TypeError(
            f"{name}={shown(value)} makes objects without a method {method}(): write {name}={example}"
        )
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some that are written in C tell nothing
        return
    try:
        signature.bind()
    except TypeError as error:
        mend = _written(value) if isinstance(value, type) else "..."
        raise TypeError(
            f"{name}={shown(value)} is called without arguments ({error}): write {name}=lambda: {mend}"
        ) from None


def check_instance(value: object, name: str, kind: type, example: str) -> None:
    """Refuse what is not an object of the class. Raises TypeError, which turns a dict into the class's arguments."""
    if isinstance(value, kind):
        return
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        example = f"{kind.__name__}({', '.join(f'{key}={shown(item)}' for key, item in value.items())})"
    raise TypeError(f"{name}={shown(value)} is not an object of the class {kind.__name__}: write {example}")


def check_function(value: object, name: str, what: str, example: str) -> None:
    """Refuse what cannot be called; `what` says of what it is a function. Raises TypeError."""
    if not callable(value):
        raise TypeError(f"{name}={shown(value)} is not a function of {what}: write {example}")


def check_mapping(value: object, name: str, example: str) -> None:
    """Refuse what is not a dict, or one whose keys are not text. Raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}={shown(value)} is not a dict: write {example}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name}: the key {shown(key)} is not text: write {example}")


def check_text(value: object, name: str, example: str) -> None:
    """Refuse what is not text. Raises TypeError."""
    if not isinstance(value, str):
        mend = f'"{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else example
        raise TypeError(f"{name}={shown(value)} is not text: write {mend}")


def check_number(value: object, name: str) -> None:
    """Refuse what is not a number, text that holds one included. Raises TypeError."""
    if isinstance(value, str):
        number = value.strip().removesuffix("%").removesuffix("s").strip()
        try:
            percent = value.strip().endswith("%")
            mend = f": write {float(number) / 100:g}" if percent else f": write {float(number):g}"
        except ValueError:
            mend = ": give a number"
        raise TypeError(f"{name}={shown(value)} is text{mend}")
    if not isinstance(value, Real) or isinstance(value, bool):
        seconds: Callable[[], float] | None = getattr(value, "total_seconds", None)
        mend = f"write {seconds():g}" if seconds is not None else "give a number"
        raise TypeError(f"{name}={shown(value)} is not a number: {mend}")


def shown(value: object) -> str:
    """A value as a message shows it: short, and a class by its name."""
    if isinstance(value, type):
        return f"<class {value.__qualname__}>"
    if type(value).__repr__ is object.__repr__ or inspect.isfunction(
        value
    ):  # an address in memory tells nobody
        return f"<{getattr(value, '__name__', None) or type(value).__name__ + ' object'}>"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _listed(values: object, name: str, method: str, example: str) -> Sequence[object]:
    """The values, if they are in a list or the like."""
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return values
    mend = _written(values) if callable(getattr(values, method, None)) else example
    raise TypeError(f"{name}={shown(values)} is not a list: write {name}=[{mend}]")


def _written(value: object) -> str:
    """How a program writes an object of this class, this function, or an object like this one."""
    if not isinstance(value, type):
        name: str = getattr(value, "__name__", None) or f"{type(value).__name__}(...)"
        return name
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return f"{value.__name__}(...)"
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return f"{value.__name__}({', '.join(needed)})"
