"""What every call promises, over every transport: results, errors, metadata, payloads, arguments, validation."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import Call, CallKind, Client, Code, Metadata, Origin, RpcError
from rpcfw.stub import Stub
from tests.calls.conftest import Served
from tests.calls.contract import (
    BEFORE_THE_STEP,
    KINDS,
    OUT_OF_STOCK,
    SUCCESS,
    Closed,
    Computing,
    Contract,
    OutOfStock,
    Service,
    Step,
    call,
    numbers,
)
from tests.calls.messages import ORDER, VALUES, Messages, Order
from tests.calls.place import Place, connection_of, until

MB = 1_000_000
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value.replace(" ", "_"))


def with_options(stub: Contract, **options: Any) -> Contract:
    """A stub with options, typed as the interface like the one it comes from."""
    return cast(Contract, cast(Stub, stub).with_options(**options))


# ---------------------------------------------------------------------------------------------- success and errors


@each_kind
async def test_a_call_gives_its_result(served: Served, kind: CallKind) -> None:
    assert await call(served.stub, kind, Step.SUCCEED) == SUCCESS[kind]


@each_kind
async def test_a_declared_error_arrives_as_itself_with_its_fields(served: Served, kind: CallKind) -> None:
    got: list[int] = []
    with pytest.raises(OutOfStock) as caught:
        await call(served.stub, kind, Step.DECLARED, got=got)
    assert vars(caught.value) == vars(OUT_OF_STOCK)
    assert got == BEFORE_THE_STEP[kind]


@each_kind
async def test_an_undeclared_error_tells_its_name_and_keeps_its_text_on_the_server(
    served: Served, kind: CallKind
) -> None:
    with pytest.raises(RpcError, match="ZeroDivisionError") as caught:
        await call(served.stub, kind, Step.UNDECLARED)
    error = caught.value
    assert (error.code, error.origin, error.executed) == (Code.UNKNOWN, Origin.REMOTE, True)
    assert "secret" not in str(error)
    assert error.remote_traceback is None


@each_kind
async def test_an_rpc_error_arrives_with_code_message_and_details(served: Served, kind: CallKind) -> None:
    got: list[int] = []
    with pytest.raises(RpcError) as caught:
        await call(served.stub, kind, Step.REFUSE, got=got)
    error = caught.value
    assert (error.code, error.message) == (Code.PERMISSION_DENIED, "not you")
    assert error.details == {"who": "ada", "tries": [1, 2]}
    assert (error.origin, error.executed) == (Origin.REMOTE, True)
    assert got == BEFORE_THE_STEP[kind]


async def test_a_declared_error_without_fields_arrives_as_itself(served: Served) -> None:
    with pytest.raises(Closed) as caught:
        await served.stub.closed("for lunch")
    assert caught.value.args == ("for lunch", 7)


async def test_in_dev_mode_an_undeclared_error_brings_its_traceback(place: Place) -> None:
    stub = place.connect(await place.serve(Service(), dev=True)).stub(Contract)
    with pytest.raises(RpcError, match="secret of the server") as caught:
        await stub.one(Step.UNDECLARED)
    assert "in _play" in (caught.value.remote_traceback or "")


@pytest.mark.parametrize("what", ["object", "number", "date", "text"])
async def test_an_error_whose_details_cannot_travel_still_arrives(served: Served, what: str) -> None:
    with pytest.raises(RpcError) as caught:
        await served.stub.details(what)
    assert caught.value.code is Code.NOT_FOUND
    assert "odd details" in caught.value.message
    await served.stub.nothing()


# ---------------------------------------------------------------------------------------------- arguments, results


async def test_defaults_keywords_and_none_are_as_in_a_local_call(served: Served) -> None:
    stub = served.stub
    assert await stub.add(1) == "None: 11"
    assert await stub.add(1, 2) == "None: 3"
    assert await stub.add(b=3, a=1, scale=2) == "None: 8"
    assert await stub.add(1, scale=10, label="x") == "x: 110"
    assert await cast(Any, stub).nothing() is None


@pytest.mark.parametrize(
    ("arguments", "named", "complaint"),
    [
        ((), {}, "lacks the argument 'a'"),
        ((1, 2, 3), {}, "takes 2 positional arguments, 3 were given"),
        ((1,), {"a": 1}, "got 'a' twice"),
        ((1,), {"c": 1}, "has no parameter 'c'"),
    ],
)
async def test_a_wrong_call_is_a_type_error_that_names_the_parameter(
    served: Served, arguments: tuple[int, ...], named: dict[str, int], complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        await cast(Any, served.stub).add(*arguments, **named)


@pytest.mark.parametrize(
    ("method", "value"), VALUES, ids=[f"{m}-{number}" for number, (m, _) in enumerate(VALUES)]
)
async def test_every_sort_of_value_comes_back_equal(place: Place, method: str, value: Any) -> None:
    stub = place.connect(await place.serve(Messages())).stub(Messages)
    back = await getattr(stub, method)(value)
    assert back == value
    assert type(back) is type(value)


async def test_messages_come_back_equal_in_streams(place: Place) -> None:
    stub = place.connect(await place.serve(Messages())).stub(Messages)

    async def orders() -> AsyncIterator[Order]:
        for _ in range(200):
            yield ORDER

    back = [order async for order in stub.stream(orders())]
    assert back == [ORDER] * 200


async def test_a_generated_stub_and_a_stub_made_here_make_the_same_call(served: Served) -> None:
    spec = rpcfw.spec_of(Contract)

    class ContractStub(Stub):
        service = spec

        async def add(self, a: int, b: int = 10, *, scale: int = 1, label: str | None = None) -> str:
            return await self._call(self.service.methods["add"], (a, b, scale, label))

    assert await ContractStub(served.client).add(1, scale=3) == await served.stub.add(1, scale=3)


# ---------------------------------------------------------------------------------------------- validation


async def test_a_wrong_argument_is_refused_with_its_path_and_value(served: Served) -> None:
    with pytest.raises(RpcError, match=r"add: b: expected `int`, got `str`: 'three'") as caught:
        await served.stub.add(1, cast(Any, "three"))
    assert (caught.value.code, caught.value.executed) == (Code.INVALID_ARGUMENT, False)


async def test_a_wrong_field_deep_inside_is_refused_with_its_path_and_value(place: Place) -> None:
    stub = place.connect(await place.serve(Messages())).stub(Messages)
    order = {"id": 1, "lines": [{"sku": "a"}, {"sku": "b", "count": "many"}], "at": ORDER.at}
    with pytest.raises(RpcError, match=r"value\.lines\[1\]\.count: .*'many'"):
        await stub.dataclass(cast(Any, order))
    with pytest.raises(RpcError, match=r"value.*born.*'yesterday'"):
        await stub.model(cast(Any, {"name": "Ada", "born": "yesterday"}))


async def test_an_argument_that_cannot_travel_is_refused_before_it_is_sent(served: Served) -> None:
    with pytest.raises(RpcError, match="does not fit into 64 bits") as caught:
        await served.stub.add(1 << 70)
    assert (caught.value.code, caught.value.origin) == (Code.INVALID_ARGUMENT, Origin.LOCAL)
    with pytest.raises(RpcError, match=r"add: label: .* cannot travel"):
        await served.stub.add(1, label=cast(Any, object()))


async def test_a_wrong_result_is_refused_by_the_caller_with_its_path_and_value(served: Served) -> None:
    with pytest.raises(RpcError, match=r"\[2\]: expected `int`, got `str`: 'three'") as caught:
        await served.stub.wrong("type")
    error = caught.value
    assert (error.code, error.origin, error.executed) == (Code.INTERNAL, Origin.CONNECTION, True)


async def test_a_result_that_cannot_travel_is_the_servers_error(served: Served) -> None:
    with pytest.raises(RpcError, match=r"the result cannot travel: \[1\]") as caught:
        await served.stub.wrong("travel")
    assert (caught.value.code, caught.value.origin) == (Code.INTERNAL, Origin.REMOTE)


async def test_a_wrong_item_of_the_caller_is_refused_with_its_value(served: Served) -> None:
    with pytest.raises(RpcError, match="'two'") as caught:
        await served.stub.into(Step.SUCCEED, numbers(1, cast(Any, "two"), 3))
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_wrong_item_of_the_server_is_refused_with_its_value(served: Served) -> None:
    with pytest.raises(RpcError, match="'two'") as caught:
        async for _ in served.stub.wrong_items():
            pass
    assert caught.value.code is Code.INTERNAL


async def test_an_item_that_cannot_travel_ends_the_call_and_no_other(served: Served) -> None:
    with pytest.raises(RpcError, match="cannot travel") as caught:
        await served.stub.into(Step.SUCCEED, numbers(1, cast(Any, object())))
    assert caught.value.code is Code.INVALID_ARGUMENT
    await served.stub.nothing()
    with pytest.raises(RpcError, match="must be an async iterator"):
        await served.stub.into(Step.SUCCEED, cast(Any, [1, 2]))


# ---------------------------------------------------------------------------------------------- metadata


async def test_metadata_travels_both_ways(served: Served) -> None:
    back: dict[str, str | bytes] = {}
    sent: Metadata = {"trace": "abc", "blob": b"\xff\x00", "name": "Größe"}
    stub = with_options(served.stub, metadata=sent, reply_metadata=back)
    assert await stub.metadata() == {"trace": "abc", "blob": "ff00", "name": "Größe"}
    assert back == {"first": "1", "twice": "yes", "blob": b"\x00\xff"}
    assert await served.stub.metadata() == {}


async def test_each_call_has_its_own_metadata_whatever_came_before(served: Served) -> None:
    """Both ends remember the last metadata of a connection, since the next call mostly has the same."""
    kinds: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "12"}, {"a": "1", "b": "2"}, {"long": "x" * 5000}]
    stubs = [with_options(served.stub, metadata=metadata) if metadata else served.stub for metadata in kinds]
    orders = [(0, 0, 1, 1, 2, 2, 1, 0, 1), (3, 1, 3, 4, 4, 3, 0, 4, 2), tuple(range(5)) * 3]
    for order in orders:
        for number in order:
            assert await stubs[number].metadata() == kinds[number], (order, number)
        together = await asyncio.gather(*(stubs[number].metadata() for number in order))
        assert together == [kinds[number] for number in order]
    with pytest.raises(RpcError, match=r"over the limit of 16,384"):
        await with_options(served.stub, metadata={"a": "1", "big": "x" * 20_000}).metadata()
    assert await stubs[1].metadata() == {"a": "1"}


@pytest.mark.parametrize("metadata", [{"Upper": "x"}, {"": "x"}, {"number": 7}, {7: "x"}])
async def test_metadata_that_cannot_travel_is_refused_by_name(served: Served, metadata: Any) -> None:
    with pytest.raises(RpcError, match=r"metadata") as caught:
        with_options(served.stub, metadata=metadata)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_too_much_metadata_is_refused_with_both_sizes_and_harms_no_other_call(served: Served) -> None:
    waiting = asyncio.create_task(served.stub.one(Step.WAIT))
    await served.service.diary.until("waiting")
    with pytest.raises(RpcError, match=r"metadata of 20,0\d\d bytes is over the limit of 16,384") as caught:
        await with_options(served.stub, metadata={"big": "x" * 20_000}).metadata()
    assert (caught.value.code, caught.value.executed) == (Code.RESOURCE_EXHAUSTED, False)
    with pytest.raises(RpcError, match=r"metadata.* over the .*16,384") as caught:
        await served.stub.metadata(size=20_000)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    served.service.gate.set()
    assert await waiting == 3


# ---------------------------------------------------------------------------------------------- payloads


async def test_empty_and_large_payloads_come_back_equal(served: Served) -> None:
    assert await served.stub.blob(b"") == b""
    for size in (1, 65_535, 65_536, 262_144, 5 * MB):
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert await served.stub.blob(data) == data


async def test_large_payloads_do_not_mix(served: Served) -> None:
    blobs = [bytes([number]) * (MB + number) for number in range(20)]
    assert await asyncio.gather(*map(served.stub.blob, blobs)) == blobs


async def test_small_calls_overtake_a_large_one(served: Served) -> None:
    order: list[str] = []

    async def make(name: str, size: int) -> None:
        await served.stub.blob(bytes(size))
        order.append(name)

    await make("connected", 0)
    await asyncio.gather(make("large", 15 * MB), *(make("small", 10) for _ in range(10)))
    assert order[1:-1] == ["small"] * 10


async def test_a_message_over_the_limit_is_refused_by_its_sender_and_harms_no_other_call(
    served: Served,
) -> None:
    waiting = asyncio.create_task(served.stub.one(Step.WAIT))
    await served.service.diary.until("waiting")
    over = r"message of 17,000,0\d\d bytes is over the 16,777,216"
    with pytest.raises(RpcError, match=over) as caught:
        await served.stub.blob(bytes(17 * MB))
    assert (caught.value.code, caught.value.executed) == (Code.RESOURCE_EXHAUSTED, False)
    with pytest.raises(RpcError, match="over the 16,777,216") as caught:
        async for _ in served.stub.blobs([10, 17 * MB]):
            pass
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    with pytest.raises(RpcError, match="over the 16,777,216") as caught:
        await served.stub.upload(b"", blobs(10, 17 * MB))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    served.service.gate.set()
    assert await waiting == 3


async def blobs(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


async def test_a_large_argument_goes_before_the_items_that_follow_it(served: Served) -> None:
    assert await served.stub.upload(bytes(MB), blobs(1, 2, 3)) == MB + 6
    assert await served.stub.upload(bytes(MB), blobs(MB, 1, MB)) == 3 * MB + 1


async def test_large_items_go_both_ways_at_once(served: Served) -> None:
    sizes = [MB, 1, 0, 2 * MB, *[300_000] * 10]
    assert [len(blob) async for blob in served.stub.mirror(blobs(*sizes))] == sizes


# ---------------------------------------------------------------------------------------------- many at a time


@each_kind
async def test_many_calls_go_on_at_the_same_time(served: Served, kind: CallKind) -> None:
    results = await asyncio.gather(*(call(served.stub, kind, Step.SUCCEED, n, 2, 3) for n in range(200)))
    for n, result in enumerate(results):
        expected = {CallKind.CLIENT_STREAM: [n + 5], CallKind.BIDIRECTIONAL: [2 * n, 4, 6]}
        assert result == expected.get(kind, SUCCESS[kind])
    assert served.server.connections == 1


async def test_long_streams_arrive_whole_and_in_order(served: Served) -> None:
    assert await served.stub.into(Step.SUCCEED, numbers(*range(20_000))) == sum(range(20_000))
    got = await call(served.stub, CallKind.BIDIRECTIONAL, Step.SUCCEED, *range(20_000))
    assert got == [2 * n for n in range(20_000)]


async def test_an_empty_stream_is_a_stream(served: Served) -> None:
    async def none() -> AsyncIterator[int]:
        if False:
            yield 0

    assert await served.stub.into(Step.SUCCEED, none()) == 0
    assert [n async for n in served.stub.both(Step.SUCCEED, none())] == []
    assert [b async for b in served.stub.blobs([])] == []


# ---------------------------------------------------------------------------------------------- one-way, offload


async def test_one_way_calls_do_not_wait_and_are_done_in_order(served: Served) -> None:
    for number in range(100):
        await served.stub.tell(str(number))
    await served.service.diary.until("told", 100)
    assert served.service.told == [str(number) for number in range(100)]


@pytest.mark.parametrize("size", [10, 5 * MB])
async def test_a_one_way_call_arrives_though_its_client_closes_at_once(place: Place, size: int) -> None:
    service = Service()
    client = place.connect(await place.serve(service))
    stub = client.stub(Contract)
    await stub.nothing()
    await stub.send(bytes(size))
    await stub.tell_slowly("slowly")
    await client.close()
    await service.diary.until("telling")
    service.gate.set()
    await service.diary.until("told", 2)
    assert service.told == [f"{size} bytes", "slowly"]


async def test_blocking_code_runs_in_a_thread_with_the_call_in_its_context(served: Served) -> None:
    stub = with_options(served.stub, metadata={"who": "ada"})
    calls = [asyncio.ensure_future(cast(Any, stub).in_thread(str(n))) for n in range(4)]
    await stub.nothing()  # the loop is free
    served.service.thread_gate.set()
    for n, answer in enumerate(await asyncio.gather(*calls)):
        assert answer.startswith(f"{n} ada rpcfw-handler")


async def test_a_call_whose_thread_has_not_ended_counts_as_running(served: Served) -> None:
    calling = asyncio.ensure_future(cast(Any, served.stub).in_thread("x"))
    await until(lambda: served.service.diary.counts["in thread"])
    calling.cancel()
    for _ in range(3):
        await served.stub.nothing()
    assert served.server.running == 1
    served.service.thread_gate.set()


async def test_computing_code_runs_in_a_process_of_its_own(here: Place) -> None:
    computing = Computing()
    stub = cast(Any, here.connect(await here.serve(computing)).stub(Computing))
    (four, first), (also_four, second) = await asyncio.gather(stub.divide(12, 3), stub.divide(10, 4, scale=2))
    assert (four, also_four) == (4, 4)
    assert computing.here not in (first, second)
    with pytest.raises(OutOfStock) as caught:
        await stub.divide(-1, 1)
    assert vars(caught.value) == vars(OUT_OF_STOCK)
    with pytest.raises(RpcError, match="ZeroDivisionError") as failed:
        await stub.divide(1, 0)
    assert failed.value.code is Code.UNKNOWN


# ---------------------------------------------------------------------------------------------- who calls whom


async def test_handlers_and_middleware_see_the_call(place: Place) -> None:
    seen: list[tuple[str, str, float, bool]] = []

    def spy(handler: rpcfw.Handler) -> rpcfw.Handler:
        async def look(call: Call) -> Any:
            remaining = call.remaining_s(asyncio.get_running_loop())
            seen.append((call.method.path, str(call.argument("a")), remaining, bool(call.peer)))
            return await handler(call)

        return look

    server = await place.serve(Service(), middleware=[spy])
    client = place.connect(server, middleware=[spy], timeout_s=None)
    await client.stub(Contract).add(5)
    assert [(path, a) for path, a, _, _ in seen] == [("tests.Contract/add", "5")] * 2
    assert [remaining for _, _, remaining, _ in seen] == [math.inf, math.inf]
    assert [peer for *_, peer in seen] == [False, True]


async def test_with_mutual_tls_a_handler_knows_its_callers_name(here: Place, mutual_tls: Any) -> None:
    peers: list[str] = []

    def spy(handler: rpcfw.Handler) -> rpcfw.Handler:
        async def look(call: Call) -> Any:
            peers.append(call.peer)
            return await handler(call)

        return look

    place = Place("tls", tls=mutual_tls)
    client = place.connect(await place.serve(Service(), middleware=[spy]))
    await client.stub(Contract).nothing()
    await place.close()
    assert re.fullmatch(r"127.0.0.1:\d+ \(CN=both sides,.*\)", peers[0])
    assert peers[0].count("CN=") == 1


async def test_a_method_or_service_that_the_server_lacks_is_told_with_what_it_has(place: Place) -> None:
    client: Client = place.connect(await place.serve(Messages()))
    with pytest.raises(
        RpcError, match=r"does not serve 'tests.Contract'; it serves .*tests.Messages"
    ) as caught:
        await client.stub(Contract).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.UNIMPLEMENTED, False)


async def test_one_connection_carries_all_calls_to_an_endpoint(served: Served) -> None:
    await asyncio.gather(*(served.stub.nothing() for _ in range(50)))
    assert served.server.connections == 1
    assert connection_of(served.client).usable
