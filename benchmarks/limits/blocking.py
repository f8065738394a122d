"""Blocking sockets, no loop: payloads of 1 MiB into memory that is there already."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from benchmarks.drive import keep_threads_busy
from benchmarks.subject import LARGE_BYTES, Sample, Subject, Task, Workload

_DOWNLOAD, _UPLOAD = b"d", b"u"
_RECEIVED = LARGE_BYTES.to_bytes(8, "little")


class Blocking(Subject):
    """A thread for each connection."""

    name = "blocking sockets"
    workloads = frozenset({Workload.DOWNLOAD, Workload.UPLOAD})
    setting = "recv_into a buffer that is reused, sendall"

    def serve(self, ready: Callable[[str], None]) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        ready(str(listener.getsockname()[1]))
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()

    def measure(self, address: str, task: Task) -> Sample:
        buffer, payload = memoryview(bytearray(LARGE_BYTES)), bytes(LARGE_BYTES)
        received = memoryview(bytearray(len(_RECEIVED)))
        with socket.create_connection(("127.0.0.1", int(address))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def download() -> None:
                connection.sendall(_DOWNLOAD)
                _fill(connection, buffer)

            def upload() -> None:
                connection.sendall(_UPLOAD)
                connection.sendall(payload)
                _fill(connection, received)

            call = download if task.workload is Workload.DOWNLOAD else upload
            return keep_threads_busy([call], task.seconds)


def _answer(connection: socket.socket) -> None:
    buffer, payload = memoryview(bytearray(LARGE_BYTES)), bytes(LARGE_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while asked := connection.recv(1):
            if asked == _DOWNLOAD:
                connection.sendall(payload)
            else:
                _fill(connection, buffer)
                connection.sendall(_RECEIVED)


def _fill(connection: socket.socket, buffer: memoryview) -> None:
    """Receive as much as the buffer holds. Raises ConnectionError when the peer is gone before."""
    at = 0
    while at < len(buffer):
        count = connection.recv_into(buffer[at:])
        if not count:
            raise ConnectionError(f"the connection ended after {at:,} of {len(buffer):,} bytes")
        at += count


SUBJECT = Blocking()
