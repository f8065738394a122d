"""Writing several buffers at once without a copy, where the loop's own way has faults.

Once a link is made, take its function from here and not `Link.writelines`: on most links they are the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import cast

from rpcfw.transport.link import Link

VectoredWrite = Callable[[Sequence[bytes | bytearray | memoryview]], None]


def vectored_write(link: Link) -> VectoredWrite:
    """The link's `writelines`, made to keep what `Link` promises.

    asyncio's sockets from Python 3.12.0 on (mended in some later versions) never call pause_writing from it,
    raise TypeError after `close`, and spin for ever on an empty buffer at the end.
    """
    if type(link).__module__ == "asyncio.selector_events" and sys.version_info >= (3, 12):
        return _steady(cast(asyncio.Transport, link))
    return link.writelines


def _steady(transport: asyncio.Transport) -> VectoredWrite:
    def write(parts: Sequence[bytes | bytearray | memoryview]) -> None:
        if transport.is_closing():
            return
        transport.writelines([part for part in parts if part])
        low, high = transport.get_write_buffer_limits()
        if transport.get_write_buffer_size() > high:
            transport.set_write_buffer_limits(high, low)  # which looks at the size and calls pause_writing

    return write
