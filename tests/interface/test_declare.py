"""What decorating a class makes of it: names, kinds of call, parameters, options, and the class itself unharmed."""

import abc
import dataclasses
import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any, Generic, Protocol, TypeVar, assert_type

import pytest

from rpcfw.errors import ServiceError
from rpcfw.interface import (
    REQUIRED,
    CallKind,
    Offload,
    idempotent,
    local,
    method,
    offload_of,
    service,
    spec_of,
)

T = TypeVar("T")


@dataclasses.dataclass
class Order:
    id: int


class OutOfStock(ServiceError):
    sku: str
    left: int = 0


class Refused(Exception):
    """Carries nothing but its arguments."""


@service("shop.Orders", version="2.1")
class Orders(Protocol):
    """The orders of a shop.

    In detail.
    """

    @idempotent
    async def get(self, order_id: int) -> Order:
        """One order."""
        ...

    @method(timeout_s=0.5, raises=[OutOfStock, Refused])
    async def place(self, order: Order, /, *, coupon: str = "", count: int) -> Order: ...

    def watch(self, user: str) -> AsyncIterator[Order]: ...

    async def upload(self, name: str, orders: AsyncIterator[Order]) -> int: ...

    def refine(self, orders: AsyncIterable[Order]) -> AsyncIterable[int]: ...

    @method(oneway=True, name="tell")
    async def notify(self, text: str) -> None: ...


@service
class Greeter:
    """Says hello."""

    greeting = "hello"

    def hello(self, name: str) -> str:
        return f"{self.greeting} {name}"

    async def wave(self) -> None: ...

    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    @method(offload="process")
    def crunch(self, data: bytes) -> bytes:
        return data

    @method(offload="none")
    def quick(self) -> int:
        return 1

    @local
    def warm_up(self, lock: Any) -> Callable[[], None]:
        raise NotImplementedError

    def _hidden(self) -> None: ...

    @staticmethod
    def shout(text: str) -> str:
        return text.upper()

    @classmethod
    def create(cls) -> "Greeter":
        return cls()

    @property
    def name(self) -> str:
        return "greeter"

    class Settings: ...


def test_a_service_has_its_name_version_doc_and_class() -> None:
    spec = spec_of(Orders)
    assert (spec.name, spec.version, spec.interface) == ("shop.Orders", "2.1", Orders)
    assert spec.doc == "The orders of a shop.\n\nIn detail."


def test_a_service_is_named_after_its_class_unless_told() -> None:
    assert (spec_of(Greeter).name, spec_of(Greeter).version) == ("Greeter", "1.0")


def test_methods_are_listed_by_their_names_on_the_wire_in_the_order_of_the_class() -> None:
    assert list(spec_of(Orders).methods) == ["get", "place", "watch", "upload", "refine", "tell"]
    assert spec_of(Orders).methods["tell"].attribute == "notify"
    assert spec_of(Orders).methods["get"].attribute == "get"
    assert spec_of(Orders).methods["get"].path == "shop.Orders/get"


def test_the_kind_of_call_follows_from_the_annotations() -> None:
    kinds = {name: spec.kind for name, spec in spec_of(Orders).methods.items()}
    assert kinds == {
        "get": CallKind.UNARY,
        "place": CallKind.UNARY,
        "watch": CallKind.SERVER_STREAM,
        "upload": CallKind.CLIENT_STREAM,
        "refine": CallKind.BIDIRECTIONAL,
        "tell": CallKind.UNARY,
    }
    assert spec_of(Greeter).methods["count"].kind is CallKind.SERVER_STREAM


def test_types_of_streams_are_those_of_their_items() -> None:
    upload, refine = spec_of(Orders).methods["upload"], spec_of(Orders).methods["refine"]
    assert upload.stream_parameter is upload.parameters[1]
    assert [(p.name, p.type, p.is_stream) for p in upload.parameters] == [
        ("name", str, False),
        ("orders", Order, True),
    ]
    assert (refine.parameters[0].type, refine.result) == (Order, int)


def test_parameters_keep_order_types_defaults_and_how_they_are_passed() -> None:
    parameters = spec_of(Orders).methods["place"].parameters
    assert [(p.name, p.type, p.default, p.keyword_only) for p in parameters] == [
        ("order", Order, REQUIRED, False),
        ("coupon", str, "", True),
        ("count", int, REQUIRED, True),
    ]


def test_options_and_docs_of_methods_are_kept() -> None:
    methods = spec_of(Orders).methods
    assert methods["get"].idempotent
    assert methods["get"].doc == "One order."
    assert not methods["place"].idempotent
    assert methods["place"].timeout_s == 0.5
    assert methods["place"].raises == (OutOfStock, Refused)
    assert methods["tell"].oneway
    assert methods["tell"].result is type(None)


def test_public_functions_alone_are_the_interface_of_a_concrete_class() -> None:
    assert list(spec_of(Greeter).methods) == ["hello", "wave", "count", "crunch", "quick"]


def test_a_plain_def_of_a_concrete_class_runs_in_a_thread_unless_told() -> None:
    offloads = {name: spec.offload for name, spec in spec_of(Greeter).methods.items()}
    assert offloads == {
        "hello": "thread",
        "wave": "none",
        "count": "none",
        "crunch": "process",
        "quick": "none",
    }


def test_decorators_leave_class_and_functions_as_they_were() -> None:
    assert Greeter().hello("Ada") == "hello Ada"
    assert_type(Greeter().hello("Ada"), str)
    assert_type(Greeter(), Greeter)
    assert Greeter.__name__ == "Greeter"
    assert Greeter().crunch(b"x") == b"x"


def test_a_class_can_be_decorated_after_the_fact() -> None:
    class Clock:
        async def now(self) -> float:
            return 0.0

    decorated = service("time.Clock")(Clock)
    assert_type(decorated, type[Clock])
    assert decorated is Clock
    assert spec_of(Clock).name == "time.Clock"


def test_options_stack_in_any_order() -> None:
    @service
    class Stacked:
        @idempotent
        @method(timeout_s=2, raises=[Refused])
        @method(name="first")
        async def one(self) -> None: ...

        @method(name="second", raises=[Refused])
        @method(timeout_s=2)
        @idempotent
        async def two(self) -> None: ...

    for name in ("first", "second"):
        spec = spec_of(Stacked).methods[name]
        assert (spec.idempotent, spec.timeout_s, spec.raises) == (True, 2, (Refused,))


def test_a_decorated_function_is_read_through_its_wrapper() -> None:
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    class Traced:
        @traced
        async def get(self, order_id: int) -> Order:
            return Order(order_id)

    spec = spec_of(service(Traced)).methods["get"]
    assert [(p.name, p.type) for p in spec.parameters] == [("order_id", int)]
    assert spec.result is Order


def test_inherited_methods_belong_to_the_interface_and_come_first() -> None:
    class Readable(Protocol):
        async def read(self) -> bytes: ...

        async def close(self) -> None: ...

    @service
    class File(Readable, Protocol):
        async def write(self, data: bytes) -> int: ...

        @idempotent
        async def close(self) -> None: ...

    assert list(spec_of(File).methods) == ["read", "close", "write"]
    assert spec_of(File).methods["close"].idempotent


def test_a_method_that_a_subclass_takes_away_is_gone() -> None:
    class Readable:
        async def read(self) -> bytes:
            return b""

        async def peek(self) -> bytes:
            return b""

    @service
    class Blind(Readable):
        peek = None  # type: ignore[assignment]  # taking it away is the point

    assert list(spec_of(Blind).methods) == ["read"]


def test_type_variables_of_a_generic_interface_are_bound_by_its_subclass() -> None:
    class Store(Protocol[T]):
        async def put(self, item: T) -> list[T]: ...

    @service
    class OrderStore(Store[Order], Protocol):
        async def clear(self) -> None: ...

    put = spec_of(OrderStore).methods["put"]
    assert (put.parameters[0].type, put.result) == (Order, list[Order])


def test_type_variables_are_bound_through_several_generations() -> None:
    U = TypeVar("U")

    class Store(Generic[T]):
        async def put(self, item: T) -> None: ...

    class Cache(Store[list[U]], Generic[U]): ...

    @service
    class OrderCache(Cache[Order]): ...

    assert spec_of(OrderCache).methods["put"].parameters[0].type == list[Order]


def test_an_abstract_class_is_an_interface_too() -> None:
    @service
    class Jobs(abc.ABC):
        @abc.abstractmethod
        def run(self, name: str) -> int: ...

        def stop(self, name: str) -> int:
            return len(name)

    assert spec_of(Jobs).methods["run"].offload == "none"
    assert spec_of(Jobs).methods["stop"].offload == "thread"


def test_the_description_is_found_from_subclass_instance_and_itself() -> None:
    class Shop(Greeter):
        def hello(self, name: str) -> str:
            return name

    spec = spec_of(Greeter)
    assert spec_of(Shop) is spec
    assert spec_of(Shop()) is spec
    assert spec_of(spec) is spec


def test_a_subclass_can_be_a_service_of_its_own() -> None:
    @service("Loud")
    class LoudGreeter(Greeter):
        async def roar(self) -> None: ...

    assert spec_of(LoudGreeter).name == "Loud"
    assert list(spec_of(LoudGreeter).methods)[-1] == "roar"
    assert "roar" not in spec_of(Greeter).methods


def test_methods_know_the_name_of_the_service_they_are_called_by() -> None:
    assert {spec.service for spec in spec_of(Orders).methods.values()} == {"shop.Orders"}


@pytest.mark.parametrize(
    ("name", "offload"),
    [("get", "thread"), ("place", "process"), ("watch", "none"), ("upload", "none"), ("notify", "none")],
)
def test_an_implementation_says_where_it_runs(name: str, offload: Offload) -> None:
    class Shop:
        def get(self, order_id: int) -> Order:
            return Order(order_id)

        @method(offload="process")
        def place(self, order: Order, /, *, coupon: str = "", count: int) -> Order:
            return order

        def watch(self, user: str) -> AsyncIterator[Order]:
            raise NotImplementedError

        async def upload(self, name: str, orders: AsyncIterator[Order]) -> int:
            return 0

        async def notify(self, text: str) -> None: ...

    spec = next(spec for spec in spec_of(Orders).methods.values() if spec.attribute == name)
    assert offload_of(spec, Shop) == offload
    assert offload_of(spec, Shop()) == offload


def test_an_implementation_runs_where_the_interface_says_when_it_says_nothing() -> None:
    @service
    class Crunch(Protocol):
        @method(offload="process")
        def crunch(self, data: bytes) -> bytes: ...

    class Blocking:
        def crunch(self, data: bytes) -> bytes:
            return data

    class Waiting:
        async def crunch(self, data: bytes) -> bytes:
            return data

    spec = spec_of(Crunch).methods["crunch"]
    assert offload_of(spec, Blocking) == "process"
    assert offload_of(spec, Waiting) == "none"
