"""Declarations made from source text, so that a mistake can be shown as a user would write it."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

import pytest

Declare = Callable[[str], ModuleType]

PRELUDE = """
import abc, collections, dataclasses, datetime, decimal, enum, functools, pathlib, threading, typing, uuid
from collections.abc import (
    AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
)
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, Protocol
from typing import Required, Self, TypedDict, TypeVar, Union

import msgspec
import pydantic

from rpcfw.errors import RpcError, ServiceError
from rpcfw.interface import idempotent, local, method, service

@dataclass
class Order:
    id: int
    note: str = ""
"""


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Run source text as a module of its own, after imports of what declarations need and a class `Order`."""
    numbers = itertools.count()

    def run(source: str, prelude: str = PRELUDE) -> ModuleType:
        module = ModuleType(f"declared_{next(numbers)}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(
            compile(prelude + textwrap.dedent(source), module.__name__, "exec", dont_inherit=True),
            module.__dict__,
        )
        return module

    return run
