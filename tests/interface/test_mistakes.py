"""Each mistake a declaration can have is told while it is decorated, by class, method and parameter, with its mend."""

from __future__ import annotations

import threading

import pytest

from rpcfw.errors import InterfaceError
from rpcfw.interface import service, spec_of

from .conftest import Declare

MISTAKES = {
    "a parameter without annotation": (
        """
        @service
        class Shop:
            async def get(self, order_id) -> Order: ...
        """,
        "Shop.get, parameter 'order_id': the annotation is missing; write its type, as in `order_id: int`",
    ),
    "a result without annotation": (
        """
        @service
        class Shop:
            async def get(self, order_id: int): ...
        """,
        "Shop.get: the annotation of the result is missing; write `-> None` or the type that is returned",
    ),
    "a parameter with a star": (
        """
        @service
        class Shop:
            async def get(self, *ids: int) -> Order: ...
        """,
        "Shop.get, parameter 'ids': *ids cannot travel: each argument has a name and a type; take one "
        "list[...]",
    ),
    "a parameter with two stars": (
        """
        @service
        class Shop:
            async def get(self, **ids: int) -> Order: ...
        """,
        "Shop.get, parameter 'ids': **ids cannot travel: each argument has a name and a type; take one "
        "dict[str, ...]",
    ),
    "no self": (
        """
        @service
        class Shop:
            async def get() -> Order: ...
        """,
        "Shop.get: the parameter `self` is missing; add it, or put @rpcfw.local above what is not remote",
    ),
    "a field inside a field that cannot travel": (
        """
        @dataclass
        class Line:
            when: threading.Thread
        @dataclass
        class Basket:
            lines: list[Line]
        @service
        class Shop:
            async def get(self, basket: Basket) -> None: ...
        """,
        "Shop.get, parameter 'basket': Basket.lines[].when: threading.Thread cannot travel; it belongs "
        "to its process; send the data that it stands for",
    ),
    "a result that cannot travel": (
        """
        @service
        class Shop:
            async def get(self) -> list[pathlib.Path]: ...
        """,
        "Shop.get: in the result: pathlib.Path cannot travel; use str",
    ),
    "two methods under one name": (
        """
        @service
        class Shop:
            async def get(self) -> None: ...
            @method(name="get")
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: the name 'get' is already that of get; give one another with name=",
    ),
    "a method's name that is no identifier": (
        """
        @service
        class Shop:
            @method(name="get it")
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: name='get it' is not an identifier; use letters, digits and _, not starting with a "
        "digit",
    ),
    "a service's name that is not dotted identifiers": (
        """
        @service("shop/Orders")
        class Shop:
            async def fetch(self) -> None: ...
        """,
        "Shop: the service name 'shop/Orders' must be identifiers joined by dots, as in 'shop.Orders'",
    ),
    "an empty version": (
        """
        @service(version="")
        class Shop:
            async def fetch(self) -> None: ...
        """,
        "Shop: version='' must be a text such as '1.0'",
    ),
    "an annotation that names what is not defined": (
        """
        @service
        class Shop:
            async def fetch(self, order: "NewOrder") -> None: ...
        """,
        "Shop.fetch, parameter 'order': the annotation `NewOrder` names 'NewOrder', which is not known "
        "when the service is declared; define or import it above, and not under `if TYPE_CHECKING:`",
    ),
    "a field whose annotation names what is not defined": (
        """
        @dataclass
        class Basket:
            lines: "list[Line]"
        @service
        class Shop:
            async def fetch(self, basket: Basket) -> None: ...
        """,
        "Shop.fetch, parameter 'basket': Basket.lines: the annotation `list[Line]` names 'Line', which "
        "is not known when the service is declared; define or import it above, and not under `if "
        "TYPE_CHECKING:`",
    ),
    "an annotation that is no expression": (
        """
        @service
        class Shop:
            async def fetch(self, basket: "list[") -> None: ...
        """,
        "Shop.fetch, parameter 'basket': the annotation `list[` is not a valid type: Forward reference "
        "must be an expression -- got 'list['; write a type",
    ),
    "an annotation that is a value": (
        """
        @service
        class Shop:
            async def fetch(self, basket: 3) -> None: ...
        """,
        "Shop.fetch, parameter 'basket': 3 cannot travel; use a type that is data: a dataclass, str, "
        "int, list[...] and so on",
    ),
    "None as the default of an int": (
        """
        @service
        class Shop:
            async def fetch(self, limit: int = None) -> None: ...
        """,
        "Shop.fetch, parameter 'limit': the default None does not fit the declared type; write `| None` "
        "after the type",
    ),
    "text as the default of an int": (
        """
        @service
        class Shop:
            async def fetch(self, limit: int = "3") -> None: ...
        """,
        "Shop.fetch, parameter 'limit': the default '3' does not fit the declared type; change one of "
        "the two",
    ),
    "None as the default of an int field": (
        """
        @dataclass
        class Basket:
            limit: int = None
        @service
        class Shop:
            async def fetch(self, basket: Basket) -> None: ...
        """,
        "Shop.fetch, parameter 'basket': Basket.limit: the default None does not fit the declared type; "
        "write `| None` after the type",
    ),
    "a timeout of nothing": (
        """
        @service
        class Shop:
            @method(timeout_s=0)
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: timeout_s=0 must be more than 0 and at most 42949 seconds; leave it out for no limit",
    ),
    "a timeout of more than the wire can carry": (
        """
        @service
        class Shop:
            @method(timeout_s=50_000)
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: timeout_s=50000 must be more than 0 and at most 42949 seconds; leave it out for no "
        "limit",
    ),
    "a timeout that is text": (
        """
        @service
        class Shop:
            @method(timeout_s="1")
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: timeout_s='1' must be more than 0 and at most 42949 seconds; leave it out for no limit",
    ),
    "raises without a list": (
        """
        @service
        class Shop:
            @method(raises=ValueError)
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises=<class 'ValueError'> must be a list of exception classes; write raises=[...]",
    ),
    "raises with text": (
        """
        @service
        class Shop:
            @method(raises=["ValueError"])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists 'ValueError', which is not a subclass of Exception; list exception classes",
    ),
    "raises what no handler may catch": (
        """
        @service
        class Shop:
            @method(raises=[KeyboardInterrupt])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists <class 'KeyboardInterrupt'>, which is not a subclass of Exception; "
        "list exception classes",
    ),
    "raises everything": (
        """
        @service
        class Shop:
            @method(raises=[Exception])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists Exception, which says nothing that a caller could handle; list the "
        "classes of your own, undeclared errors arrive as RpcError",
    ),
    "raises RpcError": (
        """
        @service
        class Shop:
            @method(raises=[RpcError])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists RpcError, which says nothing that a caller could handle; list the "
        "classes of your own, undeclared errors arrive as RpcError",
    ),
    "raises an exception with an __init__ of its own": (
        """
        class Gone(Exception):
            def __init__(self, sku, left): super().__init__(sku)
        @service
        class Shop:
            @method(raises=[Gone])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists Gone, whose own __init__ nobody could call on the other side; make it "
        "a subclass of rpcfw.ServiceError with annotated fields",
    ),
    "raises an error with a field that cannot travel": (
        """
        class Gone(ServiceError):
            at: pathlib.Path
        @service
        class Shop:
            @method(raises=[Gone])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: in raises: Gone.at: pathlib.Path cannot travel; use str",
    ),
    "raises two errors of one name": (
        """
        A = type("Gone", (ServiceError,), {})
        B = type("Gone", (ServiceError,), {})
        @service
        class Shop:
            @method(raises=[A, B])
            async def fetch(self) -> None: ...
        """,
        "Shop.fetch: raises lists two classes named Gone; rename one, errors travel by name",
    ),
    "two streams in": (
        """
        @service
        class Shop:
            async def fetch(self, a: AsyncIterator[int], b: AsyncIterable[str]) -> None: ...
        """,
        "Shop.fetch: the parameters 'a' and 'b' both stream, but a call carries one stream in; merge "
        "them into one stream of a union",
    ),
    "async def of a stream without a yield": (
        """
        @service
        class Shop(Protocol):
            async def watch(self) -> AsyncIterator[int]: ...
        """,
        "Shop.watch: `async def` without a yield returns a coroutine, not the AsyncIterator that it is "
        "annotated with; write `def watch(...)` in an interface, or `async def` with a yield where it is "
        "implemented",
    ),
    "a generator annotated as its item": (
        """
        @service
        class Shop:
            async def watch(self) -> int:
                yield 1
        """,
        "Shop.watch: it has a yield, so it streams; write `async def` and annotate it `-> "
        "AsyncIterator[...]`",
    ),
    "a generator that is not asynchronous": (
        """
        @service
        class Shop:
            def watch(self) -> Iterator[int]:
                yield 1
        """,
        "Shop.watch: it has a yield, so it streams; write `async def` and annotate it `-> "
        "AsyncIterator[...]`",
    ),
    "an Iterable": (
        """
        @service
        class Shop:
            async def watch(self, items: Iterable[int]) -> int: ...
        """,
        "Shop.watch, parameter 'items': Iterable[int] cannot travel; use list[...] for what is finished, "
        "AsyncIterator[...] as the whole parameter or result for a stream",
    ),
    "a stream inside a list": (
        """
        @service
        class Shop:
            async def watch(self) -> list[AsyncIterator[int]]: ...
        """,
        "Shop.watch: in the result: AsyncIterator[int] cannot travel; a stream must be a parameter or "
        "the result itself, not a part of it",
    ),
    "a stream that may be None": (
        """
        @service
        class Shop:
            async def watch(self, items: AsyncIterator[int] | None) -> int: ...
        """,
        "Shop.watch, parameter 'items': AsyncIterator[int] cannot travel; a stream must be a parameter "
        "or the result itself, not a part of it",
    ),
    "a stream of nothing said": (
        """
        @service
        class Shop:
            async def watch(self, items: AsyncIterator) -> int: ...
        """,
        "Shop.watch, parameter 'items': the stream does not say of what; write AsyncIterator[...] with "
        "the type of an item",
    ),
    "a stream with a default": (
        """
        @service
        class Shop:
            async def watch(self, items: AsyncIterator[int] = None) -> int: ...
        """,
        "Shop.watch, parameter 'items': a stream cannot have the default None; remove it",
    ),
    "a generator as a parameter": (
        """
        @service
        class Shop:
            async def watch(self, items: AsyncGenerator[int, None]) -> int: ...
        """,
        "Shop.watch, parameter 'items': a stream of arguments is an AsyncIterator; write AsyncIterator[...]",
    ),
    "a generator that is sent into": (
        """
        @service
        class Shop:
            async def watch(self) -> AsyncGenerator[int, str]:
                yield 1
        """,
        "Shop.watch: nothing can be sent into a remote AsyncGenerator[int, str]; write AsyncIterator[...]",
    ),
    "a plain def that takes a stream": (
        """
        @service
        class Shop:
            def watch(self, items: AsyncIterator[int]) -> int: ...
        """,
        "Shop.watch, parameter 'items': a plain `def` cannot wait for the items of a stream; write "
        "`async def`",
    ),
    "an Awaitable as the result": (
        """
        @service
        class Shop(Protocol):
            def watch(self) -> Awaitable[int]: ...
        """,
        "Shop.watch: in the result: Awaitable[int] cannot travel; write `async def` and the type of the "
        "result itself",
    ),
    "a one-way call with a result": (
        """
        @service
        class Shop:
            @method(oneway=True)
            async def watch(self) -> int: ...
        """,
        "Shop.watch: a one-way call has no reply, but this returns int; write `-> None`",
    ),
    "a one-way stream": (
        """
        @service
        class Shop(Protocol):
            @method(oneway=True)
            def watch(self) -> AsyncIterator[int]: ...
        """,
        "Shop.watch: a one-way call has no reply and no stream, but this is server stream; remove "
        "oneway=True",
    ),
    "a one-way call that raises": (
        """
        @service
        class Shop:
            @method(oneway=True, raises=[ValueError])
            async def watch(self) -> None: ...
        """,
        "Shop.watch: a one-way call has no reply that could carry an error; remove raises=",
    ),
    "async def in a thread": (
        """
        @service
        class Shop:
            @method(offload="thread")
            async def watch(self) -> None: ...
        """,
        "Shop.watch: offload='thread' is for a plain `def` that blocks and returns one result; write "
        "`def` instead of `async def`, or remove offload=",
    ),
    "a stream in a process": (
        """
        @service
        class Shop:
            @method(offload="process")
            def watch(self) -> AsyncIterator[int]: ...
        """,
        "Shop.watch: offload='process' is for a plain `def` that blocks and returns one result; write "
        "`def` instead of `async def`, or remove offload=",
    ),
    "an unknown place to run": (
        """
        @service
        class Shop:
            @method(offload="fiber")
            def watch(self) -> int: ...
        """,
        "Shop.watch: offload='fiber' is not known; use 'none', 'thread' or 'process'",
    ),
    "an option given twice": (
        """
        @service
        class Shop:
            @method(timeout_s=1)
            @method(timeout_s=2)
            async def watch(self) -> None: ...
        """,
        "Shop.watch: the option timeout_s is given twice, as 2 and 1; keep one",
    ),
    "options on a static method": (
        """
        @service
        class Shop:
            @idempotent
            @staticmethod
            async def watch() -> None: ...
        """,
        "Shop.watch has options, but is a staticmethod, which cannot be remote; make it a method with "
        "`self`, or remove the decorator",
    ),
    "a class without methods": (
        """
        @service
        class Shop:
            def _private(self) -> None: ...
        """,
        "Shop has no public method, so there is nothing to call; add one, with annotations",
    ),
    "a union of dataclasses": (
        """
        @dataclass
        class Basket: pass
        @service
        class Shop:
            async def fetch(self, thing: Order | Basket) -> None: ...
        """,
        "Shop.fetch, parameter 'thing': a receiver cannot tell Order and Basket apart: all arrive as "
        "maps; make them Structs with a tag (msgspec.Struct, tag=True) or pydantic models with a Literal "
        "field each",
    ),
    "a union of two kinds of text": (
        """
        @service
        class Shop:
            async def fetch(self, when: str | datetime.datetime) -> None: ...
        """,
        "Shop.fetch, parameter 'when': a receiver cannot tell str and datetime apart: all arrive as "
        "text; keep one of them, or wrap each in a field of its own",
    ),
    "a union of two kinds of arrays": (
        """
        @service
        class Shop:
            async def fetch(self, when: list[int] | tuple[int, str]) -> None: ...
        """,
        "Shop.fetch, parameter 'when': a receiver cannot tell list[int] and tuple[int, str] apart: all "
        "arrive as arrays; keep one of them, or wrap each in a tagged msgspec.Struct",
    ),
    "an enum of text and numbers": (
        """
        class Color(enum.Enum):
            RED = "red"
            BLUE = 3
        @service
        class Shop:
            async def fetch(self, color: Color) -> None: ...
        """,
        "Shop.fetch, parameter 'color': Color cannot travel: the values of an enum must be all str or "
        "all int, and these are ['red', 3]; change the values",
    ),
    "a subclass of int": (
        """
        class Id(int): ...
        @service
        class Shop:
            async def fetch(self, id: Id) -> None: ...
        """,
        "Shop.fetch, parameter 'id': declared_0.Id cannot travel; as a subclass it would arrive as a "
        "plain int: use int, or typing.NewType",
    ),
    "a tuple as a key": (
        """
        @service
        class Shop:
            async def fetch(self, id: dict[tuple[int, int], str]) -> None: ...
        """,
        "Shop.fetch, parameter 'id': tuple[int, int] cannot be the key of a dict, which is a single "
        "value such as str or int; use a list of pairs",
    ),
    "a set of what has no hash": (
        """
        @service
        class Shop:
            async def fetch(self, id: set[Order]) -> None: ...
        """,
        "Shop.fetch, parameter 'id': set[Order] cannot be made: Order is not hashable; use list, or make "
        "the class frozen",
    ),
    "a function": (
        """
        @service
        class Shop:
            async def fetch(self, id: Callable[[int], str]) -> None: ...
        """,
        "Shop.fetch, parameter 'id': Callable[[int], str] cannot travel; functions stay in their "
        "process; send data, or declare a method for it",
    ),
    "a generic class of nothing said": (
        """
        T = TypeVar("T")
        @dataclass
        class Page(Generic[T]):
            items: list[T]
        @service
        class Shop:
            async def fetch(self) -> Page: ...
        """,
        "Shop.fetch: in the result: Page.items[]: T cannot travel; it stands for nothing yet; bind it "
        "where its class is used, as in Page[Order]",
    ),
    "a service as a parameter": (
        """
        @service
        class Other:
            async def fetch(self) -> None: ...
        @service
        class Shop:
            async def fetch(self, b: Other) -> None: ...
        """,
        "Shop.fetch, parameter 'b': declared_0.Other cannot travel; a service is called, not sent; send "
        "a name or an address instead",
    ),
    "Self": (
        """
        @service
        class Shop:
            async def fetch(self) -> Self: ...
        """,
        "Shop.fetch: in the result: Self cannot travel; write the class by its name",
    ),
    "a class that is no message": (
        """
        class Basket: ...
        @service
        class Shop:
            async def fetch(self) -> Basket: ...
        """,
        "Shop.fetch: in the result: declared_0.Basket cannot travel; make it a dataclass, a "
        "msgspec.Struct, a pydantic model, a TypedDict or a NamedTuple",
    ),
    "a dataclass with an InitVar": (
        """
        @dataclass
        class Basket:
            x: dataclasses.InitVar[int]
        @service
        class Shop:
            async def fetch(self) -> Basket: ...
        """,
        "Shop.fetch: in the result: Basket cannot travel: its field 'x' is an InitVar, which is not "
        "kept; make it a field",
    ),
    "a pydantic model with a type that is no text": (
        """
        class Basket(pydantic.BaseModel):
            where: pydantic.IPvAnyAddress
            secret: pydantic.SecretStr
        @service
        class Shop:
            async def fetch(self) -> Basket: ...
        """,
        "Shop.fetch: in the result: Basket.where: pydantic.networks.IPvAnyAddress cannot travel; use str "
        "or another plain type, and check its form with a validator",
    ),
    "a pydantic model with an excluded field": (
        """
        class Basket(pydantic.BaseModel):
            where: int = pydantic.Field(exclude=True)
        @service
        class Shop:
            async def fetch(self) -> Basket: ...
        """,
        "Shop.fetch: in the result: Basket cannot travel: its field 'where' has exclude=True, but "
        "messages are sent whole; remove the field",
    ),
    "a pydantic model that is not complete": (
        """
        class Basket(pydantic.BaseModel):
            where: "list[Nowhere]"
        @service
        class Shop:
            async def fetch(self) -> Basket: ...
        """,
        "Shop.fetch: in the result: Basket cannot travel: pydantic cannot complete it: name 'Nowhere' is "
        "not defined; define what it names, then call Basket.model_rebuild() before the service is "
        "declared",
    ),
    "a Literal of an enum member": (
        """
        class Color(enum.Enum):
            RED = "red"
        @service
        class Shop:
            async def fetch(self, a: Literal[Color.RED]) -> None: ...
        """,
        "Shop.fetch, parameter 'a': Literal[<Color.RED: 'red'>] cannot travel; use str, int, bool or None",
    ),
    "NoReturn": (
        """
        @service
        class Shop:
            async def fetch(self) -> typing.NoReturn: ...
        """,
        "Shop.fetch: in the result: NoReturn cannot travel; use a type that is data: a dataclass, str, "
        "int, list[...] and so on",
    ),
    "an exception as a parameter": (
        """
        @service
        class Shop:
            async def fetch(self, e: Exception) -> None: ...
        """,
        "Shop.fetch, parameter 'e': Exception cannot travel; list it in raises=[...] where it is an "
        "error, or send its text as str",
    ),
    "a deque": (
        """
        @service
        class Shop:
            async def fetch(self, e: collections.deque[int]) -> None: ...
        """,
        "Shop.fetch, parameter 'e': deque[int] cannot travel; use list",
    ),
    "a subclass of dict": (
        """
        @service
        class Shop:
            async def fetch(self, e: collections.OrderedDict[str, int]) -> None: ...
        """,
        "Shop.fetch, parameter 'e': OrderedDict[str, int] cannot travel; as a subclass it would arrive "
        "as a plain dict: use dict, or typing.NewType",
    ),
    "a RootModel that holds itself": (
        """
        class Json(pydantic.RootModel["dict[str, Json]"]): ...
        @service
        class Shop:
            async def fetch(self, e: Json) -> None: ...
        """,
        "Shop.fetch, parameter 'e': Json holds itself with no class in between; make one of them a dataclass",
    ),
    "a union of Structs of two layouts": (
        """
        class A(msgspec.Struct, tag=True): ...
        class B(msgspec.Struct, tag=True, array_like=True): ...
        @service
        class Shop:
            async def fetch(self, e: A | B) -> None: ...
        """,
        "Shop.fetch, parameter 'e': A and B are Structs of which some are array_like; make all of them "
        "so, or none",
    ),
    "a complex number": (
        """
        @service
        class Shop:
            async def fetch(self, e: complex) -> None: ...
        """,
        "Shop.fetch, parameter 'e': complex cannot travel; use tuple[float, float]",
    ),
    "a type": (
        """
        @service
        class Shop:
            async def fetch(self, e: type[int]) -> None: ...
        """,
        "Shop.fetch, parameter 'e': type[int] cannot travel; it belongs to its process; send the data "
        "that it stands for",
    ),
    "a union of Structs with one tag": (
        """
        class A(msgspec.Struct, tag="x"): ...
        class B(msgspec.Struct, tag="x"): ...
        @service
        class Shop:
            async def fetch(self, e: A | B) -> None: ...
        """,
        "Shop.fetch, parameter 'e': a receiver cannot tell A and B apart: all arrive as maps; make them "
        "Structs with a tag (msgspec.Struct, tag=True) or pydantic models with a Literal field each",
    ),
    "a TypedDict field that cannot travel": (
        """
        class Basket(TypedDict):
            where: NotRequired[pathlib.Path]
        @service
        class Shop:
            async def fetch(self, baskets: dict[str, Basket]) -> None: ...
        """,
        "Shop.fetch, parameter 'baskets': Basket.where: pathlib.Path cannot travel; use str",
    ),
    "a union of pydantic models without a Literal": (
        """
        class A(pydantic.BaseModel): ...
        class B(pydantic.BaseModel): ...
        @service
        class Shop:
            async def fetch(self, e: A | B) -> None: ...
        """,
        "Shop.fetch, parameter 'e': a receiver cannot tell A and B apart: all arrive as maps; make them "
        "Structs with a tag (msgspec.Struct, tag=True) or pydantic models with a Literal field each",
    ),
    "a tuple part that cannot travel": (
        """
        class Pair(NamedTuple):
            pair: tuple[int, object | complex]
            other: tuple[int, complex]
        @service
        class Shop:
            async def fetch(self, e: Pair) -> None: ...
        """,
        "Shop.fetch, parameter 'e': Pair.pair[1]: complex cannot travel; use tuple[float, float]",
    ),
    "an enum without members": (
        """
        class Color(enum.Enum): ...
        @service
        class Shop:
            async def fetch(self, e: Color) -> None: ...
        """,
        "Shop.fetch, parameter 'e': Color cannot travel: the values of an enum must be all str or all "
        "int, and these are []; change the values",
    ),
    "a default that is not among the values": (
        """
        @service
        class Shop:
            async def fetch(self, e: Literal["a", "b"] = "c") -> None: ...
        """,
        "Shop.fetch, parameter 'e': the default 'c' does not fit the declared type; change one of the two",
    ),
    "True as the default of an int": (
        """
        @service
        class Shop:
            async def fetch(self, e: int = True) -> None: ...
        """,
        "Shop.fetch, parameter 'e': the default True does not fit the declared type; change one of the two",
    ),
    "a number as the default of a list": (
        """
        @service
        class Shop:
            async def fetch(self, e: list[int] = 3) -> None: ...
        """,
        "Shop.fetch, parameter 'e': the default 3 does not fit the declared type; change one of the two",
    ),
    "an option on what takes none": (
        """
        @service
        class Shop:
            fetch = idempotent(len)
        """,
        "<built-in function len> takes no options: put the decorator on a function of a class",
    ),
}


@pytest.mark.parametrize(("source", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place_and_its_mend(declare: Declare, source: str, message: str) -> None:
    with pytest.raises(InterfaceError) as caught:
        declare(source)
    assert str(caught.value) == message


def test_a_service_cannot_be_declared_on_a_function(declare: Declare) -> None:
    with pytest.raises(InterfaceError, match=r"which is not a class; put it above a class"):
        declare("@service('greeter')\ndef greet(name: str) -> str: ...")


def test_a_field_is_named_by_its_path_from_the_message_down(declare: Declare) -> None:
    source = """
    @dataclass
    class Line:
        when: "threading.Thread"

    @dataclass
    class Basket:
        lines: list[Line]

    @service
    class Shop:
        async def fill(self, baskets: dict[str, Basket]) -> None: ...
    """
    with pytest.raises(InterfaceError, match=r"Basket\.lines\[\]\.when: threading\.Thread cannot travel"):
        declare(source)


def test_what_is_not_decorated_is_named_with_the_mend() -> None:
    for thing in (threading.Thread, object.__new__(threading.Thread)):
        with pytest.raises(
            InterfaceError, match=r"^threading\.Thread is not a service; put @rpcfw\.service above"
        ):
            spec_of(thing)


def test_a_class_declared_inside_a_function_goes_by_its_own_name() -> None:
    class Shop:
        async def get(self, thread: dict[str, threading.Thread | None]) -> None: ...

    with pytest.raises(
        InterfaceError, match=r"^Shop\.get, parameter 'thread': threading\.Thread cannot travel"
    ):
        service(Shop)


def test_a_composed_type_is_named_as_it_is_written(declare: Declare) -> None:
    source = """
    @service
    class Shop:
        async def get(self, keys: dict[tuple[int | None, ...], str]) -> None: ...
    """
    with pytest.raises(InterfaceError, match=r"tuple\[int \| None, \.\.\.\] cannot be the key of a dict"):
        declare(source)


def test_names_under_type_checking_are_told_at_decoration(declare: Declare) -> None:
    source = """
    if typing.TYPE_CHECKING:
        from shop import Invoice

    @service
    class Shop:
        async def bill(self) -> "Invoice": ...
    """
    with pytest.raises(
        InterfaceError, match=r"Shop\.bill: the annotation `Invoice` names 'Invoice'.*TYPE_CHECKING"
    ):
        declare(source)


def test_a_class_that_was_refused_is_not_a_service() -> None:
    class Shop:
        async def get(self, thread: threading.Thread) -> None: ...

    with pytest.raises(InterfaceError, match="cannot travel"):
        service(Shop)
    with pytest.raises(InterfaceError, match="is not a service"):
        spec_of(Shop)


@pytest.mark.parametrize("name", ["service", "with_options"])
def test_a_method_may_not_have_the_name_of_what_every_stub_has(declare: Declare, name: str) -> None:
    with pytest.raises(InterfaceError, match=rf"every stub has '{name}' for itself; rename the method"):
        declare(f"""
        @service
        class Shop:
            async def {name}(self) -> int: ...
        """)
