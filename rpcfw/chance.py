"""Where jitter comes from: a source of chance per owner, which a simulated loop replaces by one of its own seed."""

from __future__ import annotations

import asyncio
import random


def new_rng() -> random.Random:
    """A new source of chance. A running loop that has a `new_rng` method gives it, so that its runs can be repeated."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return random.Random()
    made: random.Random = getattr(loop, "new_rng", random.Random)()
    return made
