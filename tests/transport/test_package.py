"""The package as its users import it."""

from __future__ import annotations

from rpcfw.transport import default_transports


def test_the_default_transports_are_fresh_and_cover_every_stream_scheme() -> None:
    first, second = default_transports(), default_transports()
    assert set(first) == {"tcp", "tls", "unix", "mem"}
    assert all(first[scheme] is not second[scheme] for scheme in first)
