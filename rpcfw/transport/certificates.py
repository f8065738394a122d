"""TLS contexts that follow their files: certificates are replaced on disk and the next handshake uses them.

Opens no sockets. The context a loop is given builds the real one for each handshake, so nothing restarts, and
connections that exist go on under the certificate they began with.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import ssl
from pathlib import Path
from typing import Any, Literal

from rpcfw.endpoint import Endpoint
from rpcfw.transport.link import Link

_log = logging.getLogger("rpcfw.transport")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

TLS_LABELS = ("ca", "cert", "key", "verify_client", "hostname")
"""The labels of an endpoint that `TlsConfig.from_endpoint` reads. They name files of one host: not for a
registry."""


@dataclasses.dataclass(frozen=True, init=False)
class TlsConfig:
    """What one side shows and whom it trusts. Files may be given as text; the attributes are paths.

    Attributes:
        certificate: PEM file of the chain this side shows, its own certificate first; a server must have one.
        key: PEM file of its private key, unencrypted; None when `certificate` holds the key too.
        ca: PEM file of the roots this side trusts; None for the system's.
        require_client_certificate: for servers: refuse clients without a certificate that `ca` signed.
        server_hostname: for clients: the name the server's certificate must hold; None for the endpoint's
            host.
    """

    certificate: Path | None
    key: Path | None
    ca: Path | None
    require_client_certificate: bool
    server_hostname: str | None

    def __init__(
        self,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        ca: Path | str | None = None,
        require_client_certificate: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        """See the attributes.

        Raises:
            TypeError: a file is neither a path nor text.
            ValueError: one thing is given without what belongs to it.
        """
        # written out, since what is taken is wider than what is kept
        for name, value in (
            ("certificate", _file("certificate", certificate)),
            ("key", _file("key", key)),
            ("ca", _file("ca", ca)),
            ("require_client_certificate", require_client_certificate),
            ("server_hostname", server_hostname),
        ):
            object.__setattr__(self, name, value)
        if self.key is not None and self.certificate is None:
            raise ValueError(f"key={str(self.key)!r} lacks its certificate: give cert= as well")
        if self.require_client_certificate and self.ca is None:
            # With the system's roots, whoever has a public web certificate would be let in.
            raise ValueError("verify_client asks for certificates of clients: say with ca= who signs them")

    @classmethod
    def from_endpoint(cls, endpoint: Endpoint) -> TlsConfig:
        """Read ``?ca=&cert=&key=&verify_client=1&hostname=``. Raises ValueError that names the endpoint."""
        labels = endpoint.labels
        verify_client = labels.get("verify_client", "0")
        if verify_client not in _SWITCH:
            raise ValueError(f"{endpoint.address}: verify_client={verify_client!r} must be 1 or 0")
        try:
            return cls(
                certificate=_path(labels.get("cert")),
                key=_path(labels.get("key")),
                ca=_path(labels.get("ca")),
                require_client_certificate=_SWITCH[verify_client],
                server_hostname=labels.get("hostname") or None,
            )
        except ValueError as error:
            raise ValueError(f"{endpoint.address}: {error}") from None


class FollowingContext(ssl.SSLContext):
    """A context for the loop that gives each handshake one built from the files as they are then.

    A change is seen by the files' inode, size and time of change, at about 1 us a file. Files that do not
    load, such as a pair half replaced, leave the last good ones in use, with a warning. A new context shares
    no sessions with the old: nobody resumes past a change of `ca`.
    """

    def __new__(cls, config: TlsConfig, side: Literal["client", "server"]) -> FollowingContext:
        """Make the shell."""
        # Itself it has no certificate and trusts nobody: used in any other way than by wrap_bio, it refuses.
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, config: TlsConfig, side: Literal["client", "server"]) -> None:
        """Load the files.

        Raises:
            OSError: a file cannot be read or used; the message names it. `ssl.SSLError` is one.
            ValueError: a server without a certificate.
        """
        if side == "server" and config.certificate is None:
            raise ValueError("a TLS server needs a certificate: give cert= and key=, PEM files")
        self._config = config
        self._side = side
        self._files = [path for path in (config.certificate, config.key, config.ca) if path is not None]
        self._loaded = self._refused = self._stamp()
        self._context = self._build()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin one handshake, with the files of now."""
        return self.follow().wrap_bio(*args, **kwargs)

    def follow(self) -> ssl.SSLContext:
        """The context of the files as they are now, or of the last ones that loaded."""
        stamp = self._stamp()  # before the files are read: what changes meanwhile is seen the next time
        if stamp != self._loaded:
            try:
                self._context = self._build()
            except (OSError, ValueError) as error:
                if stamp != self._refused:
                    _log.warning("changed certificate files are not used, the last good ones stay: %s", error)
                    self._refused = stamp
            else:
                self._loaded = self._refused = stamp
                _log.info("certificate files changed and were loaded: %s", ", ".join(map(str, self._files)))
        return self._context

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]

    def _build(self) -> ssl.SSLContext:
        config = self._config
        server = self._side == "server"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate is not None:
            _load_pair(context, config.certificate, config.key)
        if config.ca is not None:
            _load_roots(context, config.ca)
        elif not server:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if server:
            context.sslobject_class = _SayingWhy
            context.verify_mode = ssl.CERT_REQUIRED if config.require_client_certificate else ssl.CERT_NONE
        return context


class _SayingWhy(ssl.SSLObject):
    """A server's handshake that tells the client why it failed.

    The loops close at once on a failure, with the alert for the peer still unsent, and a client whose
    certificate was refused sees nothing but an end. So the first failure asks for more input, which sends
    what is waiting; the peer then closes, or the handshake's time is over.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            _log.info("a TLS handshake failed: %s", error)
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert goes out first") from error


def peer_subject(link: Link) -> str:
    """Whom the peer's verified certificate names, as ``CN=ada,O=shop``; empty without one.

    Without a subject it is the first alternative name, as ``DNS:ada.shop``.
    """
    certificate: dict[str, Any] = link.get_extra_info("peercert") or {}
    subject = [
        f"{_SHORT.get(name, name)}={_escaped(value)}"
        for part in reversed(certificate.get("subject", ()))  # RFC 4514: the most specific name first
        for name, value in part
    ]
    alternatives = [f"{kind}:{value}" for kind, value in certificate.get("subjectAltName", ())]
    return ",".join(subject) or next(iter(alternatives), "")


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


def _escaped(value: str) -> str:
    # RFC 4514, section 2.4: a comma within a name must not look like the next one.
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _path(label: str | None) -> Path | None:
    return Path(label) if label else None


def _file(name: str, given: Path | str | None) -> Path | None:
    if given is None:
        return None
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise TypeError(
            f"{name}={given!r} is not the path of a file: give one of a PEM file, such as 'ca.pem'"
        )
    return Path(given)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    names = f"certificate {certificate}" if key is None else f"certificate {certificate} with key {key}"
    _must_be_readable(certificate, *([] if key is None else [key]))
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        check = "both must be PEM, and the key that of the first certificate"
        raise OSError(errno.EINVAL, f"cannot use {names}: {error.reason or error}; {check}") from error


def _load_roots(context: ssl.SSLContext, ca: Path) -> None:
    _must_be_readable(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        reason = error.reason or error
        raise OSError(
            errno.EINVAL, f"cannot use roots {ca}: {reason}; they must be PEM certificates"
        ) from error


def _must_be_readable(*paths: Path) -> None:
    """Raise an OSError that names the file; ssl's own does not."""
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise OSError(error.errno, f"cannot read {path}: {error.strerror}; give a PEM file") from error


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, and stop the loop until someone answers.
    raise OSError(
        errno.EINVAL, "the private key is encrypted: give it unencrypted, readable by this user only"
    )
