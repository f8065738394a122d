"""Buffers for large bodies, of the right size from the start, so that bytes go from the system to where they stay.

A body that ends with one binary value may be received in parts: what goes before, and the `bytes` of that value, which
a caller who declared `bytes` is then given without a copy.
"""

from __future__ import annotations

import contextlib
import functools
import io
import mmap
from collections.abc import Callable

import msgpack

LARGE_BYTES = 64 * 1024
"""Bodies of at least this size get buffers from here."""
_TRUSTED_FOLD = 8
_MOST_TRUSTED_BYTES = 2 * 1024 * 1024
_MOST_EARNED_BYTES = 4 * 1024 * 1024
_KEPT_BYTES = 8 * 1024 * 1024
_BINARY = 0xC6
_BINARY_HEAD_BYTES = 5
_MAX_HEAD_BYTES = 4096


class LargeBody:
    """A large body on its way.

    Attributes:
        head: what goes before `view`; empty where that takes the whole body.
        view: where the bytes go.
        taken: how much memory the buffer took at once; 0 when it takes it as bytes come.
    """

    __slots__ = ("_store", "head", "taken", "view")

    def __init__(self, size: int, first: bytes | memoryview, *, taken: bool, may_part: bool) -> None:
        """Take a buffer.

        Args:
            size: of the body.
            first: what has come of it. It is not put into the buffer.
            taken: whether to take the memory at once, which is much faster.
            may_part: whether it may be received in parts.
        """
        self.head = b""
        self.taken = size if taken else 0
        self._store: _Store | None = None
        start = binary_start(bytes(first[:_MAX_HEAD_BYTES]), size) if may_part and taken else 0
        if start:
            self.head = bytes(first[:start])
            # it takes these bytes over as they are, for nobody else has them, and gives them out again in the end
            self._store = _Store(_allocators()[0](size - start))
            self.view = self._store.getbuffer()
        else:
            self.view = memoryview(_allocators()[1](size)) if taken else lazy_buffer(size)

    def whole(self) -> memoryview:
        """What the view has, now that all has come, with `head` of a `bytes`. Write nothing to `view` any more."""
        if self._store is None:
            return self.view
        self.view.release()  # while there is a view of it, the store gives out a copy
        return memoryview(self._store.getvalue())


class _Store(io.BytesIO):
    """Bytes that are written through a view of them.

    The collector may end it before the view, where both are dropped with a connection; it would complain of the view.
    """

    __slots__ = ()

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            super().close()


class Assembly:
    """A message on its way in chunks: its buffer, or none once there was no memory for it.

    A buffer that takes memory only as it is filled counts in the budget as far as it is: `held` is what was taken.
    """

    __slots__ = ("body", "filled", "held", "total")

    def __init__(self, total: int, body: LargeBody) -> None:
        self.total = total
        self.body: LargeBody | None = body
        self.filled = 0
        self.held = 0


def is_trusted(size: int, arrived: int, sent: int, early: int) -> bool:
    """Whether memory for a body may be taken before all of it has come, which a peer must have earned.

    Together, the bodies of a connection get no more of it than has come: a peer that stops half-way holds what it paid
    for.

    Args:
        size: of the body.
        arrived: how much of it has come.
        sent: how much has come over the connection in messages that are whole.
        early: how much memory is taken for other bodies of the connection that are on their way.
    """
    earned = max(_TRUSTED_FOLD * arrived, min(sent, _MOST_EARNED_BYTES))
    return size <= _MOST_TRUSTED_BYTES and early + size <= earned


_Allocators = tuple[Callable[[int], bytes], Callable[[int], bytearray]]


@functools.cache
def _allocators() -> _Allocators:
    """How to make `bytes`, and a `bytearray`, of a size for a body that fills all of it before anybody sees it."""
    _keep_memory()
    return _unfilled() or (bytes, bytearray)


def _unfilled() -> _Allocators | None:
    """Of CPython's own, which leave the memory as it is: to zero it takes a large part of the time to receive it.

    None where they are out of reach.
    """
    try:
        import ctypes  # takes milliseconds, and most processes never see a large message

        # functions of our own, as `pythonapi` has one for all its users
        prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)
        new_bytes = prototype(("PyBytes_FromStringAndSize", ctypes.pythonapi))
        new_bytearray = prototype(("PyByteArray_FromStringAndSize", ctypes.pythonapi))
    except Exception:  # by a platform, or by who forbids it: of any kind
        return None
    return functools.partial(new_bytes, None), functools.partial(new_bytearray, None)


def _keep_memory() -> None:
    """Once there are large messages, have the C library keep the memory of some of them when they are freed.

    glibc takes the largest block that was mapped and freed as the measure of what is worth keeping, and else gives back
    the end of its heap whenever two megabytes of it are free: the next message is then faulted in page by page, which
    takes longer than to copy it. The block here is never touched, so it costs no memory.
    """
    bytearray(_KEPT_BYTES)


def lazy_buffer(size: int) -> memoryview:
    """A buffer that the system gives memory page by page, when it is written to, not when it is asked for."""
    if size < LARGE_BYTES:
        return memoryview(bytearray(size))
    return memoryview(mmap.mmap(-1, size, access=mmap.ACCESS_COPY))  # private: shared pages cost a third more


class _Map(list[tuple[object, object]]):
    """A map as its pairs, so that it is told from an array, and a key that comes twice counts twice."""


def binary_start(first: bytes, size: int) -> int:
    """Where in a msgpack message of `size` bytes the content of the binary value begins that is all of it, or the last
    value of the map that it is; 0 where there is no such.

    Args:
        first: the message's first bytes, enough to reach the binary value.
        size: of the message.
    """
    at = first.find(_BINARY)
    while at >= 0:
        start = at + _BINARY_HEAD_BYTES
        if start <= len(first) and int.from_bytes(first[at + 1 : start], "big") == size - start:
            try:
                value = msgpack.unpackb(first[:at] + b"\xc0", object_pairs_hook=_Map)
            except (ValueError, RecursionError, msgpack.UnpackException):
                return 0
            if type(value) is _Map:
                value = value[-1][1]
            return start if value is None else 0
        at = first.find(_BINARY, at + 1)
    return 0
