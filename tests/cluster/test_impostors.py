"""What a registry says is not believed: with mutual TLS no call reaches a server that has no right certificate.

Real sockets on loopback, certificates of two authorities, and real multicast: anybody on a network can say anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trustme

import rpcfw
from rpcfw import Endpoint, Registration, TlsConfig
from rpcfw.registry import MemoryRegistry, MemoryStore, Registry, open_registry
from rpcfw.transport import TcpTransport, TlsTransport, Transport
from tests.calls.place import QUIET
from tests.transport.issue import write_certificate

CALLS = 200


@rpcfw.service("tests.Vault")
class Vault:
    """Counts who came."""

    def __init__(self) -> None:
        self.calls = 0

    @rpcfw.idempotent
    async def open(self, secret: str) -> str:
        """Takes a secret."""
        self.calls += 1
        return f"opened with {secret}"


def certificate(folder: Path, authority: trustme.CA) -> TlsConfig:
    """One for 127.0.0.1, signed by an authority that is asked for on both sides."""
    folder.mkdir()
    issued = write_certificate(authority, folder, "127.0.0.1")
    return TlsConfig(issued.certificate, issued.key, issued.ca, require_client_certificate=True)


def registries(kind: str, count: int) -> Sequence[Registry]:
    """So many views of one registry."""
    if kind == "memory":
        store = MemoryStore()
        return [MemoryRegistry(store) for _ in range(count)]
    url = f"zeroconf://127.0.0.1?group=impostors-{os.getpid()}"
    return [open_registry(url) for _ in range(count)]


@contextlib.asynccontextmanager
async def offered(
    vault: Vault, listen: str, tls: TlsConfig | None, registry: Registry
) -> AsyncIterator[None]:
    """A server that is in the registry."""
    transports: dict[str, Transport] = {"tls": TlsTransport(tls), "tcp": TcpTransport()}
    async with (
        rpcfw.serve(vault, listen=listen, transports=transports, limits=QUIET) as server,
        rpcfw.register(server, registry) as membership,
    ):
        await membership.registered.wait()
        yield


@pytest.mark.both_loops
@pytest.mark.parametrize("kind", ["memory", "zeroconf"])
async def test_with_mutual_tls_no_call_reaches_an_impostor(kind: str, tmp_path: Path) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    genuine, self_made, plain = Vault(), Vault(), Vault()
    mine, liar, crook, watcher = registries(kind, 4)
    client_tls = certificate(tmp_path / "client", ours)
    async with contextlib.AsyncExitStack() as stack:
        for registry in (mine, liar, crook, watcher):
            stack.push_async_callback(registry.close)
        listen = "tls://127.0.0.1:0"
        await stack.enter_async_context(
            offered(self_made, listen, certificate(tmp_path / "liar", theirs), liar)
        )
        await stack.enter_async_context(offered(plain, "tcp://127.0.0.1:0", None, crook))
        # who listens where nobody is, and says whom to trust
        ca = tmp_path / "liar" / "ca.pem"
        nobody = Endpoint.parse(f"tls://127.0.0.1:1?ca={ca}&verify_client=0&hostname=evil&zone=x")
        await stack.enter_async_context(liar.register(Registration("tests.Vault", nobody)))
        await stack.enter_async_context(
            offered(genuine, listen, certificate(tmp_path / "server", ours), mine)
        )
        async with rpcfw.connect(watcher, transports={"tls": TlsTransport(client_tls)}) as client:
            vault = client.stub(Vault)
            await vault.open("first")
            await until_seen(client, 3)
            for _ in range(CALLS):
                assert await vault.open("secret") == "opened with secret"
            assert len(client.nodes) == 3, (
                "the two that lie are known, and never up; the plain one is passed over"
            )
    assert genuine.calls == CALLS + 1
    assert (self_made.calls, plain.calls) == (0, 0)


async def until_seen(client: rpcfw.Client, count: int) -> None:
    """Wait until the client knows of so many nodes."""
    async with asyncio.timeout(10):
        while len(client.nodes) < count:
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["memory"])
async def test_without_the_real_server_a_call_fails_rather_than_reach_an_impostor(
    kind: str, tmp_path: Path
) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    vault = Vault()
    registry, watcher = registries(kind, 2)
    client_tls = certificate(tmp_path / "client", ours)
    async with (
        offered(vault, "tls://127.0.0.1:0", certificate(tmp_path / "liar", theirs), registry),
        rpcfw.connect(
            watcher,
            transports={"tls": TlsTransport(client_tls)},
            cluster=rpcfw.ClusterOptions(wait_s=0.2),
        ) as client,
    ):
        with pytest.raises(rpcfw.RpcError, match="certificate"):
            await client.stub(Vault).open("secret")
    assert vault.calls == 0
    for each in (registry, watcher):
        await each.close()
