"""Files are complete or absent, and partial files of killed processes are removed: ours only, and only abandoned ones."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from epochtop.engine.data.downloads import cache
from epochtop.engine.execution.c import build
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs import files
from epochtop.engine.runs.paths import CHECKPOINTS, LOCK
from epochtop.engine.runs.writer import create, reopen

OLD = time.time() - 2 * files.OLD_S


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger: the kernel refuses the bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    """Everything in a folder, sorted."""
    return sorted(os.listdir(folder))  # noqa: PTH208


def _write(path: Path) -> None:
    files.write_atomically(path, b"x" * 5000)


def _write_text(path: Path) -> None:
    with files.output_file(path) as file:
        file.write("x" * 5000)


@pytest.mark.parametrize("write", [_write, _write_text])
def test_a_write_that_the_disk_refuses_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    for _ in range(3):
        with pytest.raises(OSError) as refusal, largest_file(1000):
            write(path)
        assert refusal.value.errno == errno.EFBIG
    assert names(tmp_path) == ["table.csv"]
    assert path.read_bytes() == b"old"
    write(path)
    assert path.read_bytes() == b"x" * 5000
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_sync_or_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="quota"):
        files.write_atomically(tmp_path / "run.json", b"new")
    assert names(tmp_path) == []


def test_an_output_that_is_not_a_file_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.output_file(pipe) as file:
        file.write("a,b\n")
    assert os.read(reader, 100) == b"a,b\n"
    os.close(reader)
    assert pipe.is_fifo()


KILLED = """
import sys, time
from pathlib import Path
from epochtop.engine.runs import files
with files.atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "weights.pt"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        (partial,) = names(tmp_path)
        files.remove_left_overs_of(target)
        assert names(tmp_path) == [partial]
        writer.send_signal(signal.SIGKILL)
    files.remove_left_overs_of(target)
    assert names(tmp_path) == []


FOREIGN = (
    ".notes.json",
    ".last.json.bak",
    ".run.json.12x",
    ".config.7",
    "run.json.12.epochtop",
    ".epochtop",
    ".a.epochtop",
)
OURS = (".run.json.12.epochtop", ".last-5.safetensors.9.epochtop")
OURS_OF_0_1_0 = (
    ".run.json.12",
    ".last-5.safetensors.9",
    ".best.json.77",
    ".epoch-3-30.safetensors.1",
    ".preparation.json.4",
)


def test_a_resumed_run_removes_its_partial_files_and_no_others(home: Path) -> None:
    run, lock = create(home, RunSpec(), {}, time.time())
    lock.close()
    before = {folder: names(folder) for folder in (run, run / CHECKPOINTS)}
    for folder in before:
        for name in (*FOREIGN, *OURS, *OURS_OF_0_1_0):
            (folder / name).write_bytes(b"x")
        (folder / ".link.1.epochtop").symlink_to(run / LOCK)
        (folder / ".folder.1.epochtop").mkdir()
    reopen(run).close()
    for folder, expected in before.items():
        assert names(folder) == sorted([*expected, *FOREIGN, ".link.1.epochtop", ".folder.1.epochtop"])


def test_run_directories_that_were_never_completed_are_removed(home: Path) -> None:
    def new(number: int, *contents: str) -> Path:
        folder = home / f".new-{number:016x}"
        folder.mkdir(parents=True)
        for name in contents:
            (folder / name).touch()
        return folder

    new(1, LOCK, "events.jsonl")
    new(2)
    locked, foreign, young = new(3, LOCK), new(4, LOCK, "thesis.tex"), new(5)
    begun = new(6, LOCK)  # its process has opened the lock and is about to take it
    other = home / ".new-notes"
    other.mkdir()
    for path in home.iterdir():
        if path not in (young, begun):
            os.utime(path, (OLD, OLD))
    (home / ".probe-12-0123abcd").touch()
    os.utime(home / ".probe-12-0123abcd", (OLD, OLD))
    with open(locked / LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run, own_lock = create(home, RunSpec(), {}, time.time())
        own_lock.close()
        assert names(home) == sorted(path.name for path in (locked, foreign, young, begun, other, run))


def test_partial_files_in_the_caches_are_removed_once_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path))
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    programs = ["0" * 32 + ".so", "0" * 32 + ".12.part", "1" * 32 + ".13.part", "movie.12.part"]
    for name in programs:
        (graphs / name).touch()
    for name in (".writing-abcd1234", ".fetching-abcd1234", ".fetching-new_5678", ".writing-my-thesis"):
        (tmp_path / name).mkdir()
    (tmp_path / ".writing-abcd1234" / "iris.npz").touch()
    kept = ("1" * 32 + ".13.part", ".fetching-new_5678")
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path.name not in kept:
            os.utime(path, (OLD, OLD))
    cache.remove_left_overs(tmp_path)
    build.remove_left_overs()
    assert names(graphs) == sorted(set(programs) - {"0" * 32 + ".12.part"})
    assert names(tmp_path) == [".fetching-new_5678", ".writing-my-thesis", "graphs"]


def test_two_threads_that_write_one_file_leave_one_of_the_contents(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "run.json"
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    threads = [threading.Thread(target=files.write_atomically, args=(path, content)) for content in contents * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["run.json"]
