"""What is generated: which classes from which interfaces, and how each thing of an interface is written."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from rpcfw.errors import InterfaceError
from rpcfw_codegen import CodegenError, generate
from tests.codegen.conftest import FIXTURES, HEAD, REPOSITORY, Project

HEAD_NOT_POSTPONED = "import dataclasses\nfrom typing import *\nimport rpcfw\n"

ORDERS = '''
@rpcfw.service("shop.Orders")
class Orders(Protocol):
    """Orders of the shop."""

    async def get(self, order_id: int) -> Order:
        """One order."""
'''


def test_the_committed_stubs_of_the_fixture_are_what_is_generated(project: Project) -> None:
    committed = {path.name: path.read_text() for path in (FIXTURES / "bazaar/stubs").glob("*.py")}
    fixtures = dataclasses.replace(project, root=FIXTURES)
    assert fixtures.generate("bazaar", "bazaar/stubs") == committed
    fixtures.forget()


def test_each_interface_gives_a_stub_a_blocking_stub_and_a_skeleton(project: Project) -> None:
    text = project.contract(ORDERS)
    assert "class OrdersStub(rpcfw.Stub):" in text
    assert "class OrdersBlockingStub(rpcfw.BlockingStub):" in text
    assert "class OrdersSkeleton(rpcfw.Skeleton):" in text
    assert text.count('"""Orders of the shop."""') == 3
    assert text.count('"""One order."""') == 3


def test_the_output_does_not_depend_on_the_hash_seed(bazaar: Project) -> None:
    program = (
        "from pathlib import Path; from rpcfw_codegen import generate\n"
        "for file in generate('bazaar', Path('bazaar/stubs')): print(file.text)"
    )
    path = f"{REPOSITORY}:{REPOSITORY / 'codegen'}"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=bazaar.root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


def test_all_modules_of_a_package_are_read_and_each_gives_one_file(project: Project) -> None:
    project.package("shop")
    project.package("shop/orders")
    project.module("shop/orders/contract.py", ORDERS)
    project.module("shop/billing.py", ORDERS.replace("Orders", "Bills"))
    project.module("shop/other.py", "from shop.billing import Bills")
    made = project.generate("shop", "shop/stubs")
    assert sorted(made) == ["__init__.py", "billing.py", "orders_contract.py"]
    assert "from .billing import BillsBlockingStub, BillsSkeleton, BillsStub\n" in made["__init__.py"]
    assert (
        "from .orders_contract import OrdersBlockingStub, OrdersSkeleton, OrdersStub\n" in made["__init__.py"]
    )
    assert "from ..orders.contract import Order, Orders\n" in made["orders_contract.py"]


def test_only_a_concrete_class_has_no_skeleton(project: Project) -> None:
    text = project.contract("""
        @rpcfw.service
        class Greeter:
            def hello(self, name: str) -> str:
                return name

        @rpcfw.service
        class Half(abc.ABC):
            @abc.abstractmethod
            async def one(self) -> int: ...
            async def two(self) -> int:
                return 2
        """)
    assert "GreeterSkeleton" not in text
    assert "class HalfSkeleton(rpcfw.Skeleton):" in text
    assert "    async def hello(self, name: str) -> str:\n        return await self._call(" in text


def test_imports_are_relative_inside_the_package_and_absolute_outside(project: Project) -> None:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    assert "from ..contract import Order, Orders" in project.generate("shop", "shop/stubs")["contract.py"]
    assert "from ...contract import Order, Orders" in project.generate("shop", "shop/a/b")["contract.py"]
    assert "from shop.contract import Order, Orders" in project.generate("shop", "client")["contract.py"]
    elsewhere = project.root.parent / "elsewhere"
    assert (
        "from shop.contract import Order, Orders"
        in generate("shop", elsewhere, directory=project.root)[1].text
    )


def test_the_head_names_the_same_command_from_every_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "pyproject.toml").touch()
    project.package("src/shop")
    file = project.module("src/shop/contract.py", ORDERS)
    monkeypatch.syspath_prepend(project.root / "src")  # as if it were installed
    texts = []
    for target, output, directory in [
        ("shop", "src/shop/stubs", project.root),
        ("src/shop", "src/shop/stubs", project.root),
        ("shop", "shop/stubs", project.root / "src"),
        (str(file.parent), str(file.parent / "stubs"), project.root.parent),
    ]:
        project.forget()
        monkeypatch.chdir(directory)
        texts.append(generate(target, Path(output))[0].text)
    assert len(set(texts)) == 1
    assert "Made by `rpcfw gen src/shop -o src/shop/stubs`." in texts[0]


def test_a_single_module_is_named_by_its_path_or_its_name(project: Project) -> None:
    project.module("contract.py", ORDERS)
    assert project.generate("contract.py", "stubs") == project.generate("contract", "stubs")
    assert "from contract import Order, Orders" in project.generate("contract", "stubs")["contract.py"]


def test_a_narrower_width_breaks_lines_earlier_and_is_named_in_the_command(project: Project) -> None:
    project.module("contract.py", ORDERS)
    made = project.generate("contract", "stubs", width=60)
    assert "`rpcfw gen contract -o stubs --width 60`" in made["contract.py"]
    assert '__all__ = [\n    "OrdersBlockingStub",\n' in made["__init__.py"]


def test_a_package_that_imports_its_own_stubs_is_read_before_they_exist_and_when_they_are_stale(
    bazaar: Project,
) -> None:
    first = bazaar.generate("bazaar", "bazaar/stubs")
    stale = bazaar.root / "bazaar/stubs/__init__.py"
    stale.parent.mkdir()
    stale.write_text("from .contract import NothingOfThisName\n")
    assert bazaar.generate("bazaar", "bazaar/stubs") == first


def test_a_stand_in_for_stubs_is_forgotten_when_generating_is_over(bazaar: Project) -> None:
    bazaar.files("bazaar", "bazaar/stubs")
    left = [name for name in sys.modules if name.startswith("bazaar")]
    assert not any(type(sys.modules[name]).__name__ == "_StandInModule" for name in left)
    assert "bazaar.server" not in left
    assert (
        "bazaar.contract" not in left
    )  # its package is gone, and would not know it if that were imported again


def test_methods_that_are_called_like_types_do_not_hide_them(project: Project) -> None:
    text = project.contract("""
        @rpcfw.service
        class Store(Protocol):
            async def list(self, of: list[Order]) -> list[int]: ...
            async def Order(self, order: Order) -> None: ...
            async def abstractmethod(self) -> None: ...
            async def rpcfw(self) -> None: ...
        """)
    assert "import builtins\n" in text
    assert "async def list(self, of: builtins.list[ContractOrder]) -> builtins.list[int]:" in text
    assert "from contract import Order as ContractOrder" in text
    assert "from abc import abstractmethod as abc_abstractmethod" in text
    assert "import rpcfw as rpcfw_" in text
    project.write("contract", "stubs")
    assert project.load("stubs").StoreStub


def test_a_message_that_is_called_like_a_builtin_does_not_take_its_name(project: Project) -> None:
    project.module(
        "api.py",
        """
        @dataclasses.dataclass
        class bytes: ...

        @rpcfw.service
        class Blobs(Protocol):
            async def put(self, blob: bytes, raw: Raw) -> None: ...
        """,
        head=HEAD + "Raw = NewType('Raw', int)\nplain = bytes\n",
    )
    text = project.generate("api", "stubs")["api.py"]
    assert "async def put(self, blob: bytes, raw: Raw) -> None:" in text
    project.module(
        "api.py", (project.root / "api.py").read_text().replace("raw: Raw", "raw: list[plain]"), head=""
    )
    text = project.generate("api", "stubs")["api.py"]
    assert "async def put(self, blob: api_bytes, raw: list[bytes]) -> None:" in text


def test_names_of_constants_and_classes_stay_apart(project: Project) -> None:
    text = project.contract("""
        @rpcfw.service("a.Orders")
        class Orders(Protocol):
            async def get(self, get: int = 10**30) -> int: ...
            async def get_get(self) -> int: ...

        @rpcfw.service("a.OrdersGet")
        class OrdersGet(Protocol):
            async def go(self, _ORDERS: int) -> int: ...
        """)
    constants = [line.split(" = ")[0] for line in text.splitlines() if line.startswith("_")]
    assert len(set(constants)) == len(constants) == 6
    assert "_ORDERS_ = rpcfw.spec_of(Orders)" in text


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("Optional[int]", "int | None"),
        ("Union[int, str, None]", "int | str | None"),
        ("List[Dict[str, Tuple[int, ...]]]", "list[dict[str, tuple[int, ...]]]"),
        ("tuple[()]", "tuple[()]"),
        ("'Order'", "Order"),
        ("list['Order']", "list[Order]"),
        ("Literal['a', 1, None]", 'Literal["a", 1, None]'),
        ("dict", "dict"),
        ("Any", "Any"),
        ("Later", "Later"),
    ],
)
def test_a_type_is_written_as_people_write_it_today(project: Project, declared: str, written: str) -> None:
    text = project.contract(f"""
        class Later(TypedDict):
            x: int

        @rpcfw.service
        class Echo(Protocol):
            async def echo(self, value: {declared}) -> {declared}: ...
        """)
    assert f"    async def echo(self, value: {written}) -> {written}:" in text


NEW_SYNTAX = [
    ("type Ids = list[int]", "Ids", "from contract import Defined, Ids\n"),
    ("type Pair[T] = tuple[T, T]", "Pair[int]", "from contract import Defined, Pair\n"),
    (
        "@dataclasses.dataclass\nclass Page[T]:\n    items: list[T]",
        "Page[Order]",
        "import Defined, Order, Page\n",
    ),
]
OLD_SYNTAX = [
    ("Ids = NewType('Ids', int)", "Ids", "from contract import Defined, Ids\n"),
    ("T = TypeVar('T')\nPair: TypeAlias = tuple[T, T]", "tuple[int, int]", "from contract import Defined\n"),
]


@pytest.mark.parametrize(
    ("definition", "written", "imported"), OLD_SYNTAX + (NEW_SYNTAX if sys.version_info >= (3, 12) else [])
)
def test_a_type_with_a_name_is_imported_by_it(
    project: Project, definition: str, written: str, imported: str
) -> None:
    interface = f"""

@rpcfw.service
class Defined(Protocol):
    async def echo(self, value: {written.replace("tuple[int, int]", "Pair[int]")}) -> None: ...
"""
    text = project.contract(definition + interface)
    assert f"async def echo(self, value: {written}) -> None:" in text
    assert imported in text


def test_an_alias_is_kept_only_where_it_was_used(project: Project) -> None:
    project.module("names.py", "Ids = list[int]\nCounts = dict[str, int]")
    project.module(
        "contract.py",
        """
        import names
        from names import Counts

        Mine = Optional[Order]

        @rpcfw.service
        class Aliases(Protocol):
            async def one(self, a: names.Ids, b: list[int], c: list[Counts], d: dict[str, int]) -> Mine: ...
            async def two(self) -> Optional[Order]: ...
        """,
    )
    text = project.generate("contract", "stubs")["contract.py"]
    assert "async def one(self, a: Ids, b: list[int], c: list[Counts], d: dict[str, int]) -> Mine:" in text
    assert "async def two(self) -> Order | None:" in text
    assert "from names import Counts, Ids" in text  # from where they are assigned


def test_aliases_are_kept_without_postponed_annotations_too(project: Project) -> None:
    text = project.contract("""
        Ids = list[int]

        @rpcfw.service
        class Aliases(Protocol):
            async def one(self, a: list[Ids], b: list[int]) -> Ids: ...
        """)
    project.module(
        "contract.py",
        project.root.joinpath("contract.py").read_text().replace("from __future__ import annotations", ""),
        head="",
    )
    assert project.generate("contract", "stubs")["contract.py"] == text
    assert "a: list[Ids], b: list[int]) -> Ids:" in text


def test_a_class_of_another_package_is_imported_from_its_public_home(project: Project) -> None:
    project.module("vendor/__init__.py", "from vendor._inner import Money", head="")
    project.module("vendor/_inner.py", "@dataclasses.dataclass\nclass Money:\n    cents: int")
    project.module(
        "contract.py",
        """
        from vendor import Money

        @rpcfw.service
        class Till(Protocol):
            async def pay(self, money: Money) -> None: ...
        """,
    )
    assert "from vendor import Money\n" in project.generate("contract", "stubs")["contract.py"]


def test_a_message_class_inside_a_function_is_refused_with_its_name(project: Project) -> None:
    project.module(
        "contract.py",
        """
        def make():
            @dataclasses.dataclass
            class Hidden:
                x: int
            return Hidden

        @rpcfw.service
        class Uses(Protocol):
            async def get(self) -> make(): ...
        """,
        head=HEAD_NOT_POSTPONED,
    )
    with pytest.raises(
        CodegenError, match=r"contract uses 'Hidden', which is defined inside the function make\(\)"
    ):
        project.generate("contract", "stubs")


def test_an_interface_inside_a_function_is_refused_with_its_name(project: Project) -> None:
    project.module(
        "contract.py",
        """
        def make():
            @rpcfw.service
            class Hidden(Protocol):
                async def get(self) -> int: ...
            return Hidden

        Shown = make()
        """,
    )
    with pytest.raises(
        CodegenError, match=r"contract\.Shown is declared inside the function make\(\).*module level"
    ):
        project.generate("contract", "stubs")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x = 1", "contract declares no interface"),
        (
            "import nothing_of_this_name",
            "contract cannot be imported, ModuleNotFoundError: .*nothing_of_this_name",
        ),
        ("raise SystemExit(3)", "contract cannot be imported, SystemExit: 3"),
        (
            """
            class A:
                @rpcfw.service("one")
                class X(Protocol):
                    async def get(self) -> int: ...
            class B:
                @rpcfw.service("two")
                class X(Protocol):
                    async def get(self) -> int: ...
            """,
            "A.X and B.X would both give a class XStub",
        ),
    ],
)
def test_what_cannot_be_generated_is_told_with_its_mend(project: Project, body: str, message: str) -> None:
    project.module("contract.py", body)
    with pytest.raises(CodegenError, match=message):
        project.generate("contract", "stubs")


def test_a_wrong_declaration_is_told_in_its_own_words(project: Project) -> None:
    project.module(
        "contract.py", "@rpcfw.service\nclass Bad(Protocol):\n    async def get(self, x) -> int: ...\n"
    )
    with pytest.raises(InterfaceError, match=r"Bad\.get, parameter 'x': the annotation is missing"):
        project.generate("contract", "stubs")


@pytest.mark.parametrize(
    ("target", "output", "message"),
    [
        ("nowhere", "stubs", "no module named 'nowhere'"),
        ("shop.nowhere", "stubs", "no module named 'shop.nowhere'"),
        ("shop/nowhere.py", "stubs", "no file or folder 'shop/nowhere.py'"),
        ("a-b", "stubs", "'a-b' is neither a module's name"),
        ("shop", "shop", "holds the interfaces themselves; .*such as .*shop/stubs"),
        ("shop.contract", "shop", "holds the interfaces themselves"),
        ("shop", ".", "holds the interfaces themselves"),
        ("shop", "gen-stubs", "no package can be named 'gen-stubs'"),
    ],
)
def test_targets_and_folders_that_cannot_be_are_refused(
    project: Project, target: str, output: str, message: str
) -> None:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    with pytest.raises(CodegenError, match=message):
        project.generate(target, output)


def test_an_interface_in_the_init_of_a_package_is_imported_from_the_package(project: Project) -> None:
    project.module("shop/__init__.py", ORDERS)
    text = project.generate("shop", "shop/stubs")["shop.py"]
    assert "from .. import Order, Orders\n" in text


def test_an_inherited_method_is_written_with_the_types_of_the_heir(project: Project) -> None:
    project.module(
        "base.py", "T = TypeVar('T')\nclass Store(Protocol[T]):\n    async def load(self) -> list[T]: ...\n"
    )
    project.module(
        "contract.py",
        """
        from base import Store

        @rpcfw.service
        class Orders(Store[Order], Protocol): ...
        """,
    )
    assert "async def load(self) -> list[Order]:" in project.generate("contract", "stubs")["contract.py"]


def test_an_interface_counts_only_where_it_is_declared(project: Project) -> None:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    project.module(
        "shop/server.py",
        """
        from shop.contract import Orders

        class Shop(Orders):
            pass

        Other = Orders
        """,
    )
    assert sorted(project.generate("shop", "shop/stubs")) == ["__init__.py", "contract.py"]


def test_metadata_that_cannot_be_written_is_left_out_of_annotated(project: Project) -> None:
    text = project.contract("""
        @dataclasses.dataclass(frozen=True)
        class Unit:
            name: str
            scale: int = 1

        class Opaque: ...

        @rpcfw.service
        class Weights(Protocol):
            async def one(self, a: list[Annotated[int, Unit("kg")]], b: list[Annotated[int, Opaque()]]) -> None: ...
        """)
    assert 'a: list[Annotated[int, Unit(name="kg", scale=1)]], b: list[int]' in text


def test_a_module_that_is_hidden_by_another_of_its_name_is_told_apart(project: Project) -> None:
    project.module("queue.py", ORDERS)
    import queue

    assert queue
    with pytest.raises(CodegenError, match=r"queue is not .*which has the same name; rename your module"):
        project.generate("queue.py", "stubs")


def test_a_broken_module_without_interfaces_does_not_stop_the_others(project: Project) -> None:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    project.module("shop/migration.py", "import nothing_of_this_name")
    assert "contract.py" in project.generate("shop", "shop/stubs")
    project.module("shop/migration.py", ORDERS + "import nothing_of_this_name")
    with pytest.raises(CodegenError, match=r"shop\.migration cannot be imported"):
        project.generate("shop", "shop/stubs")


def test_the_main_module_of_a_package_is_not_run(project: Project) -> None:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    project.module("shop/__main__.py", ORDERS + "raise SystemExit('ran')")
    assert "contract.py" in project.generate("shop", "shop/stubs")


def test_two_interfaces_of_one_name_in_a_package_are_refused(project: Project) -> None:
    project.package("shop")
    project.module("shop/one.py", ORDERS)
    project.module("shop/two.py", ORDERS)
    with pytest.raises(CodegenError, match="an interface Orders in both one and two"):
        project.generate("shop", "shop/stubs")


def test_the_reserved_names_are_the_public_ones_of_the_runtime() -> None:
    import rpcfw
    from rpcfw.interface.declare import RESERVED

    bases = (rpcfw.Stub, rpcfw.BlockingStub, rpcfw.Skeleton)
    names = {
        name for base in bases for name in [*vars(base), *base.__annotations__] if not name.startswith("_")
    }
    assert set(RESERVED) == names
