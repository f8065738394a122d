"""One simulated file without its name: what programs see, what the disk surely has, the changes in between, and what
a crash makes of them. Names and open files live in `disk`.
"""

from __future__ import annotations

import random
from typing import NamedTuple, TypeAlias

SECTOR_BYTES = 512
"""What a drive writes at once; a torn write ends at such a boundary half of the time, and anywhere the other half."""
WRITEBACK_CHANGES = 4_096
"""Unsynced changes beyond this many reach the disk by themselves, oldest first, as a kernel's writeback has it."""


class Write(NamedTuple):
    """Bytes put at an offset."""

    offset: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        """Make the change; a gap before it becomes zeros."""
        if self.offset > len(content):
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data


class Truncate(NamedTuple):
    """A new size."""

    size: int

    def apply(self, content: bytearray) -> None:
        """Make the change; what is added becomes zeros."""
        content.extend(bytes(max(0, self.size - len(content))))
        del content[self.size :]


Change: TypeAlias = Write | Truncate


class Inode:
    """A file as programs see it (`cached`), as the disk surely has it (`durable`), and the changes in between."""

    __slots__ = ("cached", "durable", "unsynced")

    def __init__(self, content: bytes | bytearray = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[Change] = []

    def change(self, change: Change) -> None:
        """Let programs see a change."""
        change.apply(self.cached)
        self.unsynced.append(change)
        if len(self.unsynced) > WRITEBACK_CHANGES:
            self.write_back(WRITEBACK_CHANGES // 2)

    def write_back(self, changes: int) -> None:
        """Bring the oldest so many unsynced changes to the disk."""
        for change in self.unsynced[:changes]:
            change.apply(self.durable)
        del self.unsynced[:changes]

    def settle(self, rng: random.Random, torn: bool, holes: bool) -> list[str]:
        """Lose power: `durable` becomes what is left, and nothing is unsynced. Returns what was lost."""
        content, unsynced = self.durable, self.unsynced
        losses: list[str] = []
        kept = unsynced[: rng.randint(0, len(unsynced))]
        if len(kept) < len(unsynced):
            losses.append(f"lost the last {len(unsynced) - len(kept)} of {len(unsynced)} unsynced changes")
        with_holes = holes and rng.random() < 0.5
        for change in kept[:-1]:
            if with_holes and isinstance(change, Write) and rng.random() < 0.5:
                losses.append(f"lost {len(change.data)} bytes at {change.offset}")
            else:
                change.apply(content)
        for change in kept[-1:]:
            if torn and isinstance(change, Write) and len(change.data) > 1 and rng.random() < 0.5:
                cut = _cut(change, rng)
                losses.append(f"tore {len(change.data)} bytes at {change.offset}, {cut} are left")
                change = Write(change.offset, change.data[:cut])
            change.apply(content)
        unsynced.clear()
        return losses

    def rot(self, rng: random.Random, chance: float) -> list[str]:
        """Flip one bit of each sector of `durable` with this chance. Returns which."""
        content = self.durable
        flipped: list[str] = []
        if chance > 0:
            for start in range(0, len(content), SECTOR_BYTES):
                if rng.random() < chance:
                    at = rng.randrange(start, min(start + SECTOR_BYTES, len(content)))
                    content[at] ^= 1 << rng.randrange(8)
                    flipped.append(f"a bit of byte {at} is wrong")
        return flipped


def _cut(write: Write, rng: random.Random) -> int:
    """How many bytes of a torn write are left: at least one, and not all."""
    end = write.offset + len(write.data)
    sectors = range(write.offset // SECTOR_BYTES + 1, (end - 1) // SECTOR_BYTES + 1)
    if sectors and rng.random() < 0.5:
        return rng.choice(sectors) * SECTOR_BYTES - write.offset
    return rng.randrange(1, len(write.data))
