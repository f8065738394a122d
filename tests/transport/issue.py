"""Certificates on disk for tests, written the way a careful administrator replaces them."""

from __future__ import annotations

import os
from pathlib import Path

import trustme

from rpcfw.transport import TlsConfig


def write_certificate(authority: trustme.CA, folder: Path, *names: str) -> TlsConfig:
    """Issue a certificate and put it, its key and its root into a folder, over those that lie there."""
    issued = authority.issue_cert(*names, common_name=names[0])
    config = TlsConfig(certificate=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem")
    assert config.certificate
    assert config.key
    assert config.ca
    put(config.certificate, b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    put(config.key, issued.private_key_pem.bytes())
    put(config.ca, authority.cert_pem.bytes())
    return config


def put(path: Path, content: bytes) -> None:
    """Replace a file at once, as `mv` does: the clock may be too coarse to tell two writes apart."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
