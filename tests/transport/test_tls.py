"""TLS: who is let in, what a refusal says, and certificates that are replaced while the server runs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from pathlib import Path
from types import MappingProxyType

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport import TcpTransport, TlsConfig, TlsTransport, peer_subject, unreachable
from rpcfw.transport.certificates import FollowingContext
from tests.transport.issue import put, write_certificate
from tests.transport.recorder import Meet, Recorder, link_of

pytestmark = pytest.mark.both_loops

ANY_PORT = "tls://127.0.0.1:0"


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path) -> TlsConfig:
    """A server's certificate of its own, in files that a test may replace."""
    folder = tmp_path / "server"
    folder.mkdir()
    return write_certificate(authority, folder, "localhost", "127.0.0.1")


@pytest.fixture
def ada(authority: trustme.CA, tmp_path: Path) -> TlsConfig:
    """A client's certificate, in files that a test may replace."""
    folder = tmp_path / "ada"
    folder.mkdir()
    return write_certificate(authority, folder, "ada.shop")


def mutual(config: TlsConfig) -> TlsConfig:
    return dataclasses.replace(config, require_client_certificate=True)


def trusting(config: TlsConfig) -> TlsConfig:
    """A client that shows nothing and trusts that config's root."""
    return TlsConfig(ca=config.ca)


def serial(end: Recorder) -> str:
    return str(link_of(end).get_extra_info("peercert")["serialNumber"])


async def refusal(transport: TlsTransport, endpoint: Endpoint) -> RpcError:
    """How a client learns that the server refused it: while connecting, or with TLS 1.3 right after."""
    client = Recorder()
    try:
        await transport.connect(endpoint, lambda: client)
    except RpcError as error:
        return error
    lost = await client.lost
    assert not client.received
    assert isinstance(lost, ssl.SSLError)
    return unreachable(endpoint, lost)


async def test_mutual_tls_tells_each_side_who_the_other_is(
    meet: Meet, server: TlsConfig, ada: TlsConfig
) -> None:
    meeting = meet(TlsTransport(mutual(server)), ANY_PORT)
    await meeting.listen()
    meeting.transport = TlsTransport(ada)
    client, accepted = await meeting.pair()
    assert peer_subject(link_of(accepted)).startswith("CN=ada.shop")
    assert peer_subject(link_of(client)).startswith("CN=localhost")
    assert link_of(client).get_extra_info("ssl_object").version() == "TLSv1.3"
    link_of(client).write(b"x")
    await accepted.until_received(1)


async def test_a_client_without_certificate_is_nobody_to_a_server_that_asks_for_none(
    meet: Meet, server: TlsConfig
) -> None:
    meeting = meet(TlsTransport(server), ANY_PORT)
    await meeting.listen()
    meeting.transport = TlsTransport(trusting(server))
    _, accepted = await meeting.pair()
    assert peer_subject(link_of(accepted)) == ""


@pytest.mark.parametrize("shows", ["nothing", "a stranger's certificate"])
async def test_mutual_tls_refuses_a_client_that_shows(
    shows: str, meet: Meet, server: TlsConfig, tmp_path: Path
) -> None:
    meeting = meet(TlsTransport(mutual(server)), ANY_PORT)
    endpoint = await meeting.listen()
    client = trusting(server)
    if shows != "nothing":
        stranger = write_certificate(trustme.CA(), tmp_path, "stranger")
        client = dataclasses.replace(stranger, ca=server.ca)
    error = await refusal(TlsTransport(client), endpoint)
    assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, False)
    assert "give cert= and key= signed by an authority it trusts" in error.message
    assert meeting.servers == []


async def test_a_client_refuses_a_server_of_another_authority(
    meet: Meet, server: TlsConfig, tmp_path: Path
) -> None:
    meeting = meet(TlsTransport(server), ANY_PORT)
    endpoint = await meeting.listen()
    other = write_certificate(trustme.CA(), tmp_path, "other")
    with pytest.raises(
        RpcError, match=r"certificate was refused: .*; say with TlsConfig\(ca=\.\.\.\) which"
    ) as caught:
        await TlsTransport(trusting(other)).connect(endpoint, Recorder)
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(RpcError, match=r"say with TlsConfig\(ca=\.\.\.\) which root"):
        await TlsTransport(TlsConfig()).connect(endpoint, Recorder)  # the system's roots
    with pytest.raises(RpcError, match=r"with ca= in its URL .*; where a registry gives .* TlsTransport\("):
        await TlsTransport().connect(endpoint, Recorder)


async def test_a_client_refuses_a_server_with_another_name_unless_told_to_expect_it(
    meet: Meet, authority: trustme.CA, tmp_path: Path
) -> None:
    orders = write_certificate(authority, tmp_path, "orders.shop")
    meeting = meet(TlsTransport(orders), ANY_PORT)
    endpoint = await meeting.listen()
    with pytest.raises(RpcError, match=r"127\.0\.0\.1.*connect by a name the certificate holds"):
        await TlsTransport(trusting(orders)).connect(endpoint, Recorder)
    wrong = dataclasses.replace(trusting(orders), server_hostname="users.shop")
    with pytest.raises(RpcError, match=r"users\.shop.*connect by a name the certificate holds"):
        await TlsTransport(wrong).connect(endpoint, Recorder)
    meeting.transport = TlsTransport(dataclasses.replace(trusting(orders), server_hostname="orders.shop"))
    await meeting.pair()


async def test_a_replaced_server_certificate_serves_the_next_link_and_old_links_go_on(
    meet: Meet, server: TlsConfig, authority: trustme.CA
) -> None:
    meeting = meet(TlsTransport(server), ANY_PORT)
    old, accepted = await meeting.pair()
    assert serial(await meeting.connect()) == serial(old)
    assert server.certificate
    write_certificate(authority, server.certificate.parent, "localhost", "127.0.0.1")
    new = await meeting.connect()
    assert serial(new) != serial(old)
    link_of(old).write(b"still here")
    assert await accepted.until_received(10) == b"still here"


async def test_a_replaced_client_certificate_is_shown_to_the_next_server(
    meet: Meet, server: TlsConfig, ada: TlsConfig, authority: trustme.CA
) -> None:
    meeting = meet(TlsTransport(mutual(server)), ANY_PORT)
    await meeting.listen()
    meeting.transport = TlsTransport(ada)
    _, before = await meeting.pair()
    assert ada.certificate
    write_certificate(authority, ada.certificate.parent, "ada.shop")
    _, after = await meeting.pair()
    assert serial(before) != serial(after)


async def test_a_replaced_list_of_client_authorities_judges_the_next_client(
    meet: Meet, server: TlsConfig, ada: TlsConfig, tmp_path: Path
) -> None:
    roots = tmp_path / "clients.pem"
    assert server.ca
    put(roots, server.ca.read_bytes())
    meeting = meet(TlsTransport(mutual(dataclasses.replace(server, ca=roots))), ANY_PORT)
    endpoint = await meeting.listen()
    meeting.transport = TlsTransport(ada)
    await meeting.pair()

    newcomers = trustme.CA()
    put(roots, newcomers.cert_pem.bytes())
    assert "signed by an authority it trusts" in (await refusal(TlsTransport(ada), endpoint)).message
    eve = write_certificate(newcomers, tmp_path, "eve.shop")
    meeting.transport = TlsTransport(dataclasses.replace(eve, ca=server.ca))
    _, accepted = await meeting.pair()
    assert peer_subject(link_of(accepted)).startswith("CN=eve.shop")


async def test_a_pair_half_replaced_leaves_the_old_one_in_use_and_warns_once(
    meet: Meet,
    server: TlsConfig,
    authority: trustme.CA,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    meeting = meet(TlsTransport(server), ANY_PORT)
    await meeting.listen()
    meeting.transport = TlsTransport(trusting(server))
    old, _ = await meeting.pair()
    fresh = write_certificate(authority, tmp_path, "localhost", "127.0.0.1")
    assert server.certificate
    assert server.key
    assert fresh.certificate
    assert fresh.key
    put(server.certificate, fresh.certificate.read_bytes())
    with caplog.at_level(logging.WARNING, "rpcfw.transport"):
        for _ in range(3):
            assert serial(await meeting.connect()) == serial(old)
    [warning] = caplog.records
    assert f"certificate {server.certificate} with key {server.key}" in warning.getMessage()
    assert "KEY_VALUES_MISMATCH" in warning.getMessage()

    put(server.key, fresh.key.read_bytes())
    assert serial(await meeting.connect()) != serial(old)

    caplog.clear()
    replaced = serial(await meeting.connect())
    server.key.unlink()
    assert serial(await meeting.connect()) == replaced
    assert f"cannot read {server.key}" in caplog.text


async def test_an_endpoint_may_say_everything_in_its_labels(
    meet: Meet, server: TlsConfig, ada: TlsConfig
) -> None:
    url = f"{ANY_PORT}?cert={server.certificate}&key={server.key}&ca={server.ca}&verify_client=1&zone=a"
    meeting = meet(TlsTransport(), url)
    endpoint = await meeting.listen()
    assert endpoint.labels == {"zone": "a"}  # what is registered names no file of the server's host
    labels = {"cert": str(ada.certificate), "key": str(ada.key), "ca": str(ada.ca), "hostname": "localhost"}
    endpoint = dataclasses.replace(endpoint, labels=MappingProxyType(labels))
    client = await meeting.connect(endpoint)
    accepted = await meeting.accept()
    assert peer_subject(link_of(client)).startswith("CN=localhost")
    assert peer_subject(link_of(accepted)).startswith("CN=ada.shop")


async def test_files_may_be_given_as_text(meet: Meet, server: TlsConfig) -> None:
    meeting = meet(TlsTransport(TlsConfig(str(server.certificate), str(server.key))), ANY_PORT)
    await meeting.listen()
    config = TlsConfig(ca=str(server.ca))
    assert config == trusting(server)
    meeting.transport = TlsTransport(config)
    await meeting.pair()


async def test_labels_do_not_change_whom_a_configured_transport_trusts(
    meet: Meet, server: TlsConfig, tmp_path: Path
) -> None:
    false_authority = trustme.CA()
    false_server = write_certificate(false_authority, tmp_path, "localhost", "127.0.0.1")
    meeting = meet(TlsTransport(false_server), ANY_PORT)
    endpoint = await meeting.listen()
    labels = MappingProxyType({"ca": str(false_server.ca), "hostname": "localhost"})
    false_endpoint = dataclasses.replace(endpoint, labels=labels)
    with pytest.raises(RpcError, match="certificate was refused"):
        await TlsTransport(trusting(server)).connect(false_endpoint, Recorder)


async def test_a_server_that_does_not_speak_tls_is_told_by_name(meet: Meet, server: TlsConfig) -> None:
    class Talker(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            link_of(self).write(b"220 welcome\r\n")

    talker = Talker()
    listener = await TcpTransport().listen(Endpoint.parse("tcp://127.0.0.1:0"), lambda: talker)
    endpoint = dataclasses.replace(listener.endpoint, scheme="tls")
    with pytest.raises(RpcError, match="without TLS the address starts with tcp://") as caught:
        await TlsTransport(trusting(server)).connect(endpoint, Recorder)
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    await talker.lost
    listener.close()


async def test_a_server_that_hangs_up_in_the_handshake_is_told_so(server: TlsConfig) -> None:
    class Curt(Recorder):
        def buffer_updated(self, nbytes: int) -> None:
            link_of(self).close()

    curt = Curt()
    listener = await TcpTransport().listen(Endpoint.parse("tcp://127.0.0.1:0"), lambda: curt)
    endpoint = dataclasses.replace(listener.endpoint, scheme="tls")
    said = "the server closed the link during the TLS handshake; check that the server speaks TLS"
    with pytest.raises(RpcError, match=said):
        await TlsTransport(trusting(server)).connect(endpoint, Recorder)
    await curt.lost
    listener.close()


async def test_a_server_silent_in_the_handshake_ends_the_connect_in_time(server: TlsConfig) -> None:
    silent = Recorder()
    listener = await TcpTransport().listen(Endpoint.parse("tcp://127.0.0.1:0"), lambda: silent)
    endpoint = dataclasses.replace(listener.endpoint, scheme="tls")
    client = Recorder()
    transport = TlsTransport(trusting(server), connect_timeout_s=0.02)
    with pytest.raises(RpcError, match=r"no answer within 0\.02 s") as caught:
        await transport.connect(endpoint, lambda: client)
    assert caught.value.code is Code.UNAVAILABLE
    assert client.link is None
    await silent.lost
    listener.close()


async def test_a_connect_cancelled_in_the_handshake_closes_its_socket(server: TlsConfig) -> None:
    silent = Recorder()
    listener = await TcpTransport().listen(Endpoint.parse("tcp://127.0.0.1:0"), lambda: silent)
    endpoint = dataclasses.replace(listener.endpoint, scheme="tls")
    connecting = asyncio.create_task(TlsTransport(trusting(server)).connect(endpoint, Recorder))
    await silent.until_received(1)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await silent.lost
    listener.close()


async def test_a_client_silent_in_the_handshake_is_dropped_in_time(meet: Meet, server: TlsConfig) -> None:
    meeting = meet(TlsTransport(server, handshake_timeout_s=0.02), ANY_PORT)
    endpoint = await meeting.listen()
    silent = Recorder()
    await TcpTransport().connect(dataclasses.replace(endpoint, scheme="tcp"), lambda: silent)
    await silent.lost
    assert meeting.servers == []


async def test_files_that_cannot_be_used_are_told_by_name(server: TlsConfig, tmp_path: Path) -> None:
    listen_at = Endpoint.parse(ANY_PORT)
    missing = tmp_path / "missing.pem"
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for config, said in (
        (dataclasses.replace(server, key=missing), f"cannot read {missing}: No such file"),
        (dataclasses.replace(server, certificate=broken), f"cannot use certificate {broken} with key"),
        (dataclasses.replace(server, ca=broken), f"cannot use roots {broken}"),
    ):
        with pytest.raises(OSError, match=f"cannot listen on tls://127.0.0.1:0: {said}"):
            await TlsTransport(config).listen(listen_at, Recorder)
        with pytest.raises(RpcError, match=f"cannot connect to tls://127.0.0.1:0: {said}") as caught:
            await TlsTransport(config).connect(listen_at, Recorder)
        assert (caught.value.code, caught.value.origin) == (Code.FAILED_PRECONDITION, Origin.LOCAL)
        assert caught.value.executed is False


async def test_an_encrypted_key_is_refused_and_asks_nobody_for_its_password(server: TlsConfig) -> None:
    assert server.key
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    put(server.key, encrypted)
    with pytest.raises(OSError, match="the private key is encrypted: give it unencrypted"):
        await TlsTransport(server).listen(Endpoint.parse(ANY_PORT), Recorder)


async def test_a_used_port_is_told_as_without_tls(meet: Meet, server: TlsConfig) -> None:
    endpoint = await meet(TlsTransport(server), ANY_PORT).listen()
    with pytest.raises(OSError, match=f"cannot listen on {endpoint.address}: address already in use"):
        await TlsTransport(server).listen(endpoint, Recorder)


@pytest.mark.one_loop
async def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match=r"key='k\.pem' lacks its certificate: give cert="):
        TlsConfig(key=Path("k.pem"))
    with pytest.raises(TypeError, match=r"ca=b'ca\.pem' is not the path of a file"):
        TlsConfig(ca=b"ca.pem")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="say with ca= who signs them"):
        TlsConfig(require_client_certificate=True)
    with pytest.raises(ValueError, match=r"tls://h:1: verify_client='maybe' must be 1 or 0"):
        TlsConfig.from_endpoint(Endpoint.parse("tls://h:1?verify_client=maybe"))
    with pytest.raises(ValueError, match=r"tls://h:1: key='k' lacks its certificate"):
        TlsConfig.from_endpoint(Endpoint.parse("tls://h:1?key=k"))
    with pytest.raises(ValueError, match="a TLS server needs a certificate: give cert= and key="):
        await TlsTransport().listen(Endpoint.parse(ANY_PORT), Recorder)
    with pytest.raises(RpcError, match="tls://h:1: verify_client='maybe'") as caught:
        await TlsTransport().connect(Endpoint.parse("tls://h:1?verify_client=maybe"), Recorder)
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_contexts_verify_names_and_refuse_what_is_older_than_tls_1_2(both_sides: TlsConfig) -> None:
    client = FollowingContext(both_sides, "client").follow()
    assert client.check_hostname
    assert client.verify_mode is ssl.CERT_REQUIRED
    server = FollowingContext(mutual(both_sides), "server").follow()
    assert server.verify_mode is ssl.CERT_REQUIRED
    assert client.minimum_version == server.minimum_version == ssl.TLSVersion.TLSv1_2


def test_unchanged_files_are_not_read_again(both_sides: TlsConfig) -> None:
    context = FollowingContext(both_sides, "server")
    assert context.follow() is context.follow()
