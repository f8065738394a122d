"""gRPC's own Python library, its asyncio API, on uvloop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.peers.contents import BLOB, KEPT, order_fields, tick_fields
from benchmarks.peers.links import HOST, STREAMS, UNARY, AsyncioPeer, Link
from benchmarks.peers.schemas import generated

with generated("python", "grpc_python"):
    from peers import orders_pb2, orders_pb2_grpc

OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TICKS = [orders_pb2.Tick(**tick_fields(number)) for number in range(KEPT)]


class OrderBook(orders_pb2_grpc.OrdersServicer):
    """The server's side; its methods are named as gRPC wants them."""

    def __init__(self) -> None:
        self._orders = [orders_pb2.Order(**order_fields(number)) for number in range(KEPT)]

    async def GetOrder(self, request: Any, context: Any) -> Any:
        return self._orders[request.value]

    async def Echo(self, request: Any, context: Any) -> Any:
        return orders_pb2.Body(data=request.data)

    async def Download(self, request: Any, context: Any) -> Any:
        return orders_pb2.Body(data=BLOB[: request.value])

    async def Upload(self, request: Any, context: Any) -> Any:
        return orders_pb2.Number(value=len(request.data))

    async def ListTicks(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.value):
            yield TICKS[number % KEPT]

    async def SendTicks(self, requests: Any, context: Any) -> Any:
        count = 0
        async for _ in requests:
            count += 1
        return orders_pb2.Number(value=count)

    async def ListOrders(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.value):
            yield self._orders[number % KEPT]


class GrpcLink(Link):
    """A channel, which is one connection."""

    order_type = orders_pb2.Order

    def __init__(self, port: int) -> None:
        # Channels of one process share connections to the same address, unless told not to.
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=options)
        self._stub = orders_pb2_grpc.OrdersStub(self._channel)

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

    def list_ticks(self, count: int) -> Any:
        return self._stub.ListTicks(orders_pb2.Number(value=count))

    async def send_ticks(self, count: int) -> int:
        async def ticks() -> AsyncIterator[Any]:
            for number in range(count):
                yield TICKS[number % KEPT]

        reply = await self._stub.SendTicks(ticks())
        return reply.value

    def list_orders(self, count: int) -> Any:
        return self._stub.ListOrders(orders_pb2.Number(value=count))

    async def close(self) -> None:
        await self._channel.close()


class GrpcAio(AsyncioPeer):
    """gRPC."""

    name = "grpc.aio"
    packages = ("grpcio", "protobuf", "uvloop")
    workloads = UNARY | STREAMS
    setting = "asyncio API on uvloop, protobuf messages, one channel, no limit of message size"

    async def start(self) -> tuple[int, int]:
        self._server = grpc.aio.server(options=OPTIONS)
        orders_pb2_grpc.add_OrdersServicer_to_server(OrderBook(), self._server)
        port = self._server.add_insecure_port(f"{HOST}:0")
        await self._server.start()
        return port, os.getpid()

    async def connect(self, port: int) -> Link:
        return GrpcLink(port)


SUBJECT = GrpcAio()
