"""Generated files on disk: writing them, finding stale ones, and leaving alone what is not ours."""

from __future__ import annotations

import pytest

from rpcfw_codegen import CodegenError, stale, write
from tests.codegen.conftest import Project

ORDERS = """
@rpcfw.service("shop.Orders")
class Orders(Protocol):
    async def get(self, order_id: int) -> Order: ...
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.package("shop")
    project.module("shop/contract.py", ORDERS)
    return project


def test_writing_twice_changes_nothing_the_second_time(shop: Project) -> None:
    assert shop.write("shop", "shop/stubs") == ["shop/stubs/__init__.py", "shop/stubs/contract.py"]
    assert shop.write("shop", "shop/stubs") == []
    assert stale(shop.files("shop", "shop/stubs")) == []


def test_missing_stale_and_left_over_files_are_told_apart_with_a_diff_and_the_command(shop: Project) -> None:
    shop.module("shop/old.py", ORDERS.replace("Orders", "Old"))
    shop.write("shop", "shop/stubs")
    (shop.root / "shop/old.py").unlink()
    (shop.root / "shop/stubs/__init__.py").unlink()
    shop.module("shop/contract.py", ORDERS.replace("order_id", "id"))
    found = stale(shop.files("shop", "shop/stubs"))
    assert [(file.path.name, file.reason) for file in found] == [
        ("__init__.py", "missing"),
        ("contract.py", "stale"),
        ("old.py", "left over"),
    ]
    assert {file.command for file in found} == {"rpcfw gen shop -o shop/stubs"}
    assert "-    async def get(self, order_id: int) -> Order:" in found[1].diff
    assert "+    async def get(self, id: int) -> Order:" in found[1].diff
    assert "--- contract.py (on disk)\n+++ contract.py (generated now)\n" in found[1].diff
    assert all(line.startswith("-") for line in found[2].diff.splitlines()[3:])


def test_writing_removes_what_is_left_over_and_nothing_else(shop: Project) -> None:
    shop.module("shop/old.py", ORDERS.replace("Orders", "Old"))
    shop.write("shop", "shop/stubs")
    (shop.root / "shop/old.py").unlink()
    own = shop.root / "shop/stubs/by_hand.py"
    own.write_text("x = 1\n")
    assert shop.write("shop", "shop/stubs") == ["shop/stubs/__init__.py", "shop/stubs/old.py"]
    assert own.exists()
    assert not (shop.root / "shop/stubs/old.py").exists()


def test_a_file_written_by_hand_is_never_overwritten(shop: Project) -> None:
    shop.package("shop/stubs")
    by_hand = shop.module("shop/stubs/contract.py", "x = 1", head="")
    with pytest.raises(
        CodegenError, match=r"contract\.py was not made by `rpcfw gen`, and would be overwritten"
    ):
        shop.write("shop", "shop/stubs")
    assert by_hand.read_text() == "x = 1"
    assert (shop.root / "shop/stubs/__init__.py").read_text() == ""


def test_an_empty_init_may_be_overwritten(shop: Project) -> None:
    shop.package("shop/stubs")
    assert shop.write("shop", "shop/stubs") == ["shop/stubs/__init__.py", "shop/stubs/contract.py"]


def test_one_folder_holds_what_is_made_from_one_target(shop: Project) -> None:
    shop.module("other.py", ORDERS)
    shop.write("shop", "stubs")
    with pytest.raises(
        CodegenError, match="was made from shop, and one folder holds what is made from one target"
    ):
        shop.write("other", "stubs")


def test_a_generated_file_that_was_edited_is_stale(shop: Project) -> None:
    shop.write("shop", "shop/stubs")
    edited = shop.root / "shop/stubs/contract.py"
    edited.write_text(edited.read_text() + "# mine\n")
    (found,) = stale(shop.files("shop", "shop/stubs"))
    assert found.reason == "stale"
    write(shop.files("shop", "shop/stubs"))
    assert "# mine" not in edited.read_text()


def test_a_file_that_is_not_text_is_not_overwritten(shop: Project) -> None:
    shop.package("shop/stubs")
    (shop.root / "shop/stubs/contract.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CodegenError, match="was not made by"):
        stale(shop.files("shop", "shop/stubs"))
