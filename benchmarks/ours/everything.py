"""The same call with all that a careful user turns on: what the features cost together."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import rpcfw
from benchmarks.ours.orders import Variant
from benchmarks.subject import Subject
from rpcfw.breaker import ConsecutiveFailures
from rpcfw.middleware import CarryPriority, Retry

_ENDPOINTS = 3


class Counted:
    """Middleware as a user writes it: counts calls by method."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def __call__(self, handler: rpcfw.Handler) -> rpcfw.Handler:
        def counted(call: rpcfw.Call) -> Awaitable[Any]:
            path = call.method.path
            self.calls[path] = self.calls.get(path, 0) + 1
            return handler(call)

        return counted


class Everything(Variant):
    """Three listeners of one server process, so that as many cores work as for the plain call."""

    name = "rpcfw, everything on"
    setting = "deadline, metadata, 3 middleware, PowerOfTwo over 3 endpoints of one server process, breaker, heartbeats"

    def listen(self) -> list[str]:
        return ["tcp://127.0.0.1:0"] * _ENDPOINTS

    def address(self, server: rpcfw.Server) -> str:
        return " ".join(str(endpoint) for endpoint in server.endpoints)

    def connect(self, address: str) -> rpcfw.Client:
        return rpcfw.connect(
            *address.split(),
            middleware=[Counted(), CarryPriority(), Retry()],
            cluster=rpcfw.ClusterOptions(breaker=ConsecutiveFailures, heartbeat_s=3.0),
        )

    def stub(self, client: rpcfw.Client) -> Any:
        return rpcfw.with_options(super().stub(client), timeout_s=2.0, metadata={"trace": "4711"})


SUBJECT: Subject = Everything()
