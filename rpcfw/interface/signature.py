"""One function of an interface, read into the description of a remote method.

The kind of call follows from the annotations alone. Every rule that a declaration can break is judged here or in
`schema`, so that a mistake is told while the class is decorated, by class, method and parameter, with its mend.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
from types import FunctionType
from typing import Annotated, Any, get_args, get_origin

from rpcfw.errors import InterfaceError, RpcError, ServiceError
from rpcfw.interface.hints import Bindings, Namespace, UnresolvedAnnotation, function_hints
from rpcfw.interface.options import MethodOptions
from rpcfw.interface.refusals import label
from rpcfw.interface.spec import MAX_TIMEOUT_S, REQUIRED, CallKind, MethodSpec, Offload, Parameter

_STREAM_PARAMETERS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable)
_STREAM_RESULTS = (*_STREAM_PARAMETERS, collections.abc.AsyncGenerator)
_KINDS = {
    (False, False): CallKind.UNARY,
    (False, True): CallKind.SERVER_STREAM,
    (True, False): CallKind.CLIENT_STREAM,
    (True, True): CallKind.BIDIRECTIONAL,
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Declaration:
    """A function as it was found in a class.

    Attributes:
        owner: the name of the class, for errors.
        abstract: whether the function only declares, and a subclass implements.
        namespace: names that its annotations may use beyond those of its module.
        bindings: what the type variables of its class stand for.
    """

    owner: str
    attribute: str
    function: FunctionType
    options: MethodOptions
    abstract: bool
    namespace: Namespace
    bindings: Bindings

    def fault(self, message: str, parameter: str = "") -> InterfaceError:
        """An error that names where the fault is."""
        where = f"{self.owner}.{self.attribute}"
        return InterfaceError(
            f"{where}, parameter {parameter!r}: {message}" if parameter else f"{where}: {message}"
        )


def read_method(service: str, declared: Declaration) -> MethodSpec:
    """The description of a method, but for its fingerprint. Raises InterfaceError when a rule is broken."""
    options = declared.options
    hints = _hints(declared)
    parameters = tuple(_parameter(declared, parameter, hints) for parameter in _parameters(declared))
    streams = [parameter.name for parameter in parameters if parameter.is_stream]
    if len(streams) > 1:
        raise declared.fault(
            f"the parameters {' and '.join(map(repr, streams))} both stream, but a call carries one stream in; "
            "merge them into one stream of a union"
        )
    streams_out, result = _result(declared, hints)
    _check_function(declared, streams_out, streams)
    kind = _KINDS[bool(streams), streams_out]
    _check_options(declared, kind, result)
    return MethodSpec(
        service=service,
        name=_wire_name(declared),
        kind=kind,
        parameters=parameters,
        result=result,
        timeout_s=options.timeout_s,
        idempotent=options.idempotent,
        oneway=options.oneway,
        raises=_raises(declared),
        offload=_offload(declared, kind),
        doc=inspect.getdoc(declared.function) or "",
        attribute=declared.attribute,
    )


def default_offload(function: Any, kind: CallKind) -> Offload:
    """Where a handler runs unless told: a plain ``def`` that may block goes to a thread, all else stays on the loop."""
    if kind is CallKind.UNARY and inspect.isfunction(function) and not inspect.iscoroutinefunction(function):
        return "thread"
    return "none"


def _hints(declared: Declaration) -> dict[str, Any]:
    try:
        return function_hints(declared.function, declared.namespace, declared.bindings)
    except UnresolvedAnnotation as error:
        raise declared.fault(str(error), "" if error.name == "return" else error.name) from None


def _parameters(declared: Declaration) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(declared.function).parameters.values())
    first = parameters[0] if parameters else None
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        raise declared.fault(
            "the parameter `self` is missing; add it, or put @rpcfw.local above what is not remote"
        )
    return parameters[1:]


def _parameter(declared: Declaration, parameter: inspect.Parameter, hints: dict[str, Any]) -> Parameter:
    name = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        mend = "list[...]" if stars == "*" else "dict[str, ...]"
        raise declared.fault(
            f"{stars}{name} cannot travel: each argument has a name and a type; take one {mend}", name
        )
    if name not in hints:
        raise declared.fault("the annotation is missing; write its type, as in `order_id: int`", name)
    hint = hints[name]
    bare = _bare(hint)
    origin = get_origin(bare) or bare
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    is_stream = origin in _STREAM_PARAMETERS
    if origin is collections.abc.AsyncGenerator:
        raise declared.fault("a stream of arguments is an AsyncIterator; write AsyncIterator[...]", name)
    if is_stream:
        if default is not REQUIRED:
            raise declared.fault(f"a stream cannot have the default {default!r}; remove it", name)
        hint = _item(declared, bare, name)
    return Parameter(name, hint, default, is_stream, parameter.kind is parameter.KEYWORD_ONLY)


def _result(declared: Declaration, hints: dict[str, Any]) -> tuple[bool, Any]:
    if "return" not in hints:
        raise declared.fault(
            "the annotation of the result is missing; write `-> None` or the type that is returned"
        )
    hint = _bare(hints["return"])
    if (get_origin(hint) or hint) not in _STREAM_RESULTS:
        return False, hints["return"]
    if get_origin(hint) is collections.abc.AsyncGenerator and get_args(hint)[1:] not in (
        (),
        (None,),
        (type(None),),
    ):
        raise declared.fault(f"nothing can be sent into a remote {label(hint)}; write AsyncIterator[...]")
    return True, _item(declared, hint)


def _item(declared: Declaration, hint: Any, parameter: str = "") -> Any:
    arguments = get_args(hint)
    if not arguments:
        raise declared.fault(
            "the stream does not say of what; write AsyncIterator[...] with the type of an item", parameter
        )
    return type(None) if arguments[0] is None else arguments[0]


def _bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _check_function(declared: Declaration, streams_out: bool, streams_in: list[str]) -> None:
    """Whether the way the function is written agrees with its annotations."""
    function, attribute = declared.function, declared.attribute
    if streams_out and inspect.iscoroutinefunction(function):
        raise declared.fault(
            "`async def` without a yield returns a coroutine, not the AsyncIterator that it is annotated with; "
            f"write `def {attribute}(...)` in an interface, or `async def` with a yield where it is implemented"
        )
    if not streams_out and (inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)):
        raise declared.fault(
            "it has a yield, so it streams; write `async def` and annotate it `-> AsyncIterator[...]`"
        )
    if streams_in and not streams_out and not inspect.iscoroutinefunction(function):
        raise declared.fault(
            "a plain `def` cannot wait for the items of a stream; write `async def`", streams_in[0]
        )


def _check_options(declared: Declaration, kind: CallKind, result: Any) -> None:
    timeout_s: Any = declared.options.timeout_s
    oneway = declared.options.oneway
    if timeout_s is not None:
        is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
        if not is_number or not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise declared.fault(
                f"timeout_s={timeout_s!r} must be more than 0 and at most {MAX_TIMEOUT_S} seconds; "
                "leave it out for no limit"
            )
    if oneway and kind is not CallKind.UNARY:
        raise declared.fault(
            f"a one-way call has no reply and no stream, but this is {kind.value}; remove oneway=True"
        )
    if oneway and result is not type(None):
        raise declared.fault(
            f"a one-way call has no reply, but this returns {label(result)}; write `-> None`"
        )
    if oneway and declared.options.raises:
        raise declared.fault("a one-way call has no reply that could carry an error; remove raises=")


def _wire_name(declared: Declaration) -> str:
    name = declared.options.name
    if name is None:
        return declared.attribute
    if not _IDENTIFIER.fullmatch(name):
        raise declared.fault(
            f"name={name!r} is not an identifier; use letters, digits and _, not starting with a digit"
        )
    return name


def _offload(declared: Declaration, kind: CallKind) -> Offload:
    offload: Any = declared.options.offload
    if offload is None:
        return "none" if declared.abstract else default_offload(declared.function, kind)
    if offload not in ("none", "thread", "process"):
        raise declared.fault(f"offload={offload!r} is not known; use 'none', 'thread' or 'process'")
    if offload in ("thread", "process") and (
        inspect.iscoroutinefunction(declared.function) or kind is not CallKind.UNARY
    ):
        raise declared.fault(
            f"offload={offload!r} is for a plain `def` that blocks and returns one result; "
            "write `def` instead of `async def`, or remove offload="
        )
    chosen: Offload = offload
    return chosen


def _raises(declared: Declaration) -> tuple[type[Exception], ...]:
    errors: Any = declared.options.raises
    if isinstance(errors, type) or not isinstance(errors, collections.abc.Iterable):
        raise declared.fault(f"raises={errors!r} must be a list of exception classes; write raises=[...]")
    found: dict[str, type[Exception]] = {}
    for error in errors:
        if not isinstance(error, type) or not issubclass(error, Exception):
            raise declared.fault(
                f"raises lists {error!r}, which is not a subclass of Exception; list exception classes"
            )
        if error in (Exception, ServiceError) or issubclass(error, RpcError | InterfaceError):
            raise declared.fault(
                f"raises lists {error.__name__}, which says nothing that a caller could handle; "
                "list the classes of your own, undeclared errors arrive as RpcError"
            )
        if inspect.isfunction(error.__init__) and not dataclasses.is_dataclass(error):
            raise declared.fault(
                f"raises lists {error.__name__}, whose own __init__ nobody could call on the other side; "
                "make it a subclass of rpcfw.ServiceError with annotated fields"
            )
        if found.setdefault(error.__name__, error) is not error:
            raise declared.fault(
                f"raises lists two classes named {error.__name__}; rename one, errors travel by name"
            )
    return tuple(found.values())
