"""`rpcfw new`: a small project that runs at once, to be changed into one's own.

The files are written from the templates below, in which ``$Service`` is the name of the class.
"""

from __future__ import annotations

import keyword
import re
import string
from pathlib import Path

from rpcfw.cli.output import CommandError, Exit, put, say


def new(name: str, parent: Path) -> None:
    """Write a project folder. Raises CommandError when the name does not do or there is something already."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    service = "".join(word[:1].upper() + word[1:] for word in words)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or keyword.iskeyword(service):
        raise CommandError(
            f"{name!r} cannot name a project; use letters, digits, - and _, a letter first", Exit.USAGE
        )
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} is there already; nothing was written. Choose another name", Exit.USAGE)
    for path, template in _FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = string.Template(template).substitute(Service=service, name=name)
        (folder / path).write_text(text, encoding="utf-8")
        put(f"wrote {name}/{path}")
    say(f"\ntry it:\n  cd {name}\n  rpcfw run server.py")
    say("and from another shell, in the same folder:\n  python client.py")


_CONTRACT = '''\
"""The interface: what the server implements and the client calls. Share this file between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Protocol

import rpcfw


@dataclasses.dataclass
class Greeting:
    """A message. Fields with a default may be added later without breaking anyone."""

    text: str
    language: str = "en"


class UnknownLanguage(rpcfw.ServiceError):
    """A declared error: it arrives at the caller as itself."""

    language: str
    known: list[str]


@rpcfw.service("$Service", version="1.0")
class $Service(Protocol):
    """Greets people."""

    @rpcfw.idempotent
    @rpcfw.method(timeout_s=2.0, raises=[UnknownLanguage])
    async def hello(self, name: str, language: str = "en") -> Greeting:
        """Greet one person."""
        ...

    def hello_all(self, names: AsyncIterator[str]) -> AsyncIterator[Greeting]:
        """Greet everybody, as their names come."""
        ...
'''

_SERVER = '''\
"""The implementation. Serve it with: rpcfw run server.py"""

from __future__ import annotations

from collections.abc import AsyncIterator

from contract import Greeting, $Service, UnknownLanguage

WORDS = {"en": "Hello", "fr": "Bonjour", "zh": "你好"}


class ${Service}Server($Service):
    async def hello(self, name: str, language: str = "en") -> Greeting:
        if language not in WORDS:
            raise UnknownLanguage(language, known=sorted(WORDS))
        return Greeting(f"{WORDS[language]}, {name}!", language)

    async def hello_all(self, names: AsyncIterator[str]) -> AsyncIterator[Greeting]:
        async for name in names:
            yield await self.hello(name)
'''

_CLIENT = '''\
"""A client. Run it while the server runs: python client.py"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import rpcfw
from contract import $Service, UnknownLanguage


async def names() -> AsyncIterator[str]:
    for name in ("Ada", "Grace", "Barbara"):
        yield name


async def main() -> None:
    async with rpcfw.connect("tcp://127.0.0.1:7000") as client:
        service = client.stub($Service)
        print((await service.hello("Ada")).text)
        async for greeting in service.hello_all(names()):
            print(greeting.text)
        try:
            await service.hello("Ada", language="tlh")
        except UnknownLanguage as error:
            print(f"no {error.language}; there are {', '.join(error.known)}")


if __name__ == "__main__":
    asyncio.run(main())
'''

_TESTS = '''\
"""Tests run the real server and a real client in one process."""

from __future__ import annotations

import asyncio

import pytest
import rpcfw
from contract import $Service, UnknownLanguage
from server import ${Service}Server


def test_hello_greets_by_name() -> None:
    async def check() -> None:
        async with rpcfw.serve(${Service}Server()) as server, rpcfw.connect(server.endpoint) as client:
            greeting = await client.stub($Service).hello("Ada")
            assert greeting.text == "Hello, Ada!"

    asyncio.run(check())


def test_an_unknown_language_arrives_as_the_declared_error() -> None:
    async def check() -> None:
        async with rpcfw.serve(${Service}Server()) as server, rpcfw.connect(server.endpoint) as client:
            with pytest.raises(UnknownLanguage) as caught:
                await client.stub($Service).hello("Ada", language="tlh")
            assert caught.value.language == "tlh"

    asyncio.run(check())
'''

_README = """\
# $name

A service and its client, made by `rpcfw new`.

| file | what it is |
|---|---|
| `contract.py` | the interface: a typed Python class |
| `server.py` | its implementation |
| `client.py` | a client, typed by the interface |
| `tests/` | tests with a real server in the same process |

Serve it, by one process or by four:

    rpcfw run server.py
    rpcfw run server.py --workers 4

From another shell, with the client, and without any:

    python client.py
    rpcfw describe $Service
    rpcfw call $Service.hello name=Ada language=fr
    printf '"Ada"\\n"Grace"\\n' | rpcfw call $Service.hello_all

Test it, generate stubs, and later tell what a change would break:

    pip install pytest
    python -m pytest
    rpcfw gen contract.py -o stubs
    rpcfw gen contract.py --schema > released.json
    rpcfw check released.json contract.py
"""

_PROJECT = """\
[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["rpcfw"]

[project.optional-dependencies]
dev = ["pytest"]

[tool.setuptools]
py-modules = ["contract", "server", "client"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""

_FILES = {
    "contract.py": _CONTRACT,
    "server.py": _SERVER,
    "client.py": _CLIENT,
    "tests/test_service.py": _TESTS,
    "README.md": _README,
    "pyproject.toml": _PROJECT,
}
