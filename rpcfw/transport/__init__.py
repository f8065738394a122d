"""Streams of bytes on the running loop (tcp, tls, unix, memory) and datagrams beside them.

Nothing here knows of frames. Importing it opens nothing.
"""

from __future__ import annotations

from rpcfw.transport.certificates import TLS_LABELS, TlsConfig, peer_subject
from rpcfw.transport.datagram import (
    MAX_DATAGRAM_BYTES,
    DatagramLink,
    DatagramListener,
    DatagramReceiverFactory,
    DatagramTransport,
)
from rpcfw.transport.failure import unlistenable, unreachable
from rpcfw.transport.link import Link, Listener, Receiver, ReceiverFactory, Transport
from rpcfw.transport.memory import MemoryTransport
from rpcfw.transport.tcp import TcpTransport
from rpcfw.transport.tls import TlsTransport
from rpcfw.transport.unix import UnixTransport
from rpcfw.transport.vectored import VectoredWrite, vectored_write

__all__ = [
    "MAX_DATAGRAM_BYTES",
    "TLS_LABELS",
    "DatagramLink",
    "DatagramListener",
    "DatagramReceiverFactory",
    "DatagramTransport",
    "Link",
    "Listener",
    "MemoryTransport",
    "Receiver",
    "ReceiverFactory",
    "TcpTransport",
    "TlsConfig",
    "TlsTransport",
    "Transport",
    "UnixTransport",
    "VectoredWrite",
    "default_transports",
    "peer_subject",
    "unlistenable",
    "unreachable",
    "vectored_write",
]


def default_transports() -> dict[str, Transport]:
    """A fresh stream transport for each scheme; two ends that meet over ``mem://`` must share one such
    dict.
    """
    return {"tcp": TcpTransport(), "tls": TlsTransport(), "unix": UnixTransport(), "mem": MemoryTransport()}
