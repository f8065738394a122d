"""The three classes of one interface: stub, blocking stub, skeleton.

What they inherit is the runtime's (`rpcfw.Stub` and so on), named here and never imported: the generator must work
where the runtime does not.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rpcfw.interface.spec import REQUIRED, MethodSpec, Parameter
from rpcfw_codegen.aliases import aliases_in
from rpcfw_codegen.annotations import annotation
from rpcfw_codegen.defaults import literal
from rpcfw_codegen.discover import Interface
from rpcfw_codegen.docstrings import docstring
from rpcfw_codegen.layout import (
    INDENT,
    Atom,
    Labelled,
    Layout,
    Node,
    call,
    flat,
    subscript,
    text_width,
    tuple_of,
)
from rpcfw_codegen.names import Names

_LONGEST_DEFAULT = 60
_STREAM_NOTE = "Implement as `async def` with `yield`."


class Constants:
    """The module-level names of specs: ``_ORDERS`` for a service, ``_ORDERS_GET`` for a method.

    A default that has no source form gets one too, at its first use: ``_ORDERS_GET_PAUSE``.
    """

    def __init__(self, interfaces: Sequence[Interface], taken: set[str]) -> None:
        self._taken = set(taken)
        self._services: dict[str, str] = {}
        self._methods: dict[tuple[str, str], str] = {}
        self._defaults: dict[tuple[str, str], dict[int, str]] = {}
        for interface in interfaces:
            name = self._claim(f"_{_constant_case(interface.name)}")
            self._services[interface.qualname] = name
            for method in interface.spec.methods.values():
                key = (interface.qualname, method.attribute)
                self._methods[key] = self._claim(f"{name}_{method.attribute.strip('_').upper()}")

    def _claim(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def service(self, interface: Interface) -> str:
        return self._services[interface.qualname]

    def method(self, interface: Interface, method: MethodSpec) -> str:
        return self._methods[interface.qualname, method.attribute]

    def default(self, interface: Interface, method: MethodSpec, index: int) -> str:
        """The name of the default of a parameter."""
        names = self._defaults.setdefault((interface.qualname, method.attribute), {})
        if index not in names:
            parameter = method.parameters[index].name.strip("_").upper()
            names[index] = self._claim(f"{self.method(interface, method)}_{parameter}")
        return names[index]

    def defaults(self, interface: Interface, method: MethodSpec) -> list[tuple[int, str]]:
        """The parameters of a method whose default was named, and the names."""
        return sorted(self._defaults.get((interface.qualname, method.attribute), {}).items())

    def all(self) -> set[str]:
        """Every name given out."""
        defaults = (name for names in self._defaults.values() for name in names.values())
        return {*self._services.values(), *self._methods.values(), *defaults}


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceClasses:
    """Writes the classes of one interface."""

    interface: Interface
    names: Names
    constants: Constants
    layout: Layout

    def lines(self) -> Iterator[str]:
        wire = self.interface.spec.name
        yield from self._class("Stub", f"Calls {wire}.", self._stub_method)
        yield from self._class("BlockingStub", f"Calls {wire} without asyncio.", self._blocking_method)
        if self.interface.is_contract:
            yield from self._class(
                "Skeleton", f"Serves {wire}; subclass it and write the methods.", self._abstract_method
            )

    def _class(
        self, ending: str, default_doc: str, write: Callable[[MethodSpec], Iterator[str]]
    ) -> Iterator[str]:
        spec = self.interface.spec
        yield from ("", "", f"class {self.interface.name}{ending}({self.names.refer('rpcfw')}.{ending}):")
        yield from docstring(spec.doc or default_doc, INDENT)
        yield from ("", f"    service = {self.constants.service(self.interface)}")
        for method in spec.methods.values():
            yield ""
            yield from write(method)

    def _stub_method(self, method: MethodSpec) -> Iterator[str]:
        streams = method.kind.streams_out
        yield from self._head(
            "def" if streams else "async def", method, self._result(method, "AsyncIterator"), ":"
        )
        yield from docstring(method.doc, 2 * INDENT)
        yield from self._forward(method, "self._stream" if streams else "await self._call")

    def _blocking_method(self, method: MethodSpec) -> Iterator[str]:
        result = self._result(method, "Iterator")
        yield from self._head("def", method, result, ":", stream="Iterable")
        yield from docstring(method.doc, 2 * INDENT)
        yield from self._forward(method, "self._stream" if method.kind.streams_out else "self._call")

    def _abstract_method(self, method: MethodSpec) -> Iterator[str]:
        is_async = inspect.iscoroutinefunction(self.interface.function(method))
        doc = method.doc
        if method.kind.streams_out:
            doc = f"{doc}\n\n{_STREAM_NOTE}" if doc else _STREAM_NOTE
        yield f"    @{self.names.refer('abc', 'abstractmethod')}"
        end = ":" if doc else ": ..."
        yield from self._head(
            "async def" if is_async else "def", method, self._result(method, "AsyncIterator"), end
        )
        yield from docstring(doc, 2 * INDENT)

    def _head(
        self, keyword: str, method: MethodSpec, result: Node, end: str, stream: str | None = None
    ) -> list[str]:
        parameters: list[Node] = [Atom(_receiver(method))]
        for index, parameter in enumerate(method.parameters):
            if parameter.keyword_only and not any(p.keyword_only for p in method.parameters[:index]):
                parameters.append(Atom("*"))
            parameters.append(self._parameter(method, index, parameter, stream))
        return self.layout.signature(f"{keyword} {method.attribute}", parameters, result, INDENT, end)

    def _parameter(self, method: MethodSpec, index: int, parameter: Parameter, stream: str | None) -> Node:
        written = self._type(method, parameter.name, parameter.type)
        if parameter.is_stream:
            container = stream or self._declared_stream(method, parameter)
            written = subscript(self.names.refer("collections.abc", container), [written])
        label = f"{parameter.name}: "
        if parameter.default is REQUIRED:
            return Labelled(label, written)
        text = literal(parameter.default, self.names, self._homes(method))
        if text is not None and text_width(text) <= _LONGEST_DEFAULT:
            node = Labelled(label, written, f" = {text}")
            # A tuple could break inside; where that would be needed it is no longer worth reading.
            if (
                type(parameter.default) is not tuple
                or 2 * INDENT + text_width(flat(node)) < self.layout.width
            ):
                return node
        return Labelled(label, written, f" = {self.constants.default(self.interface, method, index)}")

    def _result(self, method: MethodSpec, stream: str) -> Node:
        item = self._type(method, "return", method.result)
        return (
            subscript(self.names.refer("collections.abc", stream), [item])
            if method.kind.streams_out
            else item
        )

    def _forward(self, method: MethodSpec, through: str) -> Iterator[str]:
        arguments = tuple_of(Atom(parameter.name) for parameter in method.parameters)
        receiver = _receiver(method)
        start = "" if flat(self._result(method, "Iterator")) == "None" else "return "
        head = f"{start}{through.replace('self', receiver)}"
        yield from self.layout.lines(
            call(head, [Atom(self.constants.method(self.interface, method)), arguments]), 2 * INDENT
        )

    def _type(self, method: MethodSpec, parameter: str, hint: Any) -> Node:
        aliases = aliases_in(self.interface.function(method), parameter)
        return annotation(hint, self.names, self._homes(method), aliases)

    def _homes(self, method: MethodSpec) -> tuple[str, ...]:
        declared_in = getattr(self.interface.function(method), "__module__", self.interface.module)
        return tuple(dict.fromkeys((self.interface.module, declared_in)))

    def _declared_stream(self, method: MethodSpec, parameter: Parameter) -> str:
        """``AsyncIterable`` where the interface takes any of them, else ``AsyncIterator``."""
        try:
            hint = typing.get_type_hints(self.interface.function(method)).get(parameter.name)
        except (NameError, TypeError):
            return "AsyncIterator"
        wide = typing.get_origin(hint) is collections.abc.AsyncIterable
        return "AsyncIterable" if wide else "AsyncIterator"


def _receiver(method: MethodSpec) -> str:
    """``self``, or another name where a parameter has that one."""
    name = "self"
    while any(parameter.name == name for parameter in method.parameters):
        name = f"_{name}"
    return name


def _constant_case(name: str) -> str:
    """``HTTPOrders`` to ``HTTP_ORDERS``."""
    name = name.strip("_")
    words = ""
    for index, character in enumerate(name):
        after_lower = (
            index > 0 and character.isupper() and not name[index - 1].isupper() and name[index - 1] != "_"
        )
        ends_acronym = (
            index > 0
            and character.isupper()
            and name[index - 1].isupper()
            and name[index + 1 : index + 2].islower()
        )
        words += f"_{character}" if after_lower or ends_acronym else character
    return words.upper()
