"""Unix sockets: what happens to the file, and to whatever lies in its place."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, Origin, RpcError
from rpcfw.transport import UnixTransport
from rpcfw.transport.unix import MAX_PATH_BYTES
from tests.transport.issue import put
from tests.transport.recorder import Meet, Recorder

pytestmark = pytest.mark.both_loops


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


def exists(path: Path) -> bool:
    return os.path.lexists(path)


def leave_stale_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


async def test_the_file_is_there_while_listening_and_removed_on_close(meet: Meet, path: Path) -> None:
    meeting = meet(UnixTransport(), f"unix://{path}")
    await meeting.listen()
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert meeting.listener is not None
    meeting.listener.close()
    assert not exists(path)


async def test_the_file_of_a_dead_server_is_replaced(meet: Meet, path: Path) -> None:
    leave_stale_file(path)
    await meet(UnixTransport(), f"unix://{path}").pair()


async def test_the_file_of_a_living_server_is_left_to_it(meet: Meet, path: Path) -> None:
    meeting = meet(UnixTransport(), f"unix://{path}")
    endpoint = await meeting.listen()
    file = os.stat(path).st_ino
    with pytest.raises(OSError, match="address already in use; another server has it: stop that one"):
        await UnixTransport().listen(endpoint, Recorder)
    assert os.stat(path).st_ino == file
    await meeting.connect()


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    put(path, b"precious")
    with pytest.raises(OSError, match="file exists; what lies there is not a socket: choose another path"):
        await UnixTransport().listen(Endpoint.parse(f"unix://{path}"), Recorder)
    assert os.stat(path).st_size == len(b"precious")


async def test_close_leaves_the_file_of_a_server_that_took_the_place(meet: Meet, path: Path) -> None:
    meeting = meet(UnixTransport(), f"unix://{path}")
    await meeting.listen()
    os.rename(path, path.with_suffix(".old"))
    leave_stale_file(path)
    assert meeting.listener is not None
    meeting.listener.close()
    assert exists(path)


async def test_the_permissions_of_the_file_can_be_chosen(meet: Meet, path: Path) -> None:
    def permissions() -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    endpoint = Endpoint.parse(f"unix://{path}")
    for transport, url, mode in (
        (UnixTransport(mode=0o600), endpoint, 0o600),
        (UnixTransport(mode=0o600), Endpoint.parse(f"{endpoint}?mode=666"), 0o666),
    ):
        listener = await transport.listen(url, Recorder)
        assert permissions() == mode
        listener.close()
    for label in ("rw-rw----", "888", "7777", "-1"):
        with pytest.raises(ValueError, match=f"mode='{label}' must be permissions in octal, such as 660"):
            await UnixTransport().listen(Endpoint.parse(f"{endpoint}?mode={label}"), Recorder)
    assert not exists(path)


async def test_a_missing_folder_is_named_with_the_mend(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix://{tmp_path}/missing/shop.sock")
    with pytest.raises(OSError, match="no such file or directory; the folder does not exist: create it"):
        await UnixTransport().listen(endpoint, Recorder)


async def test_a_path_longer_than_the_system_allows_is_refused_by_its_length(tmp_path: Path) -> None:
    longest = f"{tmp_path}/".ljust(MAX_PATH_BYTES, "x")
    listener = await UnixTransport().listen(Endpoint.parse(f"unix://{longest}"), Recorder)
    listener.close()

    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="too long"):
        probe.bind(f"{longest}x")

    endpoint = Endpoint.parse(f"unix://{longest}x")
    said = f"at most {MAX_PATH_BYTES} bytes here, this one {MAX_PATH_BYTES + 1}; choose a shorter one"
    with pytest.raises(OSError, match=said) as in_listen:
        await UnixTransport().listen(endpoint, Recorder)
    assert in_listen.value.errno == errno.ENAMETOOLONG
    with pytest.raises(RpcError, match=said) as in_connect:
        await UnixTransport().connect(endpoint, Recorder)
    assert (in_connect.value.code, in_connect.value.origin) == (Code.INVALID_ARGUMENT, Origin.LOCAL)


async def test_connecting_to_no_file_or_to_a_stale_one_says_which(path: Path) -> None:
    endpoint = Endpoint.parse(f"unix://{path}")
    said = re.escape(f"cannot connect to {endpoint}: ")
    with pytest.raises(RpcError, match=said + "no such file or directory; no such socket file: check the"):
        await UnixTransport().connect(endpoint, Recorder)
    leave_stale_file(path)
    with pytest.raises(RpcError, match=said + "connection refused; check that the server runs"):
        await UnixTransport().connect(endpoint, Recorder)


async def test_a_server_that_accepts_too_slowly_is_an_error_and_not_a_dead_link(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
        listening.bind(str(path))
        listening.listen(0)
        waiting.connect(str(path))
        client = Recorder()
        with pytest.raises(RpcError, match="the server accepts too slowly: raise its backlog") as caught:
            await UnixTransport().connect(Endpoint.parse(f"unix://{path}"), lambda: client)
        assert caught.value.code is Code.UNAVAILABLE
        if client.link is not None:
            await client.lost
