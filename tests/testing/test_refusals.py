"""What the simulated loop refuses: a call that would leave the simulation says so by name, and what to do instead."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rpcfw.testing import SimLoop, Unsimulated, run
from rpcfw.testing.refusals import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_touch_the_real_world_is_refused_by_name(name: str) -> None:
    async def main() -> None:
        call: Any = getattr(asyncio.get_running_loop(), name)
        await call(1, 2)

    with pytest.raises(Unsimulated, match=f"^{name} has no place in a simulation: "):
        run(main)


def test_every_method_of_a_loop_is_either_simulated_or_refused() -> None:
    public = [name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")]
    assert [
        name for name in public if getattr(SimLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ] == []


@pytest.mark.parametrize("option", ["sock", "ssl"])
@pytest.mark.parametrize("name", ["create_connection", "create_server", "create_datagram_endpoint"])
def test_sockets_and_tls_are_refused(name: str, option: str) -> None:
    async def main() -> None:
        await getattr(asyncio.get_running_loop(), name)(
            asyncio.Protocol, "orders", 7000, **{option: object()}
        )

    with pytest.raises(Unsimulated, match=rf"^{name}\({option}="):
        run(main)


def test_a_loop_without_a_network_says_how_to_get_one() -> None:
    async def main() -> None:
        await asyncio.open_connection("orders", 7000)

    with pytest.raises(Unsimulated, match=r"loop\.network"):
        run(main)
