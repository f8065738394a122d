"""Name servers for tests, on loopback: one in this process that can fail at will, and dnsmasq where it is installed.

Both are told their records as texts and know nothing of registries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.registry.servers import free_port

DNSMASQ = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
Record = tuple[str, str, str]
"""Name, kind and value: ``("a.test", "A", "127.0.0.1")``, ``("_o._tcp.test", "SRV", "10 60 7000 a.test.")``."""


class NameServer(Protocol):
    """Answers for ``test``."""

    port: int

    async def serve(self, records: Iterable[Record]) -> None:
        """Answer with these from now on, and no others."""


class OwnNameServer:
    """A name server in this process. Questions for a name in `failing` get SERVFAIL, those in `silent` no answer."""

    def __init__(self) -> None:
        self.port = 0
        self.ttl_s = 1
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.over_tcp = 0
        self._records: dict[str, dict[str, list[str]]] = {}

    async def serve(self, records: Iterable[Record]) -> None:
        self._records = {}
        for name, kind, value in records:
            self._records.setdefault(name, {}).setdefault(kind, []).append(value)

    def answer(self, data: bytes) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self._records:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif values := self._records[name].get(kind):
            response.answer.append(dns.rrset.from_text_list(question.name, self.ttl_s, "IN", kind, values))
        return response.to_wire(max_size=65_535)

    async def over_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            self.over_tcp += 1
            answer = self.answer(await reader.readexactly(length))
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: OwnNameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data)
        if answer is None or self._transport is None:
            return
        if len(answer) > 1232:
            short = dns.message.make_response(dns.message.from_wire(data))
            short.flags |= dns.flags.TC
            answer = short.to_wire()
        self._transport.sendto(answer, addr)


@contextlib.asynccontextmanager
async def own_name_server() -> AsyncIterator[OwnNameServer]:
    server = OwnNameServer()
    loop = asyncio.get_running_loop()
    streams = await asyncio.start_server(server.over_stream, "127.0.0.1", 0)
    server.port = streams.sockets[0].getsockname()[1]
    datagrams, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        datagrams.close()
        streams.close()
        await streams.wait_closed()


class Dnsmasq:
    """The dnsmasq of this machine, with nothing above it. A change of records starts it anew."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._serial = 0

    async def serve(self, records: Iterable[Record]) -> None:
        await self.stop()
        self._serial += 1
        lines = [f"host-record=serial-{self._serial}.test,127.0.0.1"]
        hosts: dict[str, list[str]] = {}
        for name, kind, value in records:
            if kind == "SRV":
                priority, weight, port, target = value.split()
                lines.append(f"srv-host={name},{target.removesuffix('.')},{port},{priority},{weight}")
            else:
                hosts.setdefault(name, []).append(value)
        (self._folder / "hosts").write_text(
            "".join(f"{address} {name}\n" for name, addresses in hosts.items() for address in addresses)
        )
        config = self._folder / "dnsmasq.conf"
        config.write_text("\n".join(lines) + "\n")
        assert DNSMASQ is not None
        self._process = await asyncio.create_subprocess_exec(
            DNSMASQ,
            "--keep-in-foreground",
            f"--conf-file={config}",
            f"--addn-hosts={self._folder / 'hosts'}",
            f"--port={self.port}",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--local=/test/",
            "--local-ttl=1",
            "--pid-file=",
            f"--user={pwd.getpwuid(os.getuid()).pw_name}",
            f"--log-facility={self._folder / 'log'}",
        )
        await self._until_ready()

    async def _until_ready(self) -> None:
        query = dns.message.make_query(f"serial-{self._serial}.test", "A")
        while True:
            assert self._process is not None
            if self._process.returncode is not None:
                raise AssertionError(f"dnsmasq ended: {(self._folder / 'log').read_text()}")
            with contextlib.suppress(dns.exception.DNSException, OSError):
                answer = await dns.asyncquery.udp(query, "127.0.0.1", port=self.port, timeout=0.05)
                if answer.answer:
                    return

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def dnsmasq(folder: Path) -> AsyncIterator[Dnsmasq]:
    server = Dnsmasq(folder)
    try:
        await server.serve([])
        yield server
    finally:
        await server.stop()
