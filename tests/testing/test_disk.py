"""The simulated disk: what programs see, what a crash may take, and a model that says which outcomes are allowed."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Set
from typing import TypeAlias

import pytest

from rpcfw.testing.disk import Disk
from rpcfw.testing.inode import SECTOR_BYTES, WRITEBACK_CHANGES

SEEDS = range(200)


def content(disk: Disk, name: str) -> bytes:
    return disk.open(name, create=False).read()


def durable_file(disk: Disk, name: str, data: bytes) -> None:
    with disk.open(name) as file:
        file.write(data)
        file.fsync()
    disk.fsync_dir()


def after_crashes(prepare: Callable[[Disk], None], **options: float) -> set[tuple[tuple[str, bytes], ...]]:
    """Every outcome of a crash at the end of `prepare`, over many seeds."""
    outcomes = set()
    for seed in range(2_000):
        disk = Disk(random.Random(seed))
        prepare(disk)
        disk.crash(**options)  # type: ignore[arg-type]
        outcomes.add(tuple((name, content(disk, name)) for name in disk.listdir()))
    return outcomes


# ------------------------------------------------------------------------------------- what programs see


def test_what_is_written_is_read_at_once_and_by_every_handle() -> None:
    disk = Disk(random.Random(1))
    one, other = disk.open("log"), disk.open("log")
    assert one.write(b"hello ") == 6
    assert other.append(b"world") == 6
    assert (one.read(), one.tell()) == (b"world", 11)
    assert (other.read(), other.pread(100, 6), other.size) == (b"", b"world", 11)
    other.seek(3)
    assert (other.read(2), other.tell()) == (b"lo", 5)


def test_a_gap_reads_as_zeros_and_truncate_cuts_or_extends() -> None:
    file = Disk(random.Random(1)).open("data")
    file.pwrite(b"x", 3)
    assert file.pread(9, 0) == b"\0\0\0x"
    file.truncate(6)
    assert file.pread(9, 0) == b"\0\0\0x\0\0"
    file.truncate()  # to the position, which pwrite has left at the start
    assert file.size == 0


def test_rename_replaces_and_an_open_file_outlives_its_name() -> None:
    disk = Disk(random.Random(1))
    durable_file(disk, "old", b"old")
    durable_file(disk, "new", b"new")
    kept_open = disk.open("old")
    disk.rename("new", "old")
    assert disk.listdir() == ["old"]
    assert (content(disk, "old"), kept_open.read()) == (b"new", b"old")
    disk.remove("old")
    assert (disk.listdir(), disk.exists("old")) == ([], False)
    kept_open.fsync()


def test_a_missing_file_and_a_closed_one_are_named() -> None:
    disk = Disk(random.Random(1))
    for use in (
        lambda: disk.open("a", create=False),
        lambda: disk.rename("a", "b"),
        lambda: disk.remove("a"),
    ):
        with pytest.raises(FileNotFoundError, match=r"No such file.*'a'"):
            use()
    with disk.open("log") as file:
        pass
    with pytest.raises(ValueError, match="the file 'log' is closed"):
        file.write(b"x")
    with pytest.raises(ValueError, match="offset=-1 is negative"):
        disk.open("log").pread(1, -1)


# ------------------------------------------------------------------------------------- what a crash may take


def test_what_was_synced_survives_every_crash() -> None:
    for seed in SEEDS:
        disk = Disk(random.Random(seed))
        durable_file(disk, "log", b"safe" * 400)
        disk.crash()
        assert (disk.listdir(), content(disk, "log")) == (["log"], b"safe" * 400), f"seed {seed}"


def test_unsynced_writes_are_lost_kept_torn_or_have_holes() -> None:
    def prepare(disk: Disk) -> None:
        durable_file(disk, "log", b"")
        file = disk.open("log")
        file.append(b"ab")
        file.append(b"cd")

    whole = {b"", b"ab", b"abcd"}
    with_holes = whole | {b"\0\0cd"}
    torn = whole | {b"a", b"abc"}
    assert after_crashes(prepare, torn=False, holes=False) == {(("log", left),) for left in whole}
    assert after_crashes(prepare, torn=False) == {(("log", left),) for left in with_holes}
    assert after_crashes(prepare, holes=False) == {(("log", left),) for left in torn}
    assert after_crashes(prepare) == {(("log", left),) for left in torn | with_holes | {b"\0\0c"}}


def test_a_torn_write_ends_at_a_sector_or_in_the_middle_of_one() -> None:
    first = SECTOR_BYTES - 100

    def prepare(disk: Disk) -> None:
        durable_file(disk, "log", b"." * first)
        disk.open("log").append(b"x" * 3 * SECTOR_BYTES)

    sizes = {len(files[0][1]) for files in after_crashes(prepare)}
    assert {SECTOR_BYTES, 2 * SECTOR_BYTES, 3 * SECTOR_BYTES} <= sizes
    assert any(size % SECTOR_BYTES for size in sizes - {first, first + 3 * SECTOR_BYTES})


def test_a_new_file_may_vanish_with_all_it_synced_until_the_directory_is_synced() -> None:
    def prepare(disk: Disk) -> None:
        with disk.open("new") as file:
            file.write(b"synced")
            file.fsync()

    assert after_crashes(prepare) == {(), (("new", b"synced"),)}


def test_a_rename_may_come_before_the_content_that_was_never_synced() -> None:
    def prepare(disk: Disk) -> None:
        durable_file(disk, "state", b"1")
        disk.open("state.new").write(b"2")
        disk.rename("state.new", "state")

    assert (("state", b""),) in after_crashes(prepare)

    def prepare_well(disk: Disk) -> None:
        durable_file(disk, "state", b"1")
        with disk.open("state.new") as file:
            file.write(b"2")
            file.fsync()
        disk.rename("state.new", "state")

    left = {dict(files)["state"] for files in after_crashes(prepare_well)}
    assert left == {b"1", b"2"}


def test_a_removed_file_may_come_back() -> None:
    def prepare(disk: Disk) -> None:
        durable_file(disk, "lock", b"x")
        disk.remove("lock")

    assert after_crashes(prepare) == {(), (("lock", b"x"),)}


def test_a_lying_fsync_keeps_nothing() -> None:
    lost = 0
    for seed in SEEDS:
        disk = Disk(random.Random(seed))
        durable_file(disk, "log", b"1")
        disk.fsync_lies = 1.0
        file = disk.open("log")
        file.append(b"2")
        file.fsync()
        disk.fsync_dir()
        disk.crash()
        assert content(disk, "log") in {b"1", b"12"}, f"seed {seed}"
        lost += content(disk, "log") == b"1"
    assert lost > len(SEEDS) / 4


def test_bit_rot_flips_one_bit_of_a_sector_even_of_what_was_synced() -> None:
    size = 4 * SECTOR_BYTES + 7
    disk = Disk(random.Random(3))
    durable_file(disk, "log", bytes(size))
    report = disk.crash(bit_rot=1.0)
    rotten = content(disk, "log")
    assert len(rotten) == size
    for start in range(0, size, SECTOR_BYTES):
        assert sum(byte.bit_count() for byte in rotten[start : start + SECTOR_BYTES]) == 1
    assert report[0].count("is wrong") == 5
    durable_file(disk, "log", bytes(size))
    disk.crash()
    assert content(disk, "log") == bytes(size)


def test_a_file_of_an_earlier_life_is_of_no_use() -> None:
    disk = Disk(random.Random(1))
    file = disk.open("log")
    disk.crash()
    for use in (file.fsync, file.read, lambda: file.write(b"x"), lambda: file.truncate(0), lambda: file.size):
        with pytest.raises(OSError, match=r"lost power .* open it again: 'log'") as caught:
            use()
        assert caught.value.errno == errno.EIO


def test_without_power_nothing_can_be_written() -> None:
    disk = Disk(random.Random(1))
    durable_file(disk, "log", b"1")
    disk.crash()
    disk.powered = False
    for use in (lambda: disk.open("log"), disk.fsync_dir, disk.listdir, lambda: disk.remove("log")):
        with pytest.raises(OSError, match="has crashed and is not up again"):
            use()
    disk.powered = True
    assert content(disk, "log") == b"1"


def test_a_crash_reports_what_was_lost_by_name() -> None:
    reports = set()
    for seed in SEEDS:
        disk = Disk(random.Random(seed))
        durable_file(disk, "log", b"")
        disk.open("log").write(b"four")
        disk.open("new")
        reports.update(disk.crash())
    assert "directory: lost 1 of 1 unsynced changes" in reports
    assert "log: lost the last 1 of 1 unsynced changes" in reports
    assert "log: tore 4 bytes at 0, 3 are left" in reports
    assert len(reports) == 5


def test_a_file_that_is_never_synced_does_not_grow_without_end() -> None:
    disk = Disk(random.Random(1))
    durable_file(disk, "counter", b"")
    file = disk.open("counter")
    for number in range(3 * WRITEBACK_CHANGES):
        file.pwrite(number.to_bytes(4, "big"), 0)
        assert len(file._inode.unsynced) <= WRITEBACK_CHANGES
    disk.crash(torn=False, holes=False)
    assert int.from_bytes(content(disk, "counter"), "big") >= WRITEBACK_CHANGES


def test_equal_seeds_crash_alike() -> None:
    def run(seed: int) -> list[tuple[str, bytes]]:
        disk = Disk(random.Random(seed))
        for number in range(20):
            disk.open(f"f{number}").write(bytes(range(number + 2)))
        disk.crash(bit_rot=0.2)
        return [(name, content(disk, name)) for name in disk.listdir()]

    assert run(5) == run(5)
    assert len({tuple(run(seed)) for seed in range(20)}) > 10


# ------------------------------------------------------------------------------------- a model as the oracle

Changes: TypeAlias = list[tuple[int, bytes | None]]
"""An offset and what was written there; or a size to truncate to, and None."""


class ModelFile:
    """A file as the oracle has it: its content at the last sync, and what was done since."""

    def __init__(self, synced: bytes) -> None:
        self.synced = synced
        self.changes: Changes = []

    def now(self) -> bytes:
        result = self.synced
        for change in self.changes:
            result = changed(result, *change)
        return result

    def allowed(self) -> Set[bytes]:
        """Every content that a crash may leave: all prefixes, with holes, with the last write cut anywhere."""
        outcomes, reached = {self.synced}, {self.synced}
        for at, data in self.changes:
            applied = {changed(before, at, data) for before in reached}
            outcomes |= applied
            if data is not None:
                cuts = range(1, len(data))
                outcomes |= {changed(before, at, data[:cut]) for before in reached for cut in cuts}
                applied |= reached
            reached = applied
        return outcomes


def changed(before: bytes, at: int, data: bytes | None) -> bytes:
    if data is None:
        return before[:at].ljust(at, b"\0")
    return before[:at].ljust(at, b"\0") + data + before[at + len(data) :]


Listing: TypeAlias = dict[str, ModelFile]


class Model:
    """Does every operation twice, on the disk and on lists of all that was ever the case since the last sync."""

    NAMES = ("a", "b", "c")

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.disk = Disk(rng)
        self.listings: list[Listing] = [{}]
        """The directory at its last sync, and after each change since."""

    def step(self) -> None:
        rng, now = self.rng, self.listings[-1]
        name = rng.choice(self.NAMES)
        kind = rng.choices(
            ["write", "truncate", "fsync", "rename", "remove", "fsync_dir"], [8, 2, 3, 2, 1, 2]
        )[0]
        if kind == "fsync_dir":
            self.disk.fsync_dir()
            self.listings = [now]
        elif kind in {"rename", "remove"} and name in now:
            after = dict(now)
            file = after.pop(name)
            if kind == "remove":
                self.disk.remove(name)
            else:
                new = rng.choice([other for other in self.NAMES if other != name])
                self.disk.rename(name, new)
                after[new] = file
            self.listings.append(after)
        elif kind in {"write", "truncate", "fsync"}:
            self.touch(name, kind)

    def touch(self, name: str, kind: str) -> None:
        if name not in self.listings[-1]:
            self.listings.append({**self.listings[-1], name: ModelFile(b"")})
        model = self.listings[-1][name]
        with self.disk.open(name) as file:
            if kind == "fsync" or len(model.changes) >= 6:  # more would make the oracle slow
                file.fsync()
                model.synced, model.changes = model.now(), []
            elif kind == "truncate":
                model.changes.append((self.rng.randrange(12), None))
                file.truncate(model.changes[-1][0])
            else:
                data = self.rng.randbytes(self.rng.randrange(1, 6))
                at = self.rng.choice([file.size, self.rng.randrange(12)])
                model.changes.append((at, data))
                file.pwrite(data, at)
            assert file.read() == model.now()

    def crash(self) -> None:
        self.disk.crash()
        left = {name: content(self.disk, name) for name in self.disk.listdir()}
        assert any(
            left.keys() == listing.keys()
            and all(left[name] in file.allowed() for name, file in listing.items())
            for listing in self.listings
        ), f"a crash left {left}, which none of {len(self.listings)} listings allows: {self.explain()}"
        self.listings = [{name: ModelFile(data) for name, data in left.items()}]

    def explain(self) -> str:
        return "; ".join(
            str({name: (file.synced, file.changes) for name, file in listing.items()})
            for listing in self.listings
        )


@pytest.mark.parametrize("part", range(4))
def test_random_operations_and_a_crash_leave_only_what_the_model_allows(part: int) -> None:
    for seed in range(part * 250, (part + 1) * 250):
        model = Model(random.Random(seed))
        try:
            for _life in range(3):
                for _ in range(model.rng.randrange(40)):
                    model.step()
                model.crash()
        except AssertionError:
            print(f"seed {seed}")
            raise


def test_every_outcome_that_the_model_allows_does_happen() -> None:
    model = ModelFile(b"durable")

    def prepare(disk: Disk) -> None:
        durable_file(disk, "log", model.synced)
        with disk.open("log") as file:
            for at, data in model.changes:
                if data is None:
                    file.truncate(at)
                else:
                    file.pwrite(data, at)

    model.changes = [(2, b"AB"), (6, b"CD"), (4, None), (4, b"EFG"), (9, b"H")]
    assert {files[0][1] for files in after_crashes(prepare)} == model.allowed()
