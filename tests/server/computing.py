"""A service whose methods run in another process, which imports it from here."""

from __future__ import annotations

import os
from typing import Any

import rpcfw
from rpcfw import Code, RpcError


class OutOfStock(rpcfw.ServiceError):
    sku: str
    left: int


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("says nothing")


class Unpicklable(Exception):
    """Its one argument is not what it was made with, so that pickle cannot make it again."""

    def __init__(self, what: str, *, why: str) -> None:
        super().__init__(f"{what}: {why}")


@rpcfw.service("tests.Computing")
class Computing:
    @rpcfw.method(offload="process")
    def pid(self, *, plus: int = 0) -> int:
        return os.getpid() + plus

    @rpcfw.method(offload="process", raises=[OutOfStock])
    def take(self, sku: str, left: int) -> int:
        raise OutOfStock(sku=sku, left=left)

    @rpcfw.method(offload="process")
    def fail(self, how: str) -> list[int]:
        wrong: dict[str, Any] = {"object": [object()], "text": ["x"]}
        if how in wrong:
            return list[int](wrong[how])
        raise {
            "unpicklable": Unpicklable("pen", why="broken"),
            "mute": Mute(),
            "exit": SystemExit(3),
            "rpc": RpcError(Code.NOT_FOUND, "no pen", {"left": [1, 2]}),
        }[how]

    @rpcfw.idempotent
    @rpcfw.method(offload="process")
    def die(self) -> None:
        os._exit(1)


@rpcfw.service("tests.Choosy")
class Choosy:
    def __init__(self, size: int) -> None:
        self.size = size

    @rpcfw.method(offload="process")
    def pid(self) -> int:
        return os.getpid()
