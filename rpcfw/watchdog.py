"""Names what blocks the event loop: a thread looks whether the loop still turns, and whose code it is stuck in.

A blocked loop answers no call, no heartbeat and no health check, so the guilty method and its stack go to the log
while it is still blocked. After asyncio's slow-callback warning, which only speaks when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from types import CodeType, FrameType

logger = logging.getLogger("rpcfw")

_LOOKS_PER_THRESHOLD = 4


class Watchdog:
    """Watches one loop from a thread of its own. Start it on the loop; `stop` ends the thread.

    Args:
        threshold_s: how long one turn of the loop may take before it is reported; each block is reported once.
        methods: the code of each handler with the name to report it by.
    """

    def __init__(self, threshold_s: float, methods: Mapping[CodeType, str]) -> None:
        self.threshold_s = threshold_s
        self._methods = methods
        self._turns = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.reports = 0

    def start(self) -> None:
        """Begin to watch the running loop, from its own thread. A loop that is simulated is not watched."""
        self._loop = asyncio.get_running_loop()
        if getattr(self._loop, "is_simulated", False):
            return  # its time is virtual, and what blocks there is refused
        self._turn()
        watched = threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(watched,), name="rpcfw-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _turn(self) -> None:
        self._turns += 1
        self._timer = self._loop.call_later(self.threshold_s / _LOOKS_PER_THRESHOLD, self._turn)

    def _watch(self, watched: int) -> None:
        seen, stuck = -1, 0
        while not self._stopped.wait(self.threshold_s / _LOOKS_PER_THRESHOLD):
            if self._turns != seen:
                seen, stuck = self._turns, 0
                continue
            stuck += 1
            if stuck == _LOOKS_PER_THRESHOLD:
                self._report(sys._current_frames().get(watched))

    def _report(self, frame: FrameType | None) -> None:
        self.reports += 1
        stack = traceback.extract_stack(frame) if frame is not None else None
        logger.warning(
            "%s blocks the event loop for more than %g s; use @rpcfw.method(offload='thread') or await in between\n%s",
            self._culprit(frame),
            self.threshold_s,
            "".join(stack.format()) if stack is not None else "",
        )

    def _culprit(self, frame: FrameType | None) -> str:
        while frame is not None:
            name = self._methods.get(frame.f_code)
            if name is not None:
                return name
            frame = frame.f_back
        return "code outside of any handler"
