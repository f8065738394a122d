"""The decorators that make a class a service, and the way back from a class to its description.

What a class declares is read once, here, when it is decorated; afterwards nothing looks at annotations again. The
judging of a method is in `signature`, that of types in `schema`.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, FunctionType
from typing import Any, TypeVar, overload

from rpcfw.errors import InterfaceError
from rpcfw.interface.describer import Describer
from rpcfw.interface.fingerprint import fingerprint
from rpcfw.interface.hints import Namespace, class_bindings, namespace_of
from rpcfw.interface.options import NO_OPTIONS, MethodOptions, attach, options_of
from rpcfw.interface.schema import method_schema, service_document
from rpcfw.interface.signature import Declaration, default_offload, read_method
from rpcfw.interface.spec import MethodSpec, Offload, ServiceSpec

SERVICE_ATTRIBUTE = "__rpcfw_service__"

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]*")
RESERVED = ("service", "with_options")
"""What every stub has for itself, so that no remote method can be called so."""
_ANCESTORS: tuple[Any, ...] = (object, abc.ABC, typing.Generic, typing.Protocol)


@overload
def service(cls: C, /) -> C: ...
@overload
def service(name: str | None = None, /, *, version: str = "1.0") -> Callable[[C], C]: ...
def service(name: Any = None, /, *, version: str = "1.0") -> Any:
    """Declare a class (a Protocol, an ABC or a concrete class) as a service: its public methods can be called remotely.

        @rpcfw.service("shop.Orders", version="1.0")
        class Orders(Protocol): ...

    Args:
        name: the name on the wire, dotted identifiers; the name of the class unless given.
        version: of the interface, as people number it; told to callers, not compared.

    Raises:
        InterfaceError: the class breaks a rule; the message says which, where, and how to mend it.
    """
    if isinstance(name, type):
        return _declare(name, name.__name__, version, sys._getframe(1))

    def declare(cls: C) -> C:
        return _declare(cls, cls.__name__ if name is None else name, version, sys._getframe(1))

    return declare


def method(
    *,
    timeout_s: float | None = None,
    idempotent: bool = False,
    oneway: bool = False,
    raises: Sequence[type[Exception]] = (),
    offload: Offload | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """Set options of a remote method.

    Args:
        timeout_s: seconds a call may take unless the caller says otherwise; more than 0, at most 42,949.
        idempotent: calling twice does the same as calling once, so a failed call may be tried again.
        oneway: the caller does not wait, and learns neither of success nor of failure.
        raises: errors that arrive at the caller as themselves; all others arrive as RpcError.
        offload: where code that blocks runs; a plain ``def`` runs in a thread unless told otherwise.
        name: the method's name on the wire, if not the one it has here.
    """
    options = MethodOptions(timeout_s, idempotent, oneway, raises, offload, name)

    def attach_options(function: F) -> F:
        attach(function, options)
        return function

    return attach_options


def idempotent(function: F) -> F:
    """Mark a method as idempotent: short for ``@rpcfw.method(idempotent=True)``."""
    attach(function, MethodOptions(idempotent=True))
    return function


def local(function: F) -> F:
    """Keep a public method of a service to its own process: it is no part of the interface."""
    attach(function, MethodOptions(local=True))
    return function


def spec_of(thing: Any) -> ServiceSpec:
    """The description of a service, from its class, a subclass, an instance of either, or the description itself.

    Raises InterfaceError when none of its classes is decorated.
    """
    if isinstance(thing, ServiceSpec):
        return thing
    cls = thing if isinstance(thing, type) else type(thing)
    found = getattr(cls, SERVICE_ATTRIBUTE, None)
    if not isinstance(found, ServiceSpec):
        raise InterfaceError(
            f"{cls.__module__}.{cls.__qualname__} is not a service; put @rpcfw.service above the class that declares it"
        )
    return found


def offload_of(method: MethodSpec, implementation: Any) -> Offload:
    """Where a method of an implementation runs: as its own ``@method(offload=...)`` says, then as the interface says.

    Where neither says anything, a plain ``def`` that is not a stream runs in a thread, as it may block.
    """
    cls = implementation if isinstance(implementation, type) else type(implementation)
    function = inspect.getattr_static(cls, method.attribute, None)
    own = options_of(function)
    if own is not None and own.offload is not None:
        return own.offload
    if inspect.iscoroutinefunction(function):
        return "none"
    return method.offload if method.offload != "none" else default_offload(function, method.kind)


def _declare(cls: C, name: Any, version: Any, frame: FrameType) -> C:
    if not isinstance(cls, type):
        raise InterfaceError(
            f"@rpcfw.service stands above {cls!r}, which is not a class; put it above a class"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InterfaceError(
            f"{cls.__qualname__}: the service name {name!r} must be identifiers joined by dots, as in 'shop.Orders'"
        )
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InterfaceError(f"{cls.__qualname__}: version={version!r} must be a text such as '1.0'")
    namespace = namespace_of(frame)
    describer = Describer(namespace)
    methods: dict[str, MethodSpec] = {}
    schemas: dict[str, Any] = {}
    for declared in _declarations(cls, namespace):
        spec = read_method(name, declared)
        if declared.attribute in RESERVED:
            raise declared.fault(
                f"every stub has {declared.attribute!r} for itself; rename the method, and keep its name on the wire "
                f"with @rpcfw.method(name={declared.attribute!r})"
            )
        if spec.name in methods:
            raise declared.fault(
                f"the name {spec.name!r} is already that of {methods[spec.name].attribute}; give one another with name="
            )
        _check_types(declared, spec, describer)
        methods[spec.name], schemas[spec.name] = spec, method_schema(spec, describer)
    if not methods:
        raise InterfaceError(
            f"{cls.__qualname__} has no public method, so there is nothing to call; add one, with annotations"
        )
    definitions = describer.finish()
    for key, schema in schemas.items():
        methods[key] = dataclasses.replace(methods[key], fingerprint=fingerprint(schema, definitions))
    doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    spec_without_schema = ServiceSpec(name, version, methods, cls, doc)
    document = service_document(spec_without_schema, schemas, definitions)
    setattr(cls, SERVICE_ATTRIBUTE, dataclasses.replace(spec_without_schema, schema=document))
    return cls


def _declarations(cls: type, namespace: Namespace) -> Iterator[Declaration]:
    """The public methods of a class and its bases, in the order in which their names were first declared."""
    definers: dict[str, type] = {}
    for definer in reversed(cls.__mro__):
        if definer not in _ANCESTORS:
            definers |= {
                attribute: definer for attribute in definer.__dict__ if not attribute.startswith("_")
            }
    bindings = class_bindings(cls)
    for attribute, definer in definers.items():
        value = definer.__dict__[attribute]
        options = options_of(value) or NO_OPTIONS
        if options.local:
            continue
        if not isinstance(value, FunctionType):
            if options is not NO_OPTIONS:
                raise InterfaceError(
                    f"{cls.__qualname__}.{attribute} has options, but is a {type(value).__name__}, which cannot "
                    "be remote; make it a method with `self`, or remove the decorator"
                )
            continue
        is_protocol = getattr(definer, "_is_protocol", False)
        yield Declaration(
            owner=cls.__qualname__.rpartition("<locals>.")[2],
            attribute=attribute,
            function=value,
            options=options,
            abstract=is_protocol or getattr(value, "__isabstractmethod__", False),
            namespace=namespace,
            bindings=bindings.get(definer, {}),
        )


def _check_types(declared: Declaration, spec: MethodSpec, describer: Describer) -> None:
    """Describe each type on its own first, so that the error about one names the parameter it belongs to."""
    for parameter in spec.parameters:
        try:
            described = describer.describe(parameter.type)
            describer.expect_default(parameter.default, described)
            describer.finish()
        except InterfaceError as error:
            raise declared.fault(str(error), parameter.name) from None
    try:
        describer.describe(spec.result)
        describer.finish()
    except InterfaceError as error:
        raise declared.fault(f"in the result: {error}") from None
    try:
        for error_class in spec.raises:
            describer.describe_error(error_class)
        describer.finish()
    except InterfaceError as error:
        raise declared.fault(f"in raises: {error}") from None
