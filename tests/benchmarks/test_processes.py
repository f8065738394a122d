from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.catalog import Entry, Kind
from benchmarks.processes import Process, RunningSubject, SubjectFailed
from benchmarks.subject import WARM_UP, Task, Workload


def test_subject_that_cannot_be_imported_fails_with_the_reason(tmp_path: Path) -> None:
    with (
        RunningSubject(Entry("peers.on_nothing", Kind.PEER, "nothing"), tmp_path) as running,
        pytest.raises(
            SubjectFailed, match=r"ModuleNotFoundError: No module named 'benchmarks\.peers\.on_nothing'"
        ),
    ):
        running.described()


def test_subject_describes_itself_does_tasks_and_leaves_no_process(tmp_path: Path) -> None:
    entry = Entry("limits.blocking", Kind.LIMIT, "blocking sockets")
    with RunningSubject(entry, tmp_path, {WARM_UP: "0"}) as running:
        description = running.described()
        assert description.name == entry.name
        assert description.workloads == {Workload.DOWNLOAD, Workload.UPLOAD}
        for workload in description.workloads:
            sample = running.measure(Task(Workload(workload), seconds=0.0))
            assert sample.count == len(sample.latencies_us)
        processes = running.process_ids
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = "import subprocess, sys; subprocess.Popen(['sleep', '600'], stdout=open(sys.argv[1], 'w')); "
    command = [sys.executable, "-c", child + "print('{}', flush=True); sys.stdin.read()", str(pipe)]
    process = Process(command, dict(os.environ), tmp_path / "log")
    with pipe.open("rb") as end:  # opens when the child has opened its own
        process.answer(30.0)
        process.close()
        assert end.read() == b""  # which comes when nobody has the other end any more


def test_task_that_fails_tells_the_subjects_own_words(tmp_path: Path) -> None:
    with RunningSubject(Entry("limits.echo:callbacks", Kind.LIMIT, "callbacks"), tmp_path) as running:
        running.described()
        with pytest.raises(SubjectFailed, match="KeyError"):
            running.measure(Task(Workload.UPLOAD))


def _process(program: str, folder: Path) -> Process:
    return Process([sys.executable, "-c", f"{program}; sys.stdin.read()"], dict(os.environ), folder / "log")


def test_an_answer_comes_whole_though_the_system_cuts_writes_short(tmp_path: Path) -> None:
    program = "import os, sys; from benchmarks import subject; write = os.write; "
    program += "os.write = lambda file, data: write(file, data[:1000]); "
    program += "subject.say({'latencies_us': list(range(5000))})"
    process = _process(program, tmp_path)
    try:
        assert process.answer(30.0) == {"latencies_us": list(range(5000))}
    finally:
        process.close()


def test_half_an_answer_is_not_waited_for(tmp_path: Path) -> None:
    process = _process("import sys; print('hello'); print('{\"count\": 1, \"late', flush=True)", tmp_path)
    try:
        with pytest.raises(SubjectFailed, match=r"an answer of 18 bytes is cut off or not JSON"):
            process.answer(30.0)
    finally:
        process.close()
