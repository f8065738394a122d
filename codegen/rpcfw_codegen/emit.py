"""Interfaces to the text of one generated module: imports, specs, and for each interface its three classes.

Everything is written twice with the same code: a name can be settled only when all names are known (see `names`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rpcfw.interface.declare import RESERVED
from rpcfw.interface.spec import MethodSpec
from rpcfw_codegen.classes import Constants, ServiceClasses
from rpcfw_codegen.discover import Interface
from rpcfw_codegen.docstrings import docstring
from rpcfw_codegen.errors import CodegenError
from rpcfw_codegen.layout import Atom, Bracket, Layout, subscript
from rpcfw_codegen.names import Names, Place, export_order
from rpcfw_codegen.whereabouts import is_called_so


def module_text(interfaces: Sequence[Interface], command: str, place: Place, layout: Layout) -> str:
    """The generated module for the interfaces of one source module."""
    home = interfaces[0].module
    check_class_names(interfaces)
    names = Names(place, lambda origin: is_called_so(home, origin))
    constants = _constants(interfaces)
    _body(interfaces, names, constants, layout)
    names.settle(_reserved(interfaces, constants))
    body = _body(interfaces, names, _constants(interfaces), layout)
    head = _heading(home, command)
    lines = [*head, "", "from __future__ import annotations", "", *names.imports(layout), "", *body]
    return "\n".join(lines) + "\n"


def package_text(target: str, exports: dict[str, list[str]], command: str, layout: Layout) -> str:
    """The ``__init__`` of the output folder, which re-exports every class.

    Args:
        target: what was generated from.
        exports: the class names by the generated module that has them.
        command: the command line that makes these files.
        layout: the width to keep to.
    """
    here = Names(Place("here"))
    for module, classes in exports.items():
        for name in classes:
            here.refer(f"here.{module}", name)
    here.settle(())
    everything = export_order(name for classes in exports.values() for name in classes)
    listed = Bracket(
        "", "[", tuple(Atom(f'"{name}"') for name in everything), "]", comma_if_single=False, is_literal=True
    )
    lines = [
        *_heading(target, command),
        "",
        *here.imports(layout),
        "",
        *layout.lines(listed, before="__all__ = "),
    ]
    return "\n".join(lines) + "\n"


def _heading(source: str, command: str) -> list[str]:
    title = f"Client stubs and server skeletons of `{source}`; edit the interface, not this file."
    return docstring(f"{title}\n\nMade by `{command}`.", 0)


def _body(interfaces: Sequence[Interface], names: Names, constants: Constants, layout: Layout) -> list[str]:
    # The classes first: they say which defaults need a constant.
    classes = [text for i in interfaces for text in ServiceClasses(i, names, constants, layout).lines()]
    return [*_specs(interfaces, names, constants, layout), *classes]


def _specs(
    interfaces: Sequence[Interface], names: Names, constants: Constants, layout: Layout
) -> Iterator[str]:
    for interface in interfaces:
        service = constants.service(interface)
        yield f"{service} = {names.refer('rpcfw')}.spec_of({names.refer(interface.module, interface.qualname)})"
        for method in interface.spec.methods.values():
            name = constants.method(interface, method)
            yield from layout.lines(
                subscript("", [Atom(f'"{method.name}"')]), before=f"{name} = {service}.methods"
            )
            for index, default in constants.defaults(interface, method):
                start = f"{default} = {name}.parameters"
                yield from layout.lines(subscript("", [Atom(str(index))]), before=start, after=".default")


def _constants(interfaces: Sequence[Interface]) -> Constants:
    parameters = {p.name for i in interfaces for m in i.spec.methods.values() for p in m.parameters}
    classes = {name for interface in interfaces for name in class_names(interface)}
    return Constants(interfaces, parameters | classes)


def _reserved(interfaces: Sequence[Interface], constants: Constants) -> set[str]:
    """Names that imports must not take: those of classes, constants, and methods, which shadow in a class's body."""
    methods: set[MethodSpec] = {
        method for interface in interfaces for method in interface.spec.methods.values()
    }
    classes = {name for interface in interfaces for name in class_names(interface)}
    return classes | {method.attribute for method in methods} | constants.all() | {*RESERVED}


def class_names(interface: Interface) -> list[str]:
    """The classes generated for an interface."""
    endings = ("Stub", "BlockingStub", "Skeleton") if interface.is_contract else ("Stub", "BlockingStub")
    return [f"{interface.name}{ending}" for ending in endings]


def check_class_names(interfaces: Sequence[Interface]) -> None:
    """Raise CodegenError if two interfaces of a module would give one class name."""
    owners: dict[str, Interface] = {}
    for interface in interfaces:
        for name in class_names(interface):
            other = owners.setdefault(name, interface)
            if other is not interface:
                raise CodegenError(
                    f"{interface.module}: {other.qualname} and {interface.qualname} would both give a class {name}; "
                    "rename one of them"
                )
