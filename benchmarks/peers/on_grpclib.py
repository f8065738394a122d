"""grpclib: gRPC in Python, over h2, on uvloop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpclib.client
import grpclib.config
import grpclib.server

from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import BACKLOG, HOST, STREAMS, UNARY, AsyncioPeer, Link
from benchmarks.peers.schemas import generated

with generated("python", "grpclib_python"):
    from peers import orders_grpc, orders_pb2

CONFIGURATION = grpclib.config.Configuration(
    http2_connection_window_size=1 << 24,  # bytes; four large bodies fill the 4 MiB that it has otherwise
    http2_stream_window_size=1 << 24,
)
TICKS = [orders_pb2.Tick(**tick_fields(number)) for number in range(KEPT)]


class OrderBook(orders_grpc.OrdersBase):
    """The server's side; its methods are named as gRPC wants them."""

    def __init__(self) -> None:
        self._orders = [orders_pb2.Order(**order_fields(number)) for number in range(KEPT)]

    async def GetOrder(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(self._orders[request.value])

    async def Echo(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(orders_pb2.Body(data=request.data))

    async def Download(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(orders_pb2.Body(data=BLOB[: request.value]))

    async def Upload(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(orders_pb2.Number(value=len(request.data)))

    async def ListTicks(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.value):
            await stream.send_message(TICKS[number % KEPT])

    async def SendTicks(self, stream: Any) -> None:
        count = 0
        async for _ in stream:
            count += 1
        await stream.send_message(orders_pb2.Number(value=count))

    async def ListOrders(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.value):
            await stream.send_message(self._orders[number % KEPT])


class GrpclibLink(Link):
    """A channel, which is one connection."""

    order_type = orders_pb2.Order

    def __init__(self, port: int) -> None:
        self._channel = grpclib.client.Channel(HOST, port, config=CONFIGURATION)
        self._stub = orders_grpc.OrdersStub(self._channel)

    async def get_order(self, number: int) -> object:
        return await self._stub.GetOrder(orders_pb2.Number(value=number))

    async def echo(self, body: bytes) -> bytes:
        reply = await self._stub.Echo(orders_pb2.Body(data=body))
        return reply.data

    async def download(self, size: int) -> bytes:
        reply = await self._stub.Download(orders_pb2.Number(value=size))
        return reply.data

    async def upload(self, body: bytes) -> int:
        reply = await self._stub.Upload(orders_pb2.Body(data=body))
        return reply.value

    async def list_ticks(self, count: int) -> AsyncIterator[object]:
        async with self._stub.ListTicks.open() as stream:
            await stream.send_message(orders_pb2.Number(value=count), end=True)
            async for tick in stream:
                yield tick

    async def send_ticks(self, count: int) -> int:
        async with self._stub.SendTicks.open() as stream:
            for number in range(count):
                await stream.send_message(TICKS[number % KEPT])
            await stream.end()
            reply = await stream.recv_message()
        return reply.value

    async def list_orders(self, count: int) -> AsyncIterator[object]:
        async with self._stub.ListOrders.open() as stream:
            await stream.send_message(orders_pb2.Number(value=count), end=True)
            async for order in stream:
                yield order

    async def close(self) -> None:
        self._channel.close()


class Grpclib(AsyncioPeer):
    """grpclib."""

    name = "grpclib"
    packages = ("grpclib", "h2", "protobuf", "uvloop")
    workloads = UNARY | STREAMS
    setting = "on uvloop, protobuf messages, one channel, windows of 16 MiB"

    async def start(self) -> tuple[int, int]:
        self._server = grpclib.server.Server([OrderBook()], config=CONFIGURATION)
        listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        await self._server.start(sock=listener)
        return listener.getsockname()[1], os.getpid()

    async def connect(self, port: int) -> Link:
        return GrpclibLink(port)


SUBJECT = Grpclib()
