"""The timeline: what the text and the page show of a trace, and that the page stands alone."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from rpcfw.testing.timeline import CURES, DOWN, FAULTS, UP, Arrow, arrows_of, as_html, as_text
from rpcfw.testing.trace import Trace


def new_trace(keep: int = 1_000) -> Trace:
    return Trace(itertools.count(1000.0, 0.25).__next__, keep=keep)


def eventful() -> Trace:
    trace = new_trace()
    call = trace.send("client", "orders", "CALL get", bytes=60)
    trace.receive(call, "client", "orders")
    reply = trace.send("orders", "client", "REPLY")
    trace.record("partition", "", "client | orders")
    trace.lose(reply, "orders", "client", "partition")
    trace.record("crash", "orders", "power", torn=True)
    trace.record("elected", "client", "term 4")
    trace.record("restart", "orders")
    trace.send("client", "orders", "CALL put")
    return trace


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert not set("<>&") & set(found[1])
    data: dict[str, Any] = json.loads(found[1])
    return data


# ------------------------------------------------------------------------------------------ arrows


def test_a_message_ends_where_it_arrived_where_it_was_lost_or_nowhere() -> None:
    assert arrows_of(list(eventful())) == [
        Arrow(0, 1, "client", "orders", "ok"),
        Arrow(2, 4, "orders", "client", "lost"),
        Arrow(8, -1, "client", "orders", "open"),
    ]


def test_a_message_lost_sent_again_and_duplicated_has_an_arrow_for_each_way() -> None:
    trace = new_trace()
    message = trace.send("a", "b")
    trace.lose(message, "a", "b")
    trace.receive(message, "a", "b")
    trace.receive(message, "a", "b")
    assert arrows_of(list(trace)) == [
        Arrow(0, 1, "a", "b", "lost"),
        Arrow(0, 2, "a", "b", "ok"),
        Arrow(0, 3, "a", "b", "ok"),
    ]


def test_a_message_sent_before_what_is_kept_comes_from_above() -> None:
    trace = new_trace(keep=2)
    message = trace.send("a", "b")
    trace.record("note", "a")
    trace.receive(message, "a", "b")
    assert arrows_of(list(trace)) == [Arrow(-1, 1, "a", "b", "ok")]
    assert data_of(as_html(trace))["arrows"] == [[-1, 1, 0, 1, "ok"]]


def test_a_send_recorded_without_an_id_is_a_plain_event() -> None:
    trace = new_trace()
    trace.record("send", "a", "by hand")
    assert arrows_of(list(trace)) == []
    assert "a send: by hand" in as_text(trace)
    assert data_of(as_html(trace))["events"] == [[1000.0, "send", "note", 0, "by hand"]]


# ------------------------------------------------------------------------------------------ text

EXPECTED = """\
            time  client    orders
   1000.000000 s  ●────────▷│           #0 client → orders: CALL get bytes=60
   1000.250000 s  │─────────▶           #0 client → orders arrived
   1000.500000 s  │◁────────●           #1 orders → client: REPLY
   1000.750000 s  ┿━━━━━━━━━┿━━━━━━━━━  network partition: client | orders
   1001.000000 s  │    ✗────│           #1 orders → client lost: partition
   1001.250000 s  │         ◆           orders crash: power torn=True
   1001.500000 s  ■         ┊           client elected: term 4
   1001.750000 s  │         ▲           orders restart
   1002.000000 s  ●────────▷│           #2 client → orders: CALL put
"""


def test_the_text_has_a_lane_for_each_host_and_a_line_for_each_event() -> None:
    assert as_text(eventful()) == EXPECTED


def test_an_arrow_crosses_the_lanes_between_and_a_message_to_itself_stays() -> None:
    trace = new_trace()
    for host in ("a", "b", "c"):
        trace.record("start", host)
    trace.lose(trace.send("a", "c"), "a", "c")
    trace.receive(trace.send("b", "b"), "b", "b")
    lanes = [line[18:39].rstrip() for line in as_text(trace).splitlines()[4:]]
    assert lanes == [
        "●─────────┼────────▷│",
        "│─────────✗         │",
        "│         ●         │",
        "│         ◀         │",
    ]


def test_the_text_can_show_the_latest_events_alone_and_says_what_came_before() -> None:
    lines = as_text(eventful(), last=2).splitlines()
    assert lines[0] == "... 7 earlier events"
    assert [line[40:] for line in lines[2:]] == ["orders restart", "#2 client → orders: CALL put"]
    trace = new_trace(keep=10)
    for number in range(2_000):
        trace.record("tick", "a", str(number))
    assert as_text(trace, last=3).splitlines()[0] == "... 1,997 earlier events, 1,990 of them not kept"


def test_a_host_that_was_down_before_the_latest_events_is_shown_down() -> None:
    trace = new_trace()
    trace.record("crash", "a")
    trace.record("note", "b")
    assert as_text(trace, last=1).splitlines()[-1].startswith("   1000.250000 s  ┊         ■")


def test_the_end_of_another_fault_does_not_show_a_host_that_is_down_as_up() -> None:
    trace = new_trace()
    trace.record("crash", "a")
    trace.record("heal", "a", "slow is over")
    trace.record("note", "b")
    trace.record("restart", "a")
    trace.record("note", "b")
    assert [line[18] for line in as_text(trace).splitlines()[1:]] == ["◆", "▲", "┊", "▲", "│"]


def test_an_empty_trace_makes_a_text_and_a_page() -> None:
    assert as_text(new_trace()) == "            time\n"
    assert data_of(as_html(new_trace()))["events"] == []


# ------------------------------------------------------------------------------------------ the page


class Resources(HTMLParser):
    """Collects everything that a page would load, and how often each element opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                self.loads.append(value or "")


def test_the_page_loads_nothing_and_forbids_loading() -> None:
    page = as_html(eventful())
    resources = Resources()
    resources.feed(page)
    assert resources.loads == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML|document\.write", page)


def test_the_page_holds_every_event_and_arrow() -> None:
    trace = eventful()
    data = data_of(as_html(trace, title="a <title> & more"))
    assert (data["title"], data["first"], data["hosts"]) == ("a <title> & more", 0, ["client", "orders"])
    assert data["about"] == f"9 events, digest {trace.digest()[:16]}"
    assert data["events"][0] == [
        1000.0,
        "send",
        "message",
        0,
        "CALL get",
        {"message": 0, "peer": "orders", "bytes": 60},
    ]
    assert data["events"][3] == [1000.75, "partition", "fault", -1, "client | orders"]
    assert [event[2] for event in data["events"]][5:8] == ["fault", "note", "cure"]
    assert (data["down"]["crash"], data["down"]["pause"]) == ("down", "paused")
    assert "restart" in data["up"]
    assert data["arrows"] == [[0, 1, 0, 1, "ok"], [2, 4, 1, 0, "lost"], [8, -1, 0, 1, "open"]]


def test_the_page_says_how_many_events_it_does_not_hold() -> None:
    trace = new_trace(keep=10)
    for number in range(2_000):
        trace.record("tick", "a", str(number))
    data = data_of(as_html(trace))
    assert (data["first"], len(data["events"])) == (1_990, 10)
    assert data["about"].startswith("the last 10 of 2,000 events")


@pytest.mark.parametrize(
    "text",
    ["</script><script>alert(1)</script>", "<!--", "]]>", "@DATA@", "\u2028 \udc80 é", '"\\n'],
)
def test_no_text_of_an_event_is_taken_for_markup(text: str) -> None:
    trace = new_trace()
    trace.record(text, text, text, detail=text)
    page = as_html(trace, title=text)
    resources = Resources()
    resources.feed(page)
    assert resources.scripts == 2
    data = data_of(page)
    assert (data["title"], data["hosts"], data["events"][0][4:]) == (text, [text], [text, {"detail": text}])
    page.encode()


def test_numbers_that_json_cannot_say_become_text() -> None:
    trace = new_trace()
    trace.record("note", "a", "", worst=float("inf"), mean=float("nan"), share=0.5)
    assert data_of(as_html(trace))["events"][0][5] == {"worst": "inf", "mean": "nan", "share": 0.5}


def test_equal_traces_give_equal_pages_and_texts() -> None:
    assert as_html(eventful()) == as_html(eventful())
    assert as_text(eventful()) == as_text(eventful())


def test_thousands_of_events_make_a_page_of_bounded_size() -> None:
    trace = new_trace(keep=20_000)
    for number in range(10_000):
        trace.receive(trace.send(f"n{number % 25}", "hub", "APPEND"), f"n{number % 25}", "hub")
    page = as_html(trace)
    assert len(page) < 20_000 * 150
    assert len(data_of(page)["arrows"]) == 10_000


def test_no_kind_of_event_is_both_a_fault_and_its_cure() -> None:
    assert not FAULTS & CURES
    assert DOWN.keys() <= FAULTS
    assert UP <= CURES
