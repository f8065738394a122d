"""Comparing two versions: where they come from, that they do not mix, and how the verdicts are laid out."""

from __future__ import annotations

import json

import pytest

from rpcfw_codegen import CodegenError, check, schema_document, schemas_of
from tests.codegen.conftest import Project

OLD = """
print("modules may print")

@rpcfw.service("shop.Orders")
class Orders(Protocol):
    async def get(self, order_id: int) -> Order: ...
    async def drop(self, order_id: int) -> None: ...
"""
NEW = """
@rpcfw.service("shop.Orders")
class Orders(Protocol):
    async def get(self, order_id: int, note: str = "") -> Order: ...

@rpcfw.service("shop.Bills")
class Bills(Protocol):
    async def pay(self) -> None: ...
"""


@pytest.fixture
def versions(project: Project) -> Project:
    project.module("old/contract.py", OLD)
    project.module("new/contract.py", NEW)
    return project


@pytest.mark.parametrize(
    ("old", "new"), [("old", "new"), ("old/contract.py", "new/contract.py"), ("old/", "new/")]
)
def test_two_versions_of_one_module_do_not_mix(versions: Project, old: str, new: str) -> None:
    report = check(old, new, directory=versions.root)
    assert [(finding.kind, finding.path) for finding in report.breaking] == [
        ("method removed", "shop.Orders.drop")
    ]
    assert [(f.kind, f.service, f.method, f.path) for f in report.safe] == [
        ("parameter added", "shop.Orders", "get", "shop.Orders.get.note"),
        ("service added", "shop.Bills", "", "shop.Bills"),
    ]


def test_a_version_with_itself_has_no_change(versions: Project) -> None:
    report = check("old", "old/contract.py", directory=versions.root)
    assert report.findings == ()
    assert report.text() == "no change from old to old/contract.py, 1 service\n"


def test_the_text_has_a_line_for_each_change_in_columns_and_a_sum(versions: Project) -> None:
    first, second, third, total = check("old", "new", directory=versions.root).text().splitlines()
    assert first.startswith("BREAKING  method removed   shop.Orders.drop: the method was removed")
    assert second.startswith("safe      parameter added  shop.Orders.get.note: parameter 'note' was added")
    assert third.startswith("safe      service added    shop.Bills: ")
    assert total == "1 breaking and 2 safe changes from old to new, 2 services"


def test_the_document_is_json_with_every_finding(versions: Project) -> None:
    document = json.loads(json.dumps(check("old", "new", directory=versions.root).document()))
    assert (document["breaking"], document["safe"], document["services"]) == (1, 2, 2)
    assert document["changes"][0]["method"] == "drop"
    assert document["changes"][0]["breaking"] is True


def test_a_schema_file_stands_for_the_code_it_was_made_from(versions: Project) -> None:
    (versions.root / "old.json").write_text(schema_document("old", versions.root))
    assert check("old.json", "old", directory=versions.root).findings == ()
    one = schemas_of("old", versions.root)[0]
    (versions.root / "one.json").write_text(json.dumps(one))
    (versions.root / "list.json").write_text(json.dumps([one]))
    assert check("one.json", "list.json", directory=versions.root).findings == ()


def test_a_change_inside_a_message_names_the_message(versions: Project) -> None:
    head_and_order = (versions.root / "old/contract.py").read_text()
    versions.module("new/contract.py", head_and_order.replace("    id: int", "    id: str"), head="")
    (finding,) = check("old", "new", directory=versions.root).findings
    assert (finding.service, finding.method, finding.path) == ("shop.Orders", "", "Order.id")
    assert finding.breaking


def test_a_folder_is_read_without_its_tests_and_broken_scripts(versions: Project) -> None:
    versions.module("old/setup.py", "raise SystemExit('ran')")
    versions.module("old/test_orders.py", "raise SystemExit('ran')")
    versions.module("old/script.py", "import nothing_of_this_name")
    versions.package("old/tests")
    versions.module("old/tests/contract.py", NEW)
    assert [schema["service"] for schema in schemas_of("old", versions.root)] == ["shop.Orders"]


def test_a_package_is_compared_with_its_next_version(project: Project) -> None:
    for version, text in (("v1.0", OLD), ("v2.0", NEW)):
        project.package(f"{version}/shop")
        project.module(f"{version}/shop/contract.py", text)
    for old, new in (("v1.0/shop", "v2.0/shop"), ("v1.0", "v2.0")):
        assert len(check(old, new, directory=project.root).breaking) == 1


def test_a_dotted_name_is_imported_from_the_folder(versions: Project) -> None:
    versions.package("shop")
    versions.module("shop/contract.py", OLD)
    assert check("shop.contract", "old", directory=versions.root).findings == ()
    assert check("shop", "old", directory=versions.root).findings == ()


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("nowhere", "^nowhere: no module named 'nowhere'"),
        ("nowhere.json", "^nowhere.json: No such file"),
        ("broken.json", "^broken.json: not JSON"),
        ("other.json", "^other.json: JSON, but no schema of services"),
        ("empty", "^empty: empty declares no interface"),
        ("twice", "^twice: twice: a.Orders and b.Orders both declare the service 'shop.Orders'"),
        ("wrong", r"^wrong: Bad\.get, parameter 'x': the annotation is missing"),
        ("exits.py", "^exits.py: reading it ended with exit code 7"),
    ],
)
def test_a_side_that_cannot_be_read_is_named_with_the_reason(
    versions: Project, side: str, message: str
) -> None:
    (versions.root / "broken.json").write_text("{")
    (versions.root / "other.json").write_text('{"some": "thing"}')
    versions.module("empty/contract.py", "x = 1")
    versions.module("twice/a.py", OLD)
    versions.module("twice/b.py", OLD)
    versions.module(
        "wrong/contract.py", "@rpcfw.service\nclass Bad(Protocol):\n    async def get(self, x) -> int: ..."
    )
    versions.module("exits.py", "import os\nos._exit(7)")
    with pytest.raises(CodegenError, match=message):
        check("old", side, directory=versions.root)
