"""Credit for streams: how much a sender may send before the receiver has consumed what came.

An item costs its encoded size plus `ITEM_OVERHEAD`, so that neither large nor many tiny items fill the receiver's
memory (the idea of HPACK's entry size, RFC 7541 section 4.1). A sender may send while its credit is above zero; a batch
may take it below, once, so that an item larger than the window can pass.
"""

from __future__ import annotations

from rpcfw.errors import ProtocolError

ITEM_OVERHEAD = 64
MAX_CREDIT = 1 << 31


def cost_of(body_bytes: int, items: int) -> int:
    """What a batch of items takes from the credit."""
    return body_bytes + items * ITEM_OVERHEAD


class SendWindow:
    """The sender's side of one stream's credit."""

    __slots__ = ("credit",)

    def __init__(self, credit: int) -> None:
        self.credit = credit

    def grant(self, credit: int) -> None:
        """Take a CREDIT frame. Raises ProtocolError for an empty or an absurd grant."""
        self.credit += credit
        if credit == 0 or self.credit > MAX_CREDIT:
            raise ProtocolError(
                f"a credit of {credit:,} brings the window to {self.credit:,}; at most {MAX_CREDIT:,} is allowed"
            )


class ReceiveWindow:
    """The receiver's side: what the peer may still send, and what was consumed but not yet granted anew."""

    __slots__ = ("consumed", "credit", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.credit = size
        self.consumed = 0

    def arrive(self, cost: int) -> None:
        """A batch came. Raises ProtocolError when the peer had no credit left."""
        if self.credit <= 0:
            raise ProtocolError(
                f"{cost:,} bytes of items arrived without credit; the window is {self.size:,}"
            )
        self.credit -= cost

    def consume(self, cost: int) -> int:
        """The application took a batch; returns the credit to grant now, 0 for none yet."""
        self.consumed += cost
        if self.consumed * 2 < self.size:
            return 0
        granted, self.consumed = self.consumed, 0
        self.credit += granted
        return granted
