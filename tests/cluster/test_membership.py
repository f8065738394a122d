"""A place in a registry: what is refused before it is taken, with the mend."""

from __future__ import annotations

from typing import Any

import pytest

import rpcfw
from rpcfw.registry import MemoryRegistry, MemoryStore
from tests.calls.place import QUIET


@rpcfw.service
class Shop:
    async def hello(self) -> str:
        return "hello"


def serve() -> rpcfw.Server:
    return rpcfw.serve(Shop(), listen="tcp://127.0.0.1:0", limits=QUIET)


async def test_a_server_that_is_not_serving_yet_is_refused_and_can_be_registered_then() -> None:
    registry, server = MemoryRegistry(MemoryStore()), serve()
    membership = rpcfw.register(server, registry)
    with pytest.raises(ValueError, match="Server of Shop at nowhere yet> is not serving yet: enter it first"):
        await membership.__aenter__()
    assert not membership.registered.is_set()
    async with server, rpcfw.register(server, registry) as member:
        await member.registered.wait()
        assert await registry.services() == {"Shop"}
    await registry.close()


async def test_it_is_refused_too_where_something_is_advertised() -> None:
    with pytest.raises(ValueError, match="is not serving yet"):
        async with rpcfw.register(serve(), "static://10.0.0.1:1", advertise="tcp://10.0.0.1:1"):
            pytest.fail("it was registered")


@pytest.mark.parametrize("given", [Shop(), Shop, "tcp://127.0.0.1:7000", None])
def test_what_is_no_server_is_refused_with_the_mend(given: Any) -> None:
    with pytest.raises(TypeError, match=r"is not a server: serve it first, as in async with rpcfw\.serve"):
        rpcfw.register(given, "static://10.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["zone=a"]}, r"labels=\['zone=a'\] must be a mapping of text to text"),
        ({"labels": {"zone": 1}}, r"labels=\{'zone': 1\} must be a mapping of text to text"),
        ({"weight": "5"}, "weight='5' must be a whole number"),
        ({"weight": True}, "weight=True must be a whole number"),
    ],
)
async def test_arguments_of_another_type_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        rpcfw.register(serve(), "static://10.0.0.1:1", **options)


async def test_a_transport_that_fails_in_an_unknown_way_is_the_reason_why_a_node_is_not_called() -> None:
    class Broken:
        async def connect(self, endpoint: object, receiver: object) -> Any:
            raise AttributeError("no such file")

        async def listen(self, endpoint: object, receiver: object) -> Any:
            raise AssertionError

    transports: Any = {"tcp": Broken()}
    nodes = ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    async with rpcfw.connect(*nodes, transports=transports) as client:
        with pytest.raises(rpcfw.RpcError, match=r"tcp://127\.0\.0\.1:1: AttributeError: no such file"):
            await client.stub(Shop).hello()
