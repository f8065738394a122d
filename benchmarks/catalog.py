"""Which subjects there are. Those of `benchmarks.peers` are found by their files, since each needs its own packages."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.subject import load

_PEERS = Path(__file__).with_name("peers")
_DEFINES_SUBJECT = re.compile(r"^SUBJECT\b", re.MULTILINE)
_NAME = re.compile(r'^    name(?:: [^=]+)? = "(.+)"', re.MULTILINE)


class Kind(enum.StrEnum):
    """What a subject is there for."""

    LIMIT = "limit"
    OURS = "ours"
    PEER = "peer"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A subject that may be measured.

    Attributes:
        module: below `benchmarks`, as `benchmarks.subject.load` takes it.
        kind: see there.
        name: as the tables have it.
    """

    module: str
    kind: Kind
    name: str


_LIMITS = (
    "limits.echo:awaited",
    "limits.echo:callbacks",
    "limits.echo:batched",
    "limits.echo:counted",
    "limits.epoll",
    "limits.blocking",
    "limits.datagrams",
    "limits.cold",
)
_OURS = (
    "ours.orders:rpcfw",
    "ours.orders:structs",
    "ours.orders:models",
    "ours.orders:dicts",
    "ours.orders:bytes",
    "ours.orders:unix",
    "ours.orders:tls",
    "ours.orders:memory",
    "ours.orders:asyncio",
    "ours.everything",
    "ours.oneway:udp",
    "ours.oneway:tcp",
    "ours.workers:one",
    "ours.workers:two",
    "ours.cold:serve",
    "ours.cold:run",
    "ours.overload",
)


def entries() -> list[Entry]:
    """All of them: limits, rpcfw, then the peers by name."""
    found = [
        Entry(module, kind, load(module).name)
        for kind, modules in ((Kind.LIMIT, _LIMITS), (Kind.OURS, _OURS))
        for module in modules
    ]
    for path in sorted(_PEERS.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if _DEFINES_SUBJECT.search(text):  # not imported, since its packages may be missing
            name = _NAME.search(text)
            found.append(Entry(f"peers.{path.stem}", Kind.PEER, name[1] if name else path.stem))
    return found


def chosen(among: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Those with one of these names, or with it after the comma, or of that kind; limits and plain rpcfw always.

    Raises ValueError for a name that none has.
    """
    for name in names:
        if not any(_called(entry, name) for entry in among):
            known = ", ".join(repr(entry.name) for entry in among if entry.kind is not Kind.LIMIT)
            raise ValueError(f"no subject is called {name!r}; there are 'ours', 'peer', {known}")
    return [
        entry
        for entry in among
        if not names
        or entry.kind is Kind.LIMIT
        or entry.name == "rpcfw"
        or any(_called(entry, name) for name in names)
    ]


def _called(entry: Entry, name: str) -> bool:
    _, _, rest = entry.name.partition(", ")
    return name.lower() in (entry.kind, entry.name.lower(), rest.lower())
