"""What etcd says of one service, followed by one task: a range once, then a watch from the next revision on.

After a break the watch goes on where it was. When the history it needs was compacted, the range is read anew; when
etcd has lost its data, what was known stays known for the time of a lease, in which servers register again. A range is
read again now and then, against a watch that has died without a word. Source: etcd's documentation, "KV API
guarantees" and "Interacting with etcd: watch historical changes of keys".
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable

import msgspec

from rpcfw.registry.etcd_gateway import Gateway, Head, KeyValue, Ranged, Stream, Watched
from rpcfw.registry.etcd_keys import folder_of, range_of
from rpcfw.registry.registration import Registration
from rpcfw.registry.remote import Away, Entries, Pauses
from rpcfw.registry.snapshots import MAX_REGISTRATIONS

log = logging.getLogger("rpcfw.registry")

CHECK_S = 10.0
"""How often the range is read beside the watch. Also the longest that a watch which died silently goes unnoticed."""
_CHECK_AFTER_BREAK_S = 2.0
"""After a break the range is read within this time, at a moment of chance, so that not all clients read at once."""


@dataclasses.dataclass(slots=True)
class _Lost:
    """A registration that was there before etcd lost its data."""

    registration: Registration
    until: float


class Follower:
    """Follows one service and publishes each change.

    Args:
        gateway: etcd.
        prefix: of all keys.
        service: whose registrations.
        grace_s: how long registrations stay known after etcd has lost its data.
        publish: told of all registrations after each change.
    """

    def __init__(
        self,
        gateway: Gateway,
        prefix: str,
        service: str,
        *,
        grace_s: float,
        publish: Callable[[frozenset[Registration]], None],
    ) -> None:
        self._gateway = gateway
        self._folder = folder_of(prefix, service)
        self._service = service
        self._grace_s = grace_s
        self._publish = publish
        self._entries = Entries("etcd")
        self._known: dict[bytes, Registration] = {}
        self._lost: dict[bytes, _Lost] = {}
        self._head: Head | None = None
        """Up to which revision all is known, of which etcd."""
        self._to_read = True
        """The range has to be read before the watch can go on."""
        self._check_at = 0.0
        self._fault = ""

    async def run(self, report: Callable[[str], None], rng: random.Random) -> None:
        """Follow until cancelled. `report` is told of each problem, and of its end by an empty text."""
        loop = asyncio.get_running_loop()
        pauses = Pauses(rng)
        while True:
            try:
                if self._to_read:
                    self._take(await self._range())
                    self._check_at = loop.time() + CHECK_S
                else:
                    self._check_at = loop.time() + rng.uniform(0.0, _CHECK_AFTER_BREAK_S)
                create = {**range_of(self._folder), "start_revision": str(self._revision + 1)}
                async with self._gateway.watch(create) as stream:
                    while True:
                        message = await self._message(stream)
                        if message.created:
                            pauses.reset()
                            report("")
                        if not self._apply(message):
                            break
            except Away as away:
                report(str(away))
                await asyncio.sleep(pauses.next_s())
            except Exception as error:  # a fault here must not end the watch
                problem = f"watching {self._service} in etcd failed with {error!r}: please report this"
                if problem != self._fault:
                    self._fault = problem
                    log.exception("watching %s in etcd failed", self._service)
                report(problem)
                await asyncio.sleep(pauses.next_s())

    async def _message(self, stream: Stream) -> Watched:
        """The next message of the watch, and what else comes due while waiting for it."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(
                    min([self._check_at, *(lost.until for lost in self._lost.values())])
                ):
                    return await stream.next()
            except TimeoutError:
                pass
            self._lost = {key: lost for key, lost in self._lost.items() if lost.until > loop.time()}
            self._say()
            if loop.time() >= self._check_at:
                before = self._known
                self._take(await self._range())
                self._check_at = loop.time() + CHECK_S
                if self._known != before:
                    raise Away(f"etcd has not told of a change of {self._service}: watching it anew")

    async def _range(self) -> Ranged:
        body = {**range_of(self._folder), "limit": MAX_REGISTRATIONS + 1}
        return await self._gateway.ask("kv/range", body, Ranged)

    @property
    def _revision(self) -> int:
        return self._head.revision if self._head is not None else 0

    def _is_another(self, head: Head) -> bool:
        """True when this is not the etcd whose revisions are known: another cluster, or one that lost its data."""
        known = self._head
        return known is not None and (
            head.cluster_id != known.cluster_id
            or head.revision < known.revision
            or head.raft_term < known.raft_term
        )

    def _take(self, ranged: Ranged) -> None:
        """All there is, as a range says."""
        if self._is_another(ranged.header):
            until = asyncio.get_running_loop().time() + self._grace_s
            self._lost |= {key: _Lost(registration, until) for key, registration in self._known.items()}
        self._known = {}
        for entry in ranged.kvs:
            self._put(entry)
        self._head = ranged.header
        self._to_read = False
        self._say()

    def _apply(self, message: Watched) -> bool:
        """What the watch says, less what a range has said. False when the watch has to be made anew."""
        if message.canceled and not message.compact_revision:
            reason = message.cancel_reason or "without a reason"
            raise Away(f"etcd cancels the watch of {self._service}: {reason}")
        if message.canceled or (message.created and self._is_another(message.header)):
            self._to_read = True
            return False
        assert self._head is not None
        news = [event for event in message.events if event.kv.mod_revision > self._head.revision]
        for event in news:
            if event.type == "DELETE":
                self._known.pop(event.kv.key, None)
                self._lost.pop(event.kv.key, None)
            else:
                self._put(event.kv)
        if news:
            # A message holds whole revisions. Its head may be far ahead: of what has not been sent yet.
            self._head = msgspec.structs.replace(message.header, revision=news[-1].kv.mod_revision)
            self._say()
        return True

    def _put(self, entry: KeyValue) -> None:
        address = entry.key.decode(errors="replace").removeprefix(self._folder)
        registration = self._entries.read(self._service, f"{self._service}/{address}", entry.value)
        self._lost.pop(entry.key, None)
        self._known.pop(entry.key, None)
        if registration is not None and len(self._known) <= MAX_REGISTRATIONS:
            self._known[entry.key] = registration

    def _say(self) -> None:
        lost = {key: lost.registration for key, lost in self._lost.items()}
        self._publish(frozenset({**lost, **self._known}.values()))
