"""`rpcfw list` and `rpcfw describe`: what a running server says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from rpcfw.cli.notation import indented, messages, remarks, sample_call, signature
from rpcfw.cli.output import CommandError, Exit, put, put_table, say, to_json
from rpcfw.cli.places import shown
from rpcfw.cli.reach import Reach
from rpcfw.interface import Schema
from rpcfw.transport import Transport


def list_services(
    endpoint: str, *, as_json: bool, timeout_s: float, transports: Mapping[str, Transport] | None = None
) -> None:
    """Print a line per service."""

    async def ask() -> list[Schema]:
        async with Reach(endpoint, timeout_s, transports) as reach:
            return [
                {"name": s.name, "version": s.version, "methods": s.methods, "doc": s.doc}
                for s in await reach.infos()
            ]

    found = asyncio.run(ask())
    if as_json:
        put(to_json(found))
        return
    rows = [(s["name"], s["version"], str(len(s["methods"])), s["doc"].partition("\n")[0]) for s in found]
    put_table(("SERVICE", "VERSION", "METHODS", "ABOUT"), rows)
    if found:
        say(f"\nrpcfw describe {found[0]['name']} shows its methods")


def describe(
    name: str | None,
    endpoint: str,
    *,
    as_json: bool,
    as_schema: bool,
    timeout_s: float,
    transports: Mapping[str, Transport] | None = None,
) -> None:
    """Print a service, one of its methods, or everything the server has."""

    async def ask() -> tuple[list[Schema], str | None]:
        async with Reach(endpoint, timeout_s, transports) as reach:
            if name is None:
                return [await reach.schema(service.name) for service in await reach.infos()], None
            service, method = await reach.split(name)
            return [await reach.schema(service)], method

    schemas, method = asyncio.run(ask())
    if as_schema and method is not None:
        raise CommandError(
            f"--schema is of a whole service: rpcfw describe {schemas[0]['service']} --schema", Exit.USAGE
        )
    if as_schema:
        put(to_json({"services": schemas}, indent=2))
    elif as_json:
        put(to_json(_chosen(schemas[0], method) if name else schemas))
    else:
        put("\n\n".join(_in_words(_chosen(schema, method), shown(endpoint)) for schema in schemas))


def method_in(schema: Schema, name: str) -> Schema:
    """A method's schema. Raises CommandError naming those that the service has."""
    found: Schema | None = schema["methods"].get(name)
    if found is None:
        known = ", ".join(schema["methods"])
        raise CommandError(f"{schema['service']} has no method {name!r}; it has {known}", Exit.REFUSED)
    return found


def _chosen(schema: Schema, method: str | None) -> Schema:
    return schema if method is None else {**schema, "methods": {method: method_in(schema, method)}}


def _in_words(schema: Schema, endpoint: str) -> str:
    methods, definitions = schema["methods"], schema["definitions"]
    parts = [f"service {schema['service']} {schema['version']}"]
    if schema["doc"]:
        parts.append(indented(schema["doc"]))
    for method in methods.values():
        lines = [indented(signature(method, definitions))]
        lines += [indented(method["doc"], 8)] if method["doc"] else []
        lines += [f"        [{'; '.join(remarks(method))}]"] if remarks(method) else []
        parts.append("\n".join(lines))
    parts += [indented(message) for message in messages(schema, methods)]
    return "\n\n".join([*parts, f"try: {sample_call(schema, endpoint)}"])
