"""What a way between two simulated hosts is like: its delay, its width, and what it loses, doubles or mixes up.

Values only; `Medium` draws from them. Log-normal delays after measurements of data centres and of the internet, where
the tail is long and nothing is faster than light.
"""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Protocol


class Delay(Protocol):
    """A distribution of delays."""

    def draw(self, rng: random.Random) -> float:
        """One delay, in seconds, 0 or more."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Log-normal: half of all trips take less than `median_s`, and two thirds lie within a factor of e**sigma of it.

    Raises:
        ValueError: the median is not a time, or sigma is negative.
    """

    median_s: float
    sigma: float = 0.25

    def __post_init__(self) -> None:
        if not (0 < self.median_s < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError(
                f"{self} needs median_s above 0 and sigma of 0 or more; for no delay say latency_s=0.0"
            )

    def draw(self, rng: random.Random) -> float:
        """One delay, in seconds."""
        return rng.lognormvariate(math.log(self.median_s), self.sigma)


@dataclasses.dataclass(frozen=True, slots=True)
class Conditions:
    """One way from host to host.

    Attributes:
        latency_s: of a trip: a number, or a distribution such as `Latency(0.020, sigma=0.3)`.
        bandwidth_bytes_s: bytes per second, shared by all that goes this way; None for no limit.
        loss: the probability that one segment of a link, or one datagram, is lost. A link sends it again, later;
            resets are not lost.
        duplicate: the probability that a datagram arrives twice.
        reorder_s: datagrams take up to so many seconds longer, each its own time.
        segment_bytes: a link sends so many bytes in one segment at most; small ones make partial reads common.

    Raises:
        ValueError: a value is out of its range.
    """

    latency_s: Delay | float = Latency(0.0005)
    bandwidth_bytes_s: float | None = None
    loss: float = 0.0
    duplicate: float = 0.0
    reorder_s: float = 0.0
    segment_bytes: int = 65_536

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is a probability: give 0.0 to 1.0")
        for name in ("latency_s", "reorder_s"):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r} must be seconds, 0 or more")
        if self.bandwidth_bytes_s is not None and not self.bandwidth_bytes_s > 0:
            raise ValueError(
                f"bandwidth_bytes_s={self.bandwidth_bytes_s!r} must be above 0, or None for no limit"
            )
        if not 1 <= self.segment_bytes <= 65_536:
            raise ValueError(f"segment_bytes={self.segment_bytes!r} must be 1 to 65536")

    def draw_latency(self, rng: random.Random) -> float:
        """The delay of one trip, in seconds."""
        latency = self.latency_s
        return latency if isinstance(latency, (int, float)) else latency.draw(rng)


LOOPBACK = Conditions(latency_s=0.000_02)
"""From a host to itself; no partition comes between."""
