"""`rpcfw call` against a server of another process: values in, replies out, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import RPCFW, TIMEOUT_S, Rpcfw


def test_a_reply_that_is_text_is_printed_as_it_is_and_with_json_in_quotes(at_shop: Rpcfw) -> None:
    place = ("call", "shop.Orders.place", 'item={"sku": "x"}')
    text = "Item(sku='x', count=1, picture=b'') None"
    assert at_shop(*place).out == f"{text}\n"
    assert at_shop(*place, "--json").out == f"{json.dumps(text)}\n"


def test_a_message_is_printed_as_json_for_people_and_on_one_line_for_programs(at_shop: Rpcfw) -> None:
    expected = {"sku": "blue-7", "count": 7, "picture": "base64:"}
    for_people = at_shop("call", "shop.Orders/get", "order_id=7", "color=blue").out
    for_programs = at_shop("call", "shop.Orders/get", "order_id=7", "color=blue", "--json").out
    assert json.loads(for_people) == json.loads(for_programs) == expected
    assert for_people.count("\n") > 1
    assert for_programs.count("\n") == 1


def test_values_are_read_as_the_method_declares_them(at_shop: Rpcfw, tmp_path: Path) -> None:
    key = uuid.uuid4()
    (tmp_path / "data").write_bytes(b"\x00\xff")
    done = at_shop(
        *("call", "shop.Orders.kinds", "when=2024-01-02T03:04:05", "wait=1.5", f"key={key}", "price=1.10"),
        *(f"data=@{tmp_path / 'data'}", "sure=yes", "rate=2", "note=null", 'parts={"1": "base64:AAE="}'),
        *('pair=[1, "two"]', "seen=[3, 3]", "mixed=007"),
    )
    assert done.err == ""
    assert json.loads(done.out) == [
        "datetime.datetime(2024, 1, 2, 3, 4, 5)",
        "datetime.timedelta(seconds=1, microseconds=500000)",
        repr(key),
        "Decimal('1.10')",
        repr(b"\x00\xff"),
        "True",
        "2.0",
        "None",
        repr({1: b"\x00\x01"}),
        repr((1, b"two")),
        "{3}",
        "'007'",
    ]


@pytest.mark.parametrize("arguments", ['[7, "blue"]', '{"order_id": 7, "color": "blue"}'])
def test_all_arguments_may_be_given_as_one_list_or_object(at_shop: Rpcfw, arguments: str) -> None:
    assert json.loads(at_shop("call", "shop.Orders/get", arguments).out)["sku"] == "blue-7"


def test_bytes_and_times_come_back_as_text_that_can_be_sent_again(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.back", "data=base64:AP8=", "times=2")
    assert json.loads(done.out) == {
        "data": "base64:AP8A/w==",
        "when": "2024-01-02T00:00:00+00:00",
        "more": [1.5, None],
    }


def test_arguments_come_as_an_object_from_an_option_or_stdin_and_pairs_win(at_shop: Rpcfw) -> None:
    both = '{"order_id": 1, "color": "blue"}'
    by_option = at_shop("call", "shop.Orders.get", "--args", both, "order_id=2", "--json")
    by_stdin = at_shop("call", "shop.Orders.get", "order_id=2", "--stdin", "--json", stdin=both)
    assert by_option.out == by_stdin.out
    assert json.loads(by_option.out)["sku"] == "blue-2"


def test_a_member_of_a_tagged_union_is_read_by_its_tag(at_shop: Rpcfw) -> None:
    done = at_shop(
        "call", "shop.Orders.place", 'item={"sku": "x"}', 'pay={"type": "Card", "number": "base64:AA=="}'
    )
    assert done.out.endswith(" Card(number=b'\\x00')\n")


def test_a_stream_is_printed_as_a_line_of_json_per_item(at_shop: Rpcfw) -> None:
    lines = at_shop("call", "shop.Orders.watch", "count=2").out.splitlines()
    assert [json.loads(line)["count"] for line in lines] == [0, 1]


def test_the_output_of_one_stream_is_the_input_of_another(at_shop: Rpcfw) -> None:
    items = at_shop("call", "shop.Orders.watch", "count=4").out
    assert at_shop("call", "shop.Orders.upload", "note=!", stdin=items).out == "6 in 4!\n"


def test_both_sides_may_stream(at_shop: Rpcfw) -> None:
    assert at_shop("call", "shop.Orders.double", stdin="1\n\n2\n").out == "2\n4\n"


def test_a_line_of_stdin_that_is_no_json_is_told_by_its_number(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.double", stdin="1\ntwo\n")
    assert done.code == 2
    assert "line 2 of stdin is not JSON" in done.err


def test_replies_of_one_way_calls_and_of_nothing(at_shop: Rpcfw) -> None:
    assert at_shop("call", "shop.Orders.tell", "what=x") == at_shop("call", "shop.Orders.tell", "what=y")
    assert at_shop("call", "shop.Orders.tell", "what=x").out == ""
    assert at_shop("call", "shop.Orders.nothing").out == "null\n"


def test_metadata_goes_and_comes(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.nothing", "-m", "caller=ada", "--show-metadata")
    assert done.err == "served-by: ada\n"


def test_a_declared_error_is_told_with_its_fields_and_exits_with_1(at_shop: Rpcfw) -> None:
    place = ("call", "shop.Orders.place", 'item={"sku": "x", "count": 9}')
    for_people, for_programs = at_shop(*place), at_shop(*place, "--json")
    assert (for_people.code, for_people.out) == (1, "")
    assert for_people.err == 'error: OutOfStock: sku="x", left=5\n'
    assert for_programs.code == 1
    assert json.loads(for_programs.err) == {"error": "OutOfStock", "fields": {"sku": "x", "left": 5}}


def test_a_declared_error_without_fields_is_told_with_its_arguments(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.place", 'item={"sku": "closed"}')
    assert (done.code, done.err) == (1, "error: Closed: until: Monday\n")


def test_an_undeclared_error_exits_with_1_and_shows_no_traceback_of_ours(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.fail")
    assert done.code == 1
    assert done.err.startswith("error: UNKNOWN: shop.Orders/fail failed with ZeroDivisionError")
    assert "Traceback" not in done.err
    assert "Traceback" in at_shop("call", "shop.Orders.fail", "--debug").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["shop.Orders.get"],
            "'order_id' is missing; the method is get(order_id: int, color: Color = 'red')",
        ),
        (["shop.Orders.get", "7"], "'7' is not key=value"),
        (["shop.Orders.get", "order_id=x"], "order_id='x' is not int"),
        (["shop.Orders.get", "order=7"], "no parameter 'order'"),
        (["shop.Orders.upload", "items=[]"], "read from stdin"),
        (
            ["shop.Orders.place", 'item={"skuu": "x"}'],
            "Item has no field 'skuu'; its fields are sku, count, picture",
        ),
        (["shop.Orders.place", "item=x"], "item='x' is not JSON; write Item as item='{\"sku\": ..."),
        (["shop.Orders.back", "data=base64:?"], "is not base64"),
        (["shop.Orders.back", "data=@nowhere"], "name a file after the @"),
        (["shop.Orders.get", "--args", "[]"], "--args is '[]'; give a JSON object"),
        (["shop.Orders.get", '[7, "red", 1]'], "has 3 arguments, too many; the method is get(order_id: int"),
        (["shop.Orders.get", '{"order": 7}'], "no parameter 'order'"),
        (["shop.Orders.get", "[7"], "'[7' is not JSON"),
        (["shop.Orders.get", "[7]", "color=red"], "'[7]' is not key=value"),
        (["shop.Orders.get", "[7]", "--args", "{}"], "--args and '[7]' both give the arguments"),
        (["shop.Orders.nothing", "-m", "x"], "--metadata 'x' is not key=value"),
        (["shop.Orders"], "name a method too: get, place"),
        (
            ["shop.Orders.get", "-e", "127.0.0.1:7000"],
            "is neither an endpoint nor a registry: start it with one of tcp://",
        ),
    ],
)
def test_wrong_usage_is_told_with_the_mend_and_exits_with_2(
    at_shop: Rpcfw, arguments: list[str], said: str
) -> None:
    done = at_shop("call", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop.Orders.gett", "order_id=7"], "shop.Orders has no method 'gett'; it has get, place"),
        (["shp.Orders.get", "order_id=7"], "no service 'shp.Orders' at this server; it serves shop.Orders"),
        (["get"], "no service 'get' at this server"),
        (
            ["shop.Orders.place", 'item={"sku": 1}'],
            "INVALID_ARGUMENT: shop.Orders/place: item.sku: expected `str`",
        ),
    ],
)
def test_a_refused_call_exits_with_4(at_shop: Rpcfw, arguments: list[str], said: str) -> None:
    done = at_shop("call", *arguments)
    assert (done.code, done.out) == (4, "")
    assert said in done.err


def test_no_server_and_no_reply_in_time_exit_with_3(at_shop: Rpcfw, rpcfw: Rpcfw, tmp_path: Path) -> None:
    nobody = rpcfw("call", "shop.Orders.get", "-e", f"unix://{tmp_path}/nobody.sock", "--json")
    assert nobody.code == 3
    assert json.loads(nobody.err)["error"] == "UNAVAILABLE"
    late = at_shop("call", "shop.Orders.forever", "--timeout", "0.05")
    assert late.code == 3
    assert "DEADLINE_EXCEEDED" in late.err


def test_a_reader_that_has_enough_ends_the_call_without_a_complaint(shop: str) -> None:
    caller = subprocess.Popen(
        [*RPCFW, "call", "shop.Orders.watch", "count=1000000", "-e", shop],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ},
    )
    assert caller.stdout is not None
    assert caller.stderr is not None
    with caller.stdout as out, caller.stderr as err:
        assert json.loads(out.readline())["count"] == 0
        out.close()
        assert caller.wait(TIMEOUT_S) == 141
        assert err.read() == b""


def test_a_call_that_ends_does_not_wait_for_a_silent_stdin(shop: str) -> None:
    command = [*RPCFW, "call", "shop.Orders.double", "-e", shop, "--timeout", "0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as caller:
        assert caller.wait(TIMEOUT_S) == 3
        assert caller.stderr is not None
        text = caller.stderr.read()
        assert text.startswith("error: DEADLINE_EXCEEDED")
        assert text.count("\n") == 1


def test_an_argument_given_twice_is_refused(at_shop: Rpcfw) -> None:
    done = at_shop("call", "shop.Orders.get", "order_id=1", "order_id=2")
    assert done.code == 2
    assert "'order_id' is given twice, the second time as 'order_id=2'" in done.err
