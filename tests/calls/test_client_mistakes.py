"""How a client is made wrongly, and what it says then."""

from __future__ import annotations

import pytest

import rpcfw
from rpcfw.errors import InterfaceError
from tests.calls.contract import Service


def test_endpoints_given_as_a_list_and_stubs_of_instances_are_told_how_to_be_given() -> None:
    with pytest.raises(ValueError, match="give each URL as an argument of its own"):
        rpcfw.connect(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"])  # type: ignore[arg-type]  # on purpose
    client = rpcfw.connect("tcp://127.0.0.1:1")
    with pytest.raises(InterfaceError, match=r"say stub\(Service\), without parentheses"):
        client.stub(Service())  # type: ignore[arg-type]  # on purpose
