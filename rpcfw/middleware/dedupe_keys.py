"""DedupeKeys, the client's half of deduplication: each call that must not run twice gets a key.

With the key, `Retry` may make a call again although it may have run: the server's half, `Dedupe`, answers it with the
outcome of the first run. What a key means is decided there, not here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable
from typing import Any

import msgspec

from rpcfw.call import Call, Handler, pack_metadata
from rpcfw.chance import new_rng
from rpcfw.interface import CallKind

_KEY = ":key"  # part of the wire; `Dedupe` and `Retry` know it too
_KEY_BYTES = 16
_HEAD = pack_metadata({_KEY: bytes(_KEY_BYTES)})[:-_KEY_BYTES]
_UNARY = CallKind.UNARY


class DedupeKeys:
    """Middleware of clients that gives each unary call of a method that is not idempotent a key of its own.

    Put it before `Retry`, ``middleware=[DedupeKeys(), Retry()]``, so that all attempts of a call have the same key. It
    is of use with servers that have the middleware `Dedupe`; others ignore it, and `Retry` knows which do. Behind
    `Retry`, each attempt would get another key, and be run: `Retry` refuses that with ValueError.

    A call that has a key already keeps it: ``with_options(stub, metadata={":key": "order-7"})`` makes a call that runs
    once even if this process ends and another one makes it again, for as long as the server remembers it. For a server
    without `Dedupe`, which remembers nothing, such a call is refused before it is sent, if its key is text.

    Args:
        rng: source of the keys, 128 random bits each. It must not be that of another client, and is replaced after a
            fork.
    """

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self._rng = rng or new_rng()
        self._process = os.getpid()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler."""
        return _Keyed(self, handler)

    def with_key(self, call: Call) -> Call:
        """The call with a key: its own, or a new one."""
        if self._process != os.getpid():  # the parent draws the same ones
            self._rng, self._process = new_rng(), os.getpid()
        if not call.metadata_bytes:
            metadata = _HEAD + self._rng.randbytes(_KEY_BYTES)
        else:
            given = call.metadata
            if given.get(_KEY):
                return call
            metadata = pack_metadata({**given, _KEY: self._rng.randbytes(_KEY_BYTES)})
        return msgspec.structs.replace(call, metadata_bytes=metadata)


class _Keyed:
    """Gives a call a key and passes it on."""

    __slots__ = ("__wrapped__", "_keys")

    gives_keys = True
    """Tells `Retry` that it must not stand before this."""

    def __init__(self, keys: DedupeKeys, handler: Handler) -> None:
        self._keys = keys
        self.__wrapped__ = handler

    def __call__(self, call: Call) -> Awaitable[Any]:
        method = call.method
        if not (method.idempotent or method.oneway or method.kind is not _UNARY):
            call = self._keys.with_key(call)
        return self.__wrapped__(call)
