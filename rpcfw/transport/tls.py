"""TLS and mutual TLS over TCP: the loop's own transports, with contexts that follow their files.

Clients always verify the server's name. How certificates are read and replaced lives in `certificates`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from types import MappingProxyType

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport.certificates import TLS_LABELS, FollowingContext, TlsConfig
from rpcfw.transport.failure import unreachable
from rpcfw.transport.link import Link, Listener, ReceiverFactory
from rpcfw.transport.opening import open_link
from rpcfw.transport.tcp import ServerSockets

_UNTRUSTED = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes for a chain that ends at no root of ours: unknown or self-signed issuers."""


class TlsTransport:
    """Links over TLS 1.2 or newer.

    With TLS 1.3 a client is connected before the server has judged its certificate: a refusal arrives as
    connection_lost with an `ssl.SSLError`, which `rpcfw.transport.unreachable` puts into words.
    """

    def __init__(
        self,
        config: TlsConfig | None = None,
        *,
        reuse_port: bool = False,
        backlog: int = 1024,
        connect_timeout_s: float = 3.0,
        handshake_timeout_s: float = 5.0,
    ) -> None:
        """Set what every link shares.

        Args:
            config: certificates and trust of every endpoint; the endpoints' labels then say nothing about
                TLS, so that a registry cannot change whom to trust. None reads each endpoint's labels.
            reuse_port: let several processes listen on one port; the system shares the links out among them.
            backlog: links the system keeps ready until they are accepted.
            connect_timeout_s: seconds for name lookup, connect and handshake together.
            handshake_timeout_s: seconds a server gives a client for its handshake.
        """
        self._config = config
        self._reuse_port = reuse_port
        self._backlog = backlog
        self._connect_timeout_s = connect_timeout_s
        self._handshake_timeout_s = handshake_timeout_s
        self._client_contexts: dict[TlsConfig, FollowingContext] = {}

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Open a link and verify the server."""
        loop = asyncio.get_running_loop()
        try:
            config = self._config or TlsConfig.from_endpoint(endpoint)
            context = self._client_context(config)
        except (OSError, ValueError) as error:
            message = f"cannot connect to {endpoint.address}: {_reason(error)}"
            raise RpcError(Code.FAILED_PRECONDITION, message, origin=Origin.LOCAL, executed=False) from error
        # a registry over a network cannot say this label (rpcfw.registry.public); DNS and files of this host can
        hostname = config.server_hostname or endpoint.labels.get("hostname") or endpoint.host

        async def dial(factory: ReceiverFactory) -> tuple[asyncio.Transport, object]:
            try:
                return await loop.create_connection(
                    factory, endpoint.host, endpoint.port, ssl=context, server_hostname=hostname
                )
            except ssl.SSLCertVerificationError as error:
                raise unreachable(endpoint, error, self._trust_check(error.verify_code)) from error

        return await open_link(endpoint, self._connect_timeout_s, receiver, dial)

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Accept links; connection_made follows the handshake.

        The listener's endpoint is without the labels that name files of this host.
        """
        config = self._config or TlsConfig.from_endpoint(endpoint)
        try:
            context = FollowingContext(config, "server")
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {endpoint.address}: {_reason(error)}") from error
        sockets = ServerSockets(self._reuse_port, self._backlog, context, self._handshake_timeout_s)
        public = {name: value for name, value in endpoint.labels.items() if name not in TLS_LABELS}
        return await sockets.listen(dataclasses.replace(endpoint, labels=MappingProxyType(public)), receiver)

    def _trust_check(self, verify_code: int) -> str | None:
        """The mend where nobody who is trusted here signed the certificate; None for what else is wrong with it."""
        if verify_code not in _UNTRUSTED:
            return None
        if self._config is not None:
            return "say with TlsConfig(ca=...) which root signed it"
        return (
            "say with ca= in its URL which root signed it; where a registry gives the address, with --ca, "
            'transports={"tls": TlsTransport(TlsConfig(ca=...))}, or SSL_CERT_FILE of the environment'
        )

    def _client_context(self, config: TlsConfig) -> FollowingContext:
        # One per set of files: the system's roots take some 20 ms to load.
        files = dataclasses.replace(config, server_hostname=None)
        context = self._client_contexts.get(files)
        if context is None:
            context = self._client_contexts[files] = FollowingContext(files, "client")
        return context


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
