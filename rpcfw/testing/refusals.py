"""What a simulated loop refuses: every call that would touch the real world, with what to do instead.

A table and the function that applies it; no loop lives here. A call that silently did nothing would let a test pass
that proves nothing, so each of them raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_STREAMS = "use create_connection or create_server, which reach the simulated network"
_PROCESSES = "run the other program's part as a simulated host, or call a function through run_in_executor"
_SIGNALS = "stop, pause or crash the simulated host from the scenario"
_TLS = "test TLS itself on a real loop; in the simulation use tcp://"

REFUSED: dict[str, str] = {
    "add_reader": _STREAMS,
    "remove_reader": _STREAMS,
    "add_writer": _STREAMS,
    "remove_writer": _STREAMS,
    "sock_recv": _STREAMS,
    "sock_recv_into": _STREAMS,
    "sock_recvfrom": "use create_datagram_endpoint, which reaches the simulated network",
    "sock_recvfrom_into": "use create_datagram_endpoint, which reaches the simulated network",
    "sock_sendall": _STREAMS,
    "sock_sendto": "use create_datagram_endpoint, which reaches the simulated network",
    "sock_connect": _STREAMS,
    "sock_accept": _STREAMS,
    "sock_sendfile": "read the file and write it to a transport",
    "sendfile": "read the file and write it to the transport",
    "start_tls": _TLS,
    "connect_accepted_socket": _STREAMS,
    "create_unix_connection": "use tcp:// with the name of a simulated host, or mem://",
    "create_unix_server": "use tcp:// on a simulated host, or mem://",
    "connect_read_pipe": _STREAMS,
    "connect_write_pipe": _STREAMS,
    "subprocess_shell": _PROCESSES,
    "subprocess_exec": _PROCESSES,
    "add_signal_handler": _SIGNALS,
    "remove_signal_handler": _SIGNALS,
}
"""Method of a loop: what to do instead."""


class Unsimulated(NotImplementedError):
    """A call would have left the simulation. The message says which, and what to do instead."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} has no place in a simulation: {instead}")


def refusing(loop_type: type[T]) -> type[T]:
    """Have every method of `REFUSED` raise `Unsimulated`, coroutine functions when they are called; a decorator."""
    for name, instead in REFUSED.items():
        setattr(loop_type, name, _refusal(name, instead))
    return loop_type


def refuse_options(call: str, options: dict[str, Any]) -> None:
    """Raise `Unsimulated` when a network call was given a real socket, or TLS."""
    if options.get("sock") is not None:
        raise Unsimulated(f"{call}(sock=...)", "leave the socket out and give host and port")
    if options.get("ssl"):
        raise Unsimulated(f"{call}(ssl=...)", _TLS)


def _refusal(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: object, **options: object) -> NoReturn:
        raise Unsimulated(name, instead)

    refuse.__name__ = name
    refuse.__doc__ = f"Raise Unsimulated: {instead}."
    return refuse
