"""Dedupe, the server's half: a call that comes again with its key is answered as the first time, and not run again.

The client's half is `DedupeKeys`, and `Retry` comes again. A repeated call names the memory that may know it; where
that is another one, or has forgotten, it is refused rather than run twice. After Birrell & Nelson, "Implementing Remote
Procedure Calls" (1984), section 3, and RIFL (Lee et al., SOSP 2015), which keeps results for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import msgspec

from rpcfw.call import Call, Handler
from rpcfw.chance import new_rng
from rpcfw.codec import plan_of
from rpcfw.codec.models import pack_foreign
from rpcfw.errors import Code, RpcError
from rpcfw.interface import CallKind, MethodSpec

logger = logging.getLogger("rpcfw")

# These names are part of the wire; `Retry` and `DedupeKeys` know them too.
KEY = ":key"
MEMORY = ":memory"
SPAN = ":span"
_KEY_ON_THE_WIRE = KEY.encode()
_MAX_KEY_BYTES = 256
_DIGEST_BYTES = 16

MARGIN_S = 30.0
"""How long a message may be on its way: a connection that is silent for longer is given up by its keepalive."""
_DRIFT = 0.05
"""By how much the clocks of two hosts may differ in speed."""
_ENTRY_BYTES = 450
"""What an entry takes beside its result."""


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended: a result, as bytes of its declared type; or an error, RpcError or a declared one.

    Attributes:
        digest: of the call's arguments, to be kept with the rest: by it a key is refused that comes with others. Where
            a store gives none back, that is not noticed.
    """

    result: bytes = b""
    error: Exception | None = None
    digest: bytes = b""


class DedupeStore(Protocol):
    """Remembers calls by key. One that outlives its server lets a call be repeated at the server's next run.

    Attributes:
        memory: names what is remembered here, for as long as it is: a store that is lost with its process has another
            name in the next one, all servers that share a store have the same.
    """

    @property
    def memory(self) -> str:
        """See above."""
        ...

    async def begin(self, key: bytes, method: MethodSpec, since: float | None) -> Outcome | None:
        """A call is about to run: None to let it, or its outcome if it is known. In one step: of two, one gets None.

        Args:
            key: names the call.
            method: what it calls; errors are its declared ones, or RpcErrors.
            since: None where it comes for the first time. Else no attempt came before this time of the loop's clock: if
                anything that came later may have been forgotten, an unknown key must get `unknown` as its outcome.

        Raises RpcError, with ``executed=False``, when the store cannot be reached.
        """
        ...

    async def finish(self, key: bytes, method: MethodSpec, outcome: Outcome) -> None:
        """The call that `begin` let run has ended so. What it raises is logged, and costs the memory of this call."""
        ...


class DedupeMemory:
    """The store in memory, which ends with its process.

    A call that ran as it came for the second time may still come for the first: its message was only slow. So those are
    kept for `keep_s` whatever comes, in half of the room, and where that is full they do not run.

    Args:
        keep_s: an outcome is remembered this long, at least 30 s.
        max_entries: outcomes remembered at a time, at least 2; beyond it the oldest is forgotten. Half of them are kept
            for calls that came again, which are the last to be forgotten.
        max_bytes: the same for their size.
        rng: names the memory.
    """

    def __init__(
        self,
        keep_s: float = 600.0,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        rng: random.Random | None = None,
    ) -> None:
        if not keep_s >= MARGIN_S:
            raise ValueError(f"keep_s={keep_s!r} must be at least {MARGIN_S:g}: a message may be slow")
        if max_entries < 2 or max_bytes < 2 * _ENTRY_BYTES:
            raise ValueError(f"{max_entries=} must be at least 2, {max_bytes=} at least {2 * _ENTRY_BYTES}")
        self.memory = f"{(rng or new_rng()).getrandbits(64):016x}"
        self._keep_s = keep_s
        self._begun: dict[bytes, tuple[float, bool]] = {}  # when it came, and whether as one that comes again
        self._repeating = 0  # how many of them
        self._ended = _Shelf(max_entries - max_entries // 2, max_bytes - max_bytes // 2)
        self._repeats = _Shelf(max_entries // 2, max_bytes // 2)
        self._forgotten: float | None = None  # when the latest call came that is remembered no more

    def __len__(self) -> int:
        return len(self._ended.entries) + len(self._repeats.entries)

    async def begin(self, key: bytes, method: MethodSpec, since: float | None) -> Outcome | None:
        """See `DedupeStore`."""
        now = asyncio.get_running_loop().time()
        for shelf in (self._ended, self._repeats):
            while (oldest := shelf.oldest()) is not None and oldest.ended_at + self._keep_s <= now:
                self._forget(shelf)
        known = self._ended.entries.get(key) or self._repeats.entries.get(key)
        if known is not None:
            return known.outcome
        if key in self._begun:
            return unknown(method, "it runs elsewhere")
        if since is not None:
            if self._forgotten is not None and since <= self._forgotten:
                return unknown(
                    method, "outcomes of that time have been forgotten; raise max_entries or keep_s"
                )
            if len(self._repeats.entries) + self._repeating >= self._repeats.max_entries:
                return unknown(method, "too many calls came again lately; raise max_entries")
            self._repeating += 1
        self._begun[key] = (now, since is not None)
        return None

    async def finish(self, key: bytes, method: MethodSpec, outcome: Outcome) -> None:
        """See `DedupeStore`."""
        now = asyncio.get_running_loop().time()
        begun_at, again = self._begun.pop(key, (now, False))
        self._repeating -= again
        shelf, size = self._repeats if again else self._ended, _ENTRY_BYTES + len(outcome.result)
        if size > (shelf.max_bytes - shelf.bytes if again else shelf.max_bytes):
            why = f"it ran, but its result of {len(outcome.result):,} bytes was not kept"
            outcome = msgspec.structs.replace(unknown(method, why), digest=outcome.digest)
            size = _ENTRY_BYTES
        shelf.add(key, _Entry(now, begun_at, size, outcome))
        while not again and shelf.is_over:
            self._forget(shelf)

    def _forget(self, shelf: _Shelf) -> None:
        begun_at = shelf.pop().begun_at
        self._forgotten = begun_at if self._forgotten is None else max(self._forgotten, begun_at)


class _Entry(NamedTuple):
    ended_at: float
    begun_at: float
    size: int
    outcome: Outcome


class _Shelf:
    """Outcomes by key, the oldest first, and the room for them."""

    __slots__ = ("bytes", "entries", "max_bytes", "max_entries")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.entries: dict[bytes, _Entry] = {}
        self.bytes = 0

    @property
    def is_over(self) -> bool:
        return len(self.entries) > self.max_entries or self.bytes > self.max_bytes

    def oldest(self) -> _Entry | None:
        return next(iter(self.entries.values()), None)

    def add(self, key: bytes, entry: _Entry) -> None:
        self.entries[key] = entry
        self.bytes += entry.size

    def pop(self) -> _Entry:
        entry = self.entries.pop(next(iter(self.entries)))
        self.bytes -= entry.size
        return entry


class Dedupe:
    """Middleware of servers: runs a call that carries a key once, however often it comes.

    The outcome, result or error, is remembered, and a call that comes again gets it. One that comes while the first
    still runs waits for it. If the caller's connection breaks, the handler goes on until the call's deadline, for its
    caller comes again; it is cancelled when nobody waits for it any more. What the handler sent beside its reply, as
    metadata, is not sent again. Calls without a key, and those with streams, pass untouched.

    A key names one call of a method. With other arguments it is refused, with INVALID_ARGUMENT: the outcome of another
    call would be the wrong answer. So arguments must not change by being decoded, as by a default drawn by chance.

    Put it last, after what refuses calls: a refusal must not be taken for the outcome of a call.

    Args:
        keep_s: an outcome is remembered this long, in seconds, at least 30.
        max_entries: outcomes remembered at a time. To be of use after a lost connection, that should be as many calls
            as come within the longest deadline and half a minute.
        max_bytes: for their results.
        store: where they are remembered, instead of in memory; the three above are then its own matter.
    """

    def __init__(
        self,
        keep_s: float = 600.0,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        store: DedupeStore | None = None,
    ) -> None:
        if store is None:
            store = DedupeMemory(keep_s, max_entries=max_entries, max_bytes=max_bytes)
        self._store = store
        self._running: dict[bytes, _Run] = {}

    @property
    def memory(self) -> str:
        """The name of what is remembered here, which the server tells its clients in the handshake."""
        return self._store.memory

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""

        async def dedupe(call: Call) -> Any:
            if _KEY_ON_THE_WIRE not in call.metadata_bytes or call.method.kind is not CallKind.UNARY:
                return await handler(call)
            metadata = call.metadata
            key = _key(call, metadata)
            if not key:
                return await handler(call)
            since = self._since(call, metadata)
            digest = _digest(call.arguments)
            run = self._running.get(key)
            joined = run is not None
            if run is None:
                running = self._run(handler, call, (key, digest), since)
                run = self._running[key] = _Run(running, call.method.path, digest)
                run.task.add_done_callback(lambda _: self._running.pop(key, None))
            elif run.digest != digest:
                raise _reused(call, key)
            await run.wait(call)
            if run.task.cancelled():
                raise _error(call.method, "it was cancelled amid")
            if joined and run.task.exception() is not None:
                raise _again(run.task.exception())  # one of its own for each
            return run.task.result()

        return dedupe

    def _since(self, call: Call, metadata: Mapping[str, str | bytes]) -> float | None:
        """Before which time this call surely did not come; None where it comes for the first time.

        Raises RpcError ABORTED when it came to another memory.
        """
        memory = metadata.get(MEMORY)
        if memory is None:
            return None
        if memory != self._store.memory:
            raise _error(call.method, "the server has been restarted since, or it is another one")
        try:
            span_s = float(metadata.get(SPAN, ""))
        except ValueError:
            return -math.inf
        if not 0 <= span_s < math.inf or call.deadline == math.inf:
            return -math.inf
        return call.deadline - span_s * (1 + _DRIFT) - MARGIN_S

    async def _run(
        self, handler: Handler, call: Call, named: tuple[bytes, bytes], since: float | None
    ) -> Any:
        method, (key, digest) = call.method, named
        known = await self._store.begin(key, method, since)
        if known is not None:
            if known.digest not in (b"", digest):
                raise _reused(call, key)
            if known.error is not None:
                raise _again(known.error)
            return plan_of(method.result).decode(known.result)
        try:
            result = await handler(call)
        except asyncio.CancelledError:
            await self._finish(named, method, unknown(method, "it was cancelled amid"))
            raise
        except Exception as error:
            await self._finish(named, method, Outcome(error=_kept(method, error)))
            raise
        try:
            encoded = plan_of(method.result).encode(result)
            outcome = Outcome(encoded if isinstance(encoded, bytes) else b"".join(encoded))
        except Exception as problem:  # the server says so to the caller in its own words
            message = f"{method.path}: its result cannot travel: {problem}"
            outcome = Outcome(error=RpcError(Code.INTERNAL, message, executed=True))
        await self._finish(named, method, outcome)
        return result

    async def _finish(self, named: tuple[bytes, bytes], method: MethodSpec, outcome: Outcome) -> None:
        key, digest = named
        try:
            await self._store.finish(key, method, msgspec.structs.replace(outcome, digest=digest))
        except Exception as problem:
            logger.warning("the outcome of a call of %s is not remembered: %s", method.path, problem)


class _Run:
    """One run of a handler, and how many calls wait for it."""

    __slots__ = ("_waiting", "digest", "task")

    def __init__(self, run: Any, path: str, digest: bytes) -> None:
        self.digest = digest
        self.task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(run, name=path)
        self.task.add_done_callback(_look)
        self._waiting = 0

    async def wait(self, call: Call) -> None:
        """Wait until it has ended. Cancelled, as the last one that waits, cancel it."""
        self._waiting += 1
        try:
            await asyncio.wait((self.task,))
        except asyncio.CancelledError:
            await self._linger(call)
            if self._waiting == 1 and not self.task.done():
                self.task.cancel()
                await asyncio.wait((self.task,))  # a handler counts until it has really ended
            raise
        finally:
            self._waiting -= 1

    async def _linger(self, call: Call) -> None:
        """Where only the connection broke, let the run go on, until the deadline; a second cancellation is meant."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if not (call.exchange is not None and call.exchange.orphaned) or (
            task is not None and task.cancelling() > 1
        ):
            return
        try:
            left_s = None if call.deadline == math.inf else max(0.0, call.remaining_s(loop))
            await asyncio.wait((self.task,), timeout=left_s)
        except asyncio.CancelledError:
            return  # the first one is raised as soon as the run has been told


def unknown(method: MethodSpec, why: str) -> Outcome:
    """The outcome of a call of which only this is known: it may have run."""
    return Outcome(error=_error(method, why))


def _error(method: MethodSpec, why: str) -> RpcError:
    message = f"{method.path}: what became of the first attempt of this call cannot be known: {why}"
    return RpcError(Code.ABORTED, message, {"outcome": "unknown"})


def _key(call: Call, metadata: Mapping[str, str | bytes]) -> bytes:
    """A call's key, which is its own for each method; empty when it has none."""
    given = metadata.get(KEY, b"")
    key = given.encode() if isinstance(given, str) else given
    if len(key) > _MAX_KEY_BYTES:
        raise RpcError(
            Code.INVALID_ARGUMENT,
            f"{call.method.path}: a key of {len(key):,} bytes is over the {_MAX_KEY_BYTES} that a key may have",
            executed=False,
        )
    return call.method.path.encode() + b"\0" + key if key else b""


_encode_in_order = msgspec.msgpack.Encoder(enc_hook=pack_foreign, order="deterministic").encode
_encode_as_it_is = msgspec.msgpack.Encoder(enc_hook=pack_foreign).encode


def _digest(arguments: tuple[Any, ...]) -> bytes:
    """The same for equal arguments. Empty for what cannot be encoded, which no peer has sent."""
    try:
        encoded = _encode_in_order(arguments)
    except Exception:  # only names can be put in order; other keys come as they were sent
        try:
            encoded = _encode_as_it_is(arguments)
        except Exception:
            return b""
    return blake2b(encoded, digest_size=_DIGEST_BYTES).digest()


def _reused(call: Call, key: bytes) -> RpcError:
    given = key.partition(b"\0")[2]
    try:
        named: str | bytes = given.decode()
    except UnicodeDecodeError:
        named = given
    return RpcError(
        Code.INVALID_ARGUMENT,
        f"{call.method.path}: the key {named!r} belongs to a call with other arguments that came before, and this one "
        "has not run; give each call a key of its own",
        executed=False,
    )


def _kept(method: MethodSpec, error: Exception) -> Exception:
    """What to remember of an error: of those that arrive as themselves a copy, of any other what the caller sees."""
    if isinstance(error, (RpcError, *method.raises)):
        return _again(error)
    message = f"{method.path} failed with {type(error).__name__}; the server's log has the traceback"
    return RpcError(Code.UNKNOWN, message, executed=True)


def _again(error: BaseException | None) -> Exception:
    """The same error, without the frames that it came through: exceptions hold what they have passed."""
    assert isinstance(error, Exception)
    again: Exception = type(error).__new__(type(error), *error.args)
    again.args = error.args
    again.__dict__.update(error.__dict__)
    return again


def _look(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody may be waiting for it any more


__all__ = ["KEY", "MARGIN_S", "MEMORY", "SPAN", "Dedupe", "DedupeMemory", "DedupeStore", "Outcome", "unknown"]
