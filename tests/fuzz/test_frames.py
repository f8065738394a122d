"""A short run of the fuzzer on every machine, and proof that it finds what it looks for."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable
from typing import Any

import pytest

import rpcfw
import rpcfw.connection.server as serving
from rpcfw.connection.outbox import Outbox
from rpcfw.connection.server import ServerConnection
from rpcfw.connection.server_replies import ReplySender
from rpcfw.wire.handshake import Hello
from rpcfw.wire.reader import Budget
from tests.fuzz import frames
from tests.fuzz.frames import MEMORY_LIMIT_MB, Fuzzer, fuzz, recorded
from tests.fuzz.mutation import Mutator

FRAMES = 20_000
SEED = 20260203
"""Of the planted faults; the run without one takes a new seed each time, and prints it."""


def test_mutated_frames_let_no_exception_escape_and_leave_nothing_behind() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}: python tests/fuzz/frames.py --frames {FRAMES} --seed {seed}")
    fuzzer = fuzz(FRAMES, seed)
    assert not fuzzer.findings.kinds
    assert fuzzer.growth_mb < MEMORY_LIMIT_MB
    assert fuzzer.findings.frames >= FRAMES
    assert fuzzer.served > FRAMES / 20, "too few frames got as far as a handler for the run to mean anything"
    assert fuzzer.refused > FRAMES / 40, "too few frames were refused for the run to mean anything"


def test_a_seed_replays_its_mutations() -> None:
    asked, _ = recorded()
    runs = [[Mutator(asked, random.Random(SEED)).conversation() for _ in range(20)] for _ in range(2)]
    assert runs[0] == runs[1]


def _raise(*arguments: object, **named: object) -> Any:
    raise ZeroDivisionError("planted")


def _parser_fails(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(serving, "split_metadata", _raise)


def _handshake_checks_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hello, "unpack", lambda body: _raise())


def _reply_fails(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplySender, "send_failure", _raise)


def _handlers_are_not_cancelled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerConnection, "_cancel", lambda *arguments: None)


def _memory_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Budget, "give", lambda *arguments: None)


def _callbacks_fail(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_end_turn", _raise)


def _connections_are_kept(patch: pytest.MonkeyPatch) -> None:
    kept: list[mmap.mmap] = []
    check = Fuzzer._check

    def keep(self: Fuzzer, server: rpcfw.Server) -> None:
        check(self, server)
        kept.append(mmap.mmap(-1, 100_000))  # not from the heap, which may still have room from tests before
        kept[-1].write(b"x" * 100_000)

    patch.setattr(Fuzzer, "_check", keep)


def _frames_hang(patch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: object) -> Any:
        while True:
            pass

    patch.setattr(frames, "HANG_S", 0.02)
    patch.setattr(serving, "split_metadata", hang)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (_parser_fails, "escaped from the parser: ZeroDivisionError"),
        (_handshake_checks_nothing, "escaped from the parser: ZeroDivisionError"),
        (_reply_fails, "told to the loop: Task exception was never retrieved: ZeroDivisionError"),
        (_handlers_are_not_cancelled, "handlers left running"),
        (_memory_is_kept, "memory of the budget not given back"),
        (_callbacks_fail, "told to the loop: Exception in callback"),
        (_frames_hang, "escaped from the parser: Hung"),
    ],
)
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded()  # before the fault
    plant(monkeypatch)
    fuzzer = fuzz(1500, SEED)
    assert any(kind.startswith(found) for kind in fuzzer.findings.kinds), fuzzer.findings.kinds


def test_planted_growth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _connections_are_kept(monkeypatch)
    assert fuzz(10_000, SEED).growth_mb > MEMORY_LIMIT_MB


def test_the_program_ends_with_its_figures_and_fails_when_something_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["frames.py", "--frames", "500", "--seed", "3"])
    assert frames.main() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("frames 5"), last
    assert "escaped exceptions 0, memory " in last
    _parser_fails(monkeypatch)
    assert frames.main() == 1
