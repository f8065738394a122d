"""A simulated disk: files by name, a page cache that loses what was not synced, and a crash that decides what is left.

Pure: no loop, no clock, nothing of the machine's own disk. What may be lost follows Pillai et al., "All File Systems
Are Not Created Equal" (OSDI 2014), for a file system that journals its directory in order and orders nothing else.
"""

from __future__ import annotations

import errno
import os
import random
from types import TracebackType
from typing import NamedTuple

from rpcfw.testing.inode import WRITEBACK_CHANGES, Inode, Truncate, Write


class _Entry(NamedTuple):
    """A change of the directory: a name goes, a name comes, or both at once (a rename)."""

    removed: str | None
    added: str | None
    inode: Inode

    def apply(self, names: dict[str, Inode]) -> None:
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None:
            names[self.added] = self.inode


class Disk:
    """One host's disk: one directory of files. A name is any text; a slash in it means nothing.

    Like a POSIX file system: what a program writes is seen at once by all who read, and is on the disk after
    `SimFile.fsync`; that a file was created, renamed or removed is on the disk after `fsync_dir`. Before that, both may
    be lost in a crash, and both may be kept.
    """

    def __init__(self, rng: random.Random, *, fsync_lies: float = 0.0, bit_rot: float = 0.0) -> None:
        """Decide by `rng` what a crash leaves.

        `fsync_lies` is the chance (0 to 1) that a sync returns without having done anything, as drives do that
        acknowledge from a cache without a battery. `bit_rot` is the chance for each sector that one of its bits is
        wrong after a crash. Both may be set later, too.
        """
        self.fsync_lies = fsync_lies
        self.bit_rot = bit_rot
        self.powered = True
        """While False every operation raises OSError: what a dying host still writes in its `finally` goes nowhere."""
        self.life = 0
        """How many crashes there were. A file opened in an earlier life is of no use in this one."""
        self._rng = rng
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._unsynced: list[_Entry] = []

    def open(self, name: str, *, create: bool = True) -> SimFile:
        """Open a file for reading and writing, at its start; a missing one is created unless `create` is False."""
        self.check_power(name)
        if not name:
            raise ValueError("a file's name is empty")
        inode = self._names.get(name)
        if inode is None:
            if not create:
                raise _missing(name)
            inode = Inode()
            self._change(_Entry(None, name, inode))
        return SimFile(self, name, inode)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        self.check_power(name)
        return name in self._names

    def listdir(self) -> list[str]:
        """Every file's name, sorted."""
        self.check_power("the directory")
        return sorted(self._names)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, at once and atomically; a file that had this name is gone."""
        inode = self._find(old)
        if old != new:
            self._change(_Entry(old, new, inode))

    def remove(self, name: str) -> None:
        """Take a file's name away. Who has it open can go on using it."""
        self._change(_Entry(name, None, self._find(name)))

    def fsync_dir(self) -> None:
        """Bring every creation, rename and removal so far to the disk (fsync of the directory)."""
        self.check_power("the directory")
        if not self.lies():
            self._write_back(len(self._unsynced))

    def crash(self, *, torn: bool = True, holes: bool = True, bit_rot: float | None = None) -> list[str]:
        """Lose power: settle by chance what is left of everything unsynced, and end the life of all open files.

        The directory keeps a prefix of its unsynced changes, and each file, independently, a prefix of its own. With
        `torn`, the last write kept may be cut anywhere in the middle; with `holes`, writes before it may be missing, as
        pages go to the disk in any order. `bit_rot` stands in for the disk's own this once. Returns what was lost, a
        line for each file, for a trace. The disk can be used again at once, unless `powered` is set to False.
        """
        lost: list[str] = []
        kept = self._rng.randint(0, len(self._unsynced))
        if kept < len(self._unsynced):
            lost.append(
                f"directory: lost {len(self._unsynced) - kept} of {len(self._unsynced)} unsynced changes"
            )
        self._write_back(kept)
        names: dict[str, Inode] = {}
        for name, inode in sorted(self._durable_names.items(), key=lambda item: item[0]):
            losses = inode.settle(self._rng, torn, holes)
            losses += inode.rot(self._rng, self.bit_rot if bit_rot is None else bit_rot)
            if losses:
                lost.append(f"{name}: {', '.join(losses)}")
            names[name] = Inode(inode.durable)
        self._names, self._durable_names, self._unsynced = names, dict(names), []
        self.life += 1
        return lost

    def check_power(self, name: str) -> None:
        """Raise OSError (EIO) while there is no power."""
        if not self.powered:
            raise OSError(errno.EIO, "the host of this disk has crashed and is not up again", name)

    def lies(self) -> bool:
        """Whether the sync that is asked for now will do nothing."""
        return self.fsync_lies > 0 and self._rng.random() < self.fsync_lies

    def _find(self, name: str) -> Inode:
        self.check_power(name)
        try:
            return self._names[name]
        except KeyError:
            raise _missing(name) from None

    def _change(self, entry: _Entry) -> None:
        entry.apply(self._names)
        self._unsynced.append(entry)
        if len(self._unsynced) > WRITEBACK_CHANGES:
            self._write_back(WRITEBACK_CHANGES // 2)

    def _write_back(self, changes: int) -> None:
        for entry in self._unsynced[:changes]:
            entry.apply(self._durable_names)
        del self._unsynced[:changes]


class SimFile:
    """An open file of a `Disk`, with a position of its own. Nothing here waits."""

    def __init__(self, disk: Disk, name: str, inode: Inode) -> None:
        self.name = name
        self.closed = False
        self._disk = disk
        self._life = disk.life
        self._inode = inode
        self._position = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the position and move it behind; returns how many bytes."""
        written = self.pwrite(data, self._position)
        self._position += written
        return written

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Write at the end and move the position behind; returns the offset at which the data begins."""
        offset = self.size
        self._position = offset + self.pwrite(data, offset)
        return offset

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write at `offset`, leaving the position alone; what lies between the file's end and it reads as zeros."""
        inode = self._usable()
        copy = bytes(data)
        if copy:
            inode.change(Write(_checked(offset, "offset"), copy))
        return len(copy)

    def read(self, size: int = -1) -> bytes:
        """Read from the position, `size` bytes or, when negative, all, and move it behind."""
        length = len(self._usable().cached)
        data = self.pread(max(0, length - self._position) if size < 0 else size, self._position)
        self._position += len(data)
        return data

    def pread(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at `offset`, leaving the position alone; fewer at the file's end."""
        cached = self._usable().cached
        return bytes(cached[_checked(offset, "offset") : offset + _checked(size, "size")])

    def seek(self, offset: int) -> None:
        """Move the position, counted from the file's start."""
        self._usable()
        self._position = _checked(offset, "offset")

    def tell(self) -> int:
        """The position."""
        self._usable()
        return self._position

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return len(self._usable().cached)

    def truncate(self, size: int | None = None) -> None:
        """Cut the file, or extend it with zeros, to `size` bytes, or to the position. The position stays."""
        inode = self._usable()
        inode.change(Truncate(self._position if size is None else _checked(size, "size")))

    def fsync(self) -> None:
        """Bring what was written to this file so far, by whomever, to the disk; its name takes `fsync_dir`."""
        inode = self._usable()
        if not self._disk.lies():
            inode.write_back(len(inode.unsynced))

    def close(self) -> None:
        """Be done with it. Closing syncs nothing."""
        self.closed = True

    def __enter__(self) -> SimFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _usable(self) -> Inode:
        if self.closed:
            raise ValueError(f"the file {self.name!r} is closed; open it again")
        self._disk.check_power(self.name)
        if self._life != self._disk.life:
            raise OSError(
                errno.EIO, "the disk lost power since this file was opened; open it again", self.name
            )
        return self._inode


def _missing(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _checked(number: int, what: str) -> int:
    if number < 0:
        raise ValueError(f"{what}={number} is negative")
    return number
