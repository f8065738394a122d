"""FastAPI with pydantic models, under uvicorn with uvloop and httptools; the client is aiohttp's."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import fastapi
import pydantic
import uvicorn
from fastapi.responses import StreamingResponse

from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.http_link import IDLE_S, JOINED_BYTES, HttpLink
from benchmarks.peers.links import BACKLOG, HOST, STREAMS, UNARY, AsyncioPeer, Link


class Item(pydantic.BaseModel):
    """A line of an order."""

    sku: str
    qty: int
    price: float


class Order(pydantic.BaseModel):
    """An order."""

    id: int
    user: str
    items: list[Item]
    note: str


class Tick(pydantic.BaseModel):
    """A small item of a stream."""

    number: int
    size: int
    price: float
    symbol: str


async def joined_lines(models: list[Order] | list[Tick], count: int) -> AsyncIterator[bytes]:
    """So many of them, round and round, each as a line of JSON, joined to chunks."""
    joined = bytearray()
    for number in range(count):
        joined += models[number % KEPT].model_dump_json().encode()
        joined += b"\n"
        if len(joined) >= JOINED_BYTES:
            yield bytes(joined)
            joined.clear()
    yield bytes(joined)


def application() -> fastapi.FastAPI:
    """The server's side."""
    app = fastapi.FastAPI(openapi_url=None)
    orders = [Order(**order_fields(number)) for number in range(KEPT)]
    ticks = [Tick(**tick_fields(number)) for number in range(KEPT)]

    @app.get("/orders/{number}")
    async def get_order(number: int) -> Order:
        return orders[number]

    @app.post("/echo")
    async def echo(request: fastapi.Request) -> fastapi.Response:
        return fastapi.Response(await request.body())

    @app.get("/blobs/{size}")
    async def download(size: int) -> fastapi.Response:
        return fastapi.Response(BLOB[:size])

    @app.post("/blobs")
    async def upload(request: fastapi.Request) -> fastapi.Response:
        return fastapi.Response(str(len(await request.body())))

    @app.get("/ticks/{count}")
    async def list_ticks(count: int) -> StreamingResponse:
        return StreamingResponse(joined_lines(ticks, count), media_type="application/jsonl")

    @app.post("/ticks")
    async def receive_ticks(request: fastapi.Request) -> fastapi.Response:
        count, rest = 0, b""
        async for chunk in request.stream():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                Tick.model_validate_json(line)
            count += len(lines)
        return fastapi.Response(str(count))

    @app.get("/all-orders/{count}")
    async def list_orders(count: int) -> StreamingResponse:
        return StreamingResponse(joined_lines(orders, count), media_type="application/jsonl")

    return app


class FastApi(AsyncioPeer):
    """FastAPI."""

    name = "FastAPI"
    packages = ("fastapi", "uvicorn", "pydantic", "aiohttp", "uvloop", "httptools")
    workloads = UNARY | STREAMS
    setting = (
        "uvicorn with uvloop and httptools, pydantic models on both sides, aiohttp client, "
        "a connection per call in flight, "
        "streams as lines of JSON in chunks of 16 KiB"
    )

    async def start(self) -> tuple[int, int]:
        config = uvicorn.Config(
            application(),
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_keep_alive=IDLE_S,
            backlog=BACKLOG,
        )
        listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        server = uvicorn.Server(config)
        self._serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110  # it has no event for this
            await asyncio.sleep(0.01)
        return listener.getsockname()[1], os.getpid()

    async def connect(self, port: int) -> Link:
        return HttpLink(port, Order, Order.model_validate_json, Tick.model_validate_json)


SUBJECT = FastApi()
