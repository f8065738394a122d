"""A trace for people: as text with a lane for each host, and as one HTML page that needs nothing else.

Only what the trace still keeps can be shown; both say how much came before. The page's own code is in timeline.html.
After the message sequence charts of ITU-T Z.120, and ShiViz (Beschastnikh et al., CACM 59(8), 2016).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from rpcfw.testing.trace import LOST, RECEIVE, SEND, Detail, Event, Trace

FAULTS = frozenset(
    {"crash", "cut", "disk", "drift", "fault", "kill", "lossy", "one_way", "overflow", "partition", "pause"}
    | {"rot", "slow", "stop", "violation"}
)
"""Kinds of event that are drawn as faults."""
CURES = frozenset({"heal", "restart", "restore", "resume", "start"})
"""Kinds of event that are drawn as the end of a fault."""
DOWN: Mapping[str, str] = {"crash": "down", "cut": "down", "kill": "down", "stop": "down", "pause": "paused"}
"""After which kinds a host does nothing for a while, and how that is drawn."""
UP = frozenset({"restart", "restore", "resume", "start"})
"""After which kinds it goes on. Not "heal": that ends a fault, maybe one of several."""

Fate: TypeAlias = Literal["ok", "lost", "open"]

_MESSAGES = frozenset({SEND, RECEIVE, LOST})
_TEMPLATE = "timeline.html"
_LANE_COLUMNS = 10
_TIME_COLUMNS = 16


class Arrow(NamedTuple):
    """A message's way between two rows; -1 for a row that is not kept, or that never came."""

    sent: int
    ended: int
    source: str
    target: str
    fate: Fate

    @property
    def first(self) -> int:
        """The row where it begins to be seen."""
        return self.sent if self.sent >= 0 else self.ended


def arrows_of(events: Sequence[Event]) -> list[Arrow]:
    """The ways of all messages, by the row where they begin. One that was sent twice has two ways."""
    sent: dict[Detail, int] = {}
    ended: set[Detail] = set()
    arrows: list[Arrow] = []
    for row, event in enumerate(events):
        if not _is_message(event):
            continue
        message, peer = event.details["message"], str(event.details["peer"])
        if event.kind == SEND:
            sent[message] = row
        else:
            ended.add(message)
            source, target = (peer, event.host) if event.kind == RECEIVE else (event.host, peer)
            fate: Fate = "lost" if event.kind == LOST else "ok"
            arrows.append(Arrow(sent.get(message, -1), row, source, target, fate))
    for message, row in sent.items():
        if message not in ended:
            arrows.append(Arrow(row, -1, events[row].host, str(events[row].details["peer"]), "open"))
    return sorted(arrows, key=lambda arrow: arrow.first)


def hosts_of(events: Iterable[Event]) -> list[str]:
    """Every host that takes part, by its first appearance."""
    hosts: dict[str, None] = {}
    for event in events:
        names = [event.host, str(event.details["peer"])] if _is_message(event) else [event.host]
        hosts.update(dict.fromkeys(name for name in names if name))
    return list(hosts)


def as_text(trace: Trace, *, last: int | None = None) -> str:
    """A line for each event, the latest `last` or all that are kept: time, a lane for each host, what happened.

    A filled arrow head arrives, a hollow one sets out, a cross is where a message is lost; a dotted lane belongs to a
    host that is down or paused.
    """
    events = list(trace)
    hosts = hosts_of(events)
    columns = max([_LANE_COLUMNS, *(len(host) + 2 for host in hosts)])
    lanes = {host: index * columns for index, host in enumerate(hosts)}
    shown = len(events) if last is None else min(last, len(events))
    hidden = trace.recorded - shown
    lines = [
        f"... {hidden:,} earlier events" + (f", {trace.dropped:,} of them not kept" if trace.dropped else "")
    ]
    if not hidden:
        lines.clear()
    names = "".join(host.ljust(columns) for host in hosts)
    lines.append(f"{'time':>{_TIME_COLUMNS}}  {names}".rstrip())
    down: set[str] = set()
    for row, event in enumerate(events):
        if event.kind in DOWN:
            down.add(event.host)
        elif event.kind in UP:
            down.discard(event.host)
        if row >= len(events) - shown:
            drawn = _lanes(event, lanes, columns, down)
            lines.append(f"{event.time_s:{_TIME_COLUMNS - 2}.6f} s  {drawn}  {_sentence(event)}")
    return "\n".join(lines) + "\n"


def as_html(trace: Trace, *, title: str = "Timeline") -> str:
    """One page without any outside resource: time runs down, hosts are lanes, messages arrows, faults marks.

    It zooms, finds, and tells the details of what the pointer is on. Equal traces give equal pages. An event takes some
    100 bytes of it.
    """
    events = list(trace)
    hosts = hosts_of(events)
    lanes = {host: index for index, host in enumerate(hosts)}
    about = f"{trace.recorded:,} events, digest {trace.digest()[:16]}"
    if trace.dropped:
        about = f"the last {len(events):,} of {about}"
    rows: list[list[Any]] = []
    for event in events:
        row = [event.time_s, event.kind, _class(event), lanes.get(event.host, -1), event.text]
        rows.append([*row, dict(event.details)] if event.details else row)
    ways = [
        [arrow.sent, arrow.ended, lanes[arrow.source], lanes[arrow.target], arrow.fate]
        for arrow in arrows_of(events)
    ]
    data = {
        "title": title,
        "about": about,
        "first": trace.dropped,
        "hosts": hosts,
        "events": rows,
        "arrows": ways,
        "down": dict(DOWN),
        "up": sorted(UP),
    }
    return _page().replace("@DATA@", _inert(data), 1)


def _page() -> str:
    return importlib.resources.files("rpcfw.testing").joinpath(_TEMPLATE).read_text(encoding="utf-8")


def _inert(data: object) -> str:
    """JSON in ASCII that no HTML parser takes for markup. JSON has no word for nan or infinity: those become text."""
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(member) for member in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


def _is_message(event: Event) -> bool:
    return event.kind in _MESSAGES and "message" in event.details and "peer" in event.details


def _class(event: Event) -> str:
    if _is_message(event):
        return "message"
    return "fault" if event.kind in FAULTS else "cure" if event.kind in CURES else "note"


def _lanes(event: Event, lanes: dict[str, int], columns: int, down: set[str]) -> str:
    drawn = [" "] * (columns * len(lanes))
    for host, at in lanes.items():
        drawn[at] = "┊" if host in down else "│"
    if _is_message(event):
        source, target = event.host, str(event.details["peer"])
        if event.kind == RECEIVE:
            source, target = target, source
        _way(drawn, lanes[source], lanes[target], event.kind)
    elif event.host in lanes:
        drawn[lanes[event.host]] = {"fault": "◆", "cure": "▲", "note": "■"}[_class(event)]
    else:
        drawn = ["┿" if cell != " " else "━" for cell in drawn]
    return "".join(drawn)


def _way(drawn: list[str], source: int, target: int, kind: str) -> None:
    step = 1 if target > source else -1
    if source == target:
        drawn[source] = {SEND: "●", RECEIVE: "◀", LOST: "✗"}[kind]
        return
    for at in range(source + step, target, step):
        drawn[at] = "─" if drawn[at] == " " else "┼"
    if kind == SEND:
        drawn[source] = "●"
        drawn[target - step] = "▷" if step > 0 else "◁"
    elif kind == RECEIVE:
        drawn[target] = "▶" if step > 0 else "◀"
    else:
        middle = (source + target) // 2
        drawn[middle] = "✗"
        for at in range(middle + step, target, step):
            drawn[at] = "│" if drawn[at] == "┼" else " "


def _sentence(event: Event) -> str:
    details = dict(event.details)
    if _is_message(event):
        message, peer = details.pop("message"), details.pop("peer")
        way = f"{peer} → {event.host}" if event.kind == RECEIVE else f"{event.host} → {peer}"
        head = f"#{message} {way}" + {SEND: "", RECEIVE: " arrived", LOST: " lost"}[event.kind]
    else:
        head = f"{event.host or 'network'} {event.kind}"
    tail = "".join(f" {name}={value}" for name, value in details.items())
    return head + (f": {event.text}" if event.text else "") + tail
