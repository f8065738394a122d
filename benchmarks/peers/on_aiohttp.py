"""aiohttp, as server and client, with plain dicts that orjson writes and reads."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any

import orjson
from aiohttp import web

from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.http_link import IDLE_S, JOINED_BYTES, HttpLink
from benchmarks.peers.links import BACKLOG, HOST, STREAMS, UNARY, AsyncioPeer, Link

JSON = "application/json"


class OrderBook:
    """The server's side."""

    def __init__(self) -> None:
        self._orders = [order_fields(number) for number in range(KEPT)]
        self._ticks = [tick_fields(number) for number in range(KEPT)]

    async def get_order(self, request: web.Request) -> web.Response:
        order = self._orders[int(request.match_info["number"])]
        return web.Response(body=orjson.dumps(order), content_type=JSON)

    async def echo(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=BLOB[: int(request.match_info["number"])])

    async def upload(self, request: web.Request) -> web.Response:
        return web.Response(body=str(len(await request.read())).encode())

    async def list_ticks(self, request: web.Request) -> web.StreamResponse:
        return await self._send_lines(request, self._ticks)

    async def list_orders(self, request: web.Request) -> web.StreamResponse:
        return await self._send_lines(request, self._orders)

    async def receive_ticks(self, request: web.Request) -> web.Response:
        count = 0
        async for line in request.content:
            orjson.loads(line)
            count += 1
        return web.Response(body=str(count).encode())

    async def _send_lines(self, request: web.Request, values: list[dict[str, Any]]) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/jsonl"
        await response.prepare(request)
        joined = bytearray()
        for number in range(int(request.match_info["number"])):
            joined += orjson.dumps(values[number % KEPT], option=orjson.OPT_APPEND_NEWLINE)
            if len(joined) >= JOINED_BYTES:
                await response.write(bytes(joined))
                joined.clear()
        await response.write(bytes(joined))
        await response.write_eof()
        return response

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.get("/orders/{number}", self.get_order),
            web.post("/echo", self.echo),
            web.get("/blobs/{number}", self.download),
            web.post("/blobs", self.upload),
            web.get("/ticks/{number}", self.list_ticks),
            web.post("/ticks", self.receive_ticks),
            web.get("/all-orders/{number}", self.list_orders),
        ]


class Aiohttp(AsyncioPeer):
    """aiohttp."""

    name = "aiohttp + orjson"
    packages = ("aiohttp", "orjson", "uvloop")
    workloads = UNARY | STREAMS
    setting = (
        "on uvloop, HTTP/1.1, dicts as JSON, a connection per call in flight, "
        "streams as lines of JSON in chunks of 16 KiB"
    )

    async def start(self) -> tuple[int, int]:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(OrderBook().routes())
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE_S)
        await self._runner.setup()
        listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        await web.SockSite(self._runner, listener, backlog=BACKLOG).start()
        return listener.getsockname()[1], os.getpid()

    async def connect(self, port: int) -> Link:
        return HttpLink(port, dict, orjson.loads, orjson.loads)


SUBJECT = Aiohttp()
