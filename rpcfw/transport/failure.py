"""Failures to connect and to listen, told for a person: which endpoint, what happened, what to check.

The one boundary where errors of sockets and TLS become ours. Codes follow gRPC: whatever an attempt elsewhere
or later may mend is UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError

_CONNECT_CHECKS = {
    errno.ECONNREFUSED: "check that the server runs and listens exactly there",
    errno.ENOENT: "no such socket file: check the path and that the server runs",
    errno.EACCES: "check the permissions of the socket file and its folders",
    errno.EPERM: "check the permissions of the socket file, or the firewall of this host",
    errno.ENETUNREACH: "check the address and this host's routes",
    errno.EHOSTUNREACH: "check the address and this host's routes",
    errno.ETIMEDOUT: "check the address, and that no firewall drops packets to it",
    errno.EMFILE: "this process has too many open files: raise `ulimit -n` or close links",
    errno.EAGAIN: "the server accepts too slowly: raise its backlog, or try again",
}
_LISTEN_CHECKS = {
    errno.EADDRINUSE: "another server has it: stop that one, or choose another address (port 0: any free one)",
    errno.EADDRNOTAVAIL: "not an address of this host: use 127.0.0.1, 0.0.0.0 or one that `ip addr` shows",
    errno.EACCES: "ports below 1024 need privileges, a socket file needs a folder this user may write",
    errno.ENOENT: "the folder does not exist: create it first",
    errno.EMFILE: "this process has too many open files: raise `ulimit -n`",
}
_NAME_CHECK = "check the spelling of the host name and this host's resolver"
_DEFAULT_CHECK = "check the address and that the server runs"
_HOSTNAME_MISMATCH, _IP_MISMATCH = 62, 64  # X509_V_ERR_* of OpenSSL
_EXPIRED, _NOT_YET_VALID = 10, 9


def unreachable(endpoint: Endpoint, error: BaseException, check: str | None = None) -> RpcError:
    """The error of a link that could not be made, or that TLS refused right after; raise it `from` that."""
    what = _system_says(error)
    message = f"cannot connect to {endpoint.address}: {what}; {check or _connect_check(error)}"
    details = {"endpoint": endpoint.address}
    return RpcError(Code.UNAVAILABLE, message, details, origin=Origin.CONNECTION, executed=False)


def unlistenable(endpoint: Endpoint, error: OSError | UnicodeError, check: str | None = None) -> OSError:
    """The error of an address that cannot be listened on, with the original's errno; raise it `from` that."""
    number = None if isinstance(error, (socket.gaierror, UnicodeError)) else error.errno
    if check is None:
        check = _NAME_CHECK if number is None else _LISTEN_CHECKS.get(number, "check the address")
    message = f"cannot listen on {endpoint.address}: {_system_says(error)}; {check}"
    return OSError(message) if number is None else OSError(number, message)


@asynccontextmanager
async def connecting(endpoint: Endpoint, timeout_s: float) -> AsyncIterator[None]:
    """Bound the body, which opens one link, by `timeout_s` seconds and translate its failures."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise unreachable(endpoint, error) from error
        late = TimeoutError(f"no answer within {timeout_s:g} s")
        raise unreachable(endpoint, late, _CONNECT_CHECKS[errno.ETIMEDOUT]) from error
    except (OSError, UnicodeError) as error:
        raise unreachable(endpoint, error) from error


def _system_says(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    if isinstance(error, UnicodeError):
        return f"the host name cannot be looked up ({error})"
    if _is_end_of_handshake(error):
        return "the server closed the link during the TLS handshake"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _connect_check(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_check(error.verify_code)
    if isinstance(error, ssl.SSLError):
        return _handshake_check(error.reason or "")
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return _NAME_CHECK
    if _is_end_of_handshake(error):
        return "check that the server speaks TLS on this port, and its log"
    if isinstance(error, OSError) and error.errno in _CONNECT_CHECKS:
        return _CONNECT_CHECKS[error.errno]
    return _DEFAULT_CHECK


def _is_end_of_handshake(error: BaseException) -> bool:
    # Both loops make this error themselves, with neither number nor text.
    return isinstance(error, ConnectionResetError) and not error.args


def _certificate_check(verify_code: int) -> str:
    if verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return "connect by a name the certificate holds, or say which with hostname="
    if verify_code in (_EXPIRED, _NOT_YET_VALID):
        return "renew the server's certificate, and check both clocks"
    return "say with ca=, or TlsConfig(ca=...), which root signed it"


def _handshake_check(reason: str) -> str:
    if "ALERT" in reason:
        return "the server refused this side: give cert= and key= signed by an authority it trusts"
    return "check that the server speaks TLS on this port; without TLS the address starts with tcp://"
