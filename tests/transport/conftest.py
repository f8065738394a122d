"""Certificates, and a meeting place for each transport."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from rpcfw.endpoint import Endpoint
from rpcfw.transport import MemoryTransport, TcpTransport, TlsConfig, TlsTransport, Transport, UnixTransport
from tests.transport.issue import write_certificate
from tests.transport.recorder import Meet, Meeting


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("RPCFW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"replay with RPCFW_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def both_sides(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsConfig:
    """A certificate for this host that serves as server's and as client's, and the root that signed it."""
    return write_certificate(authority, tmp_path_factory.mktemp("tls"), "localhost", "127.0.0.1", "::1")


@pytest_asyncio.fixture
async def meet() -> AsyncIterator[Meet]:
    """Makes meetings that end with the test."""
    meetings: list[Meeting] = []

    def make(transport: Transport, url: str) -> Meeting:
        meetings.append(Meeting(transport, Endpoint.parse(url)))
        return meetings[-1]

    yield make
    for meeting in meetings:
        await meeting.close()


@pytest.fixture(params=["tcp", "unix", "tls", "mem"])
def meeting(
    request: pytest.FixtureRequest,
    meet: Meet,
    both_sides: TlsConfig,
    tmp_path: Path,
) -> Meeting:
    """A meeting over each transport in turn."""
    if request.param == "tcp":
        return meet(TcpTransport(), "tcp://127.0.0.1:0")
    if request.param == "unix":
        return meet(UnixTransport(), f"unix://{tmp_path}/s")
    if request.param == "tls":
        return meet(TlsTransport(both_sides), "tls://127.0.0.1:0")
    return meet(MemoryTransport(), "mem://shop")
