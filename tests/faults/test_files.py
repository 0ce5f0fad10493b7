"""Files × damage: whatever lies in the place of a file of a run, readers end, and only its own run is affected."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epochtop.engine.inference import trained_model
from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import find, run_paths, summarize
from epochtop.engine.runs.paths import CHECKPOINTS, COMMANDS, EVENTS, HEARTBEAT, LOCK, OUTPUT, PREPARATION, RECORD
from epochtop.engine.runs.reader import Follower, is_alive, output_tail
from epochtop.engine.runs.writer import reopen, send
from epochtop.engine.training.resume import recorded_run
from epochtop.tui.lab.saved_results import ResultIndex
from tests.faults.selection import rows
from tests.support.trained_runs import trained

HANGING_S = 240
"""Seconds after which a reader hangs."""
HUGE_BYTES = 1 << 40


def missing(path: Path) -> None:
    """Nothing is there."""


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path, content: bytes = b"") -> None:
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path, content: bytes = b"") -> None:
    path.write_bytes(bytes(byte ^ (1 << position % 8) for position, byte in enumerate(content)))


def zeros(path: Path, content: bytes = b"") -> None:
    path.write_bytes(bytes(max(len(content), 100)))


def huge(path: Path) -> None:
    """A sparse file: 1 TiB that take no space."""
    path.touch()
    os.truncate(path, HUGE_BYTES)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


DAMAGES = (missing, empty, truncated, flipped, zeros, huge, link_to_itself, fifo, folder)
NEED_CONTENT = (truncated, flipped, zeros)
FILES = (
    RECORD, EVENTS, COMMANDS, LOCK, OUTPUT, HEARTBEAT, PREPARATION,
    *(f"{CHECKPOINTS}/{kind}.{ending}" for kind in ("last", "best") for ending in ("json", "safetensors")),
)  # fmt: skip
LOG_IS_HUGE = (EVENTS, huge)
"""A log may be long: a reader takes it piece by piece, so this file is not read to its end."""
TABLE = list(itertools.product(FILES, DAMAGES))
IN_CI = [*itertools.product(FILES, (fifo, folder)), *itertools.product((RECORD, EVENTS), DAMAGES)]
IN_CI = [(name, damage) for name, damage in TABLE if (name, damage) in IN_CI]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return trained(tmp_path_factory.mktemp("intact") / "runs", epochs=40)


class HangingReaderError(BaseException):
    """No reader catches it, as it catches what a damaged file may raise."""


@pytest.fixture(autouse=True)
def _no_reader_hangs() -> Iterator[None]:
    def hang(_number: int, _frame: object) -> None:
        raise HangingReaderError

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANGING_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def place(run: Path, name: str) -> Path:
    """The path of a file of a run; tensor files have their step in their name."""
    stem, dot, ending = name.partition(".safetensors")
    return next(run.glob(f"{stem}-*{dot}{ending}")) if dot else run / name


def damage_file(run: Path, name: str, damage: Callable[..., None]) -> None:
    """Put something else in the place of a file."""
    path = place(run, name)
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    if damage in NEED_CONTENT:
        damage(path, content)
    else:
        damage(path)


@pytest.mark.parametrize(("name", "damage"), rows(TABLE, IN_CI))
def test_readers_end_and_other_runs_are_not_affected(
    intact: Path, home: Path, name: str, damage: Callable[..., None]
) -> None:
    home.mkdir(parents=True)
    good, bad = home / "good-mlp-0000", home / "bad-mlp-0000"
    for run in (good, bad):
        shutil.copytree(intact, run)
    damage_file(bad, name, damage)
    assert good in run_paths(home)
    assert (bad in run_paths(home)) == ((name, damage) != (RECORD, missing))
    assert summarize(good).state == "finished"
    assert find(home, "good-mlp") == good

    summary = summarize(bad)
    assert summary.id == bad.name
    if name == RECORD or (name == EVENTS and damage in (missing, fifo, folder, link_to_itself)):
        assert name in summary.note
    else:
        assert summary.state == ("finished" if name != EVENTS else summary.state)
    assert name == HEARTBEAT or not is_alive(bad)  # a young heartbeat is one of another host
    output_tail(bad)
    ResultIndex(home).list()
    if (name, damage) != LOG_IS_HUGE:
        follower = Follower(bad)
        list(follower.read_all())
        assert follower.read() == []
        follower.close()
        check_resumption(bad, recorded_run(good).step, name, damage)
    for action in (lambda: trained_model.weights(bad), lambda: send(bad, Stop()), lambda: reopen(bad).close()):
        with contextlib.suppress(Invalid, OSError):
            action()


def check_resumption(run: Path, step: int, name: str, damage: Callable[..., None]) -> None:
    """A damaged run continues from its checkpoint of `step` or takes all steps again, and says why."""
    if name == RECORD:
        with pytest.raises(Invalid, match=RECORD):
            recorded_run(run)
        return
    recorded = recorded_run(run)
    assert recorded.step in (0, step)
    if name.startswith(f"{CHECKPOINTS}/last") and (name.endswith("tensors") or damage is not missing):
        assert recorded.problems


def test_a_folder_that_cannot_be_entered_has_a_row_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(home, epochs=3)
    closed = home / "closed-mlp-0000"
    closed.mkdir()
    lstat, read = os.lstat, os.open

    def refuse(path: object) -> None:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))

    def refusing_lstat(path: object, **options: object) -> os.stat_result:
        refuse(path)
        return lstat(path, **options)  # type: ignore[arg-type]

    def refusing_open(path: object, *options: object, **more: object) -> int:
        refuse(path)
        return read(path, *options, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "lstat", refusing_lstat)
    monkeypatch.setattr(os, "open", refusing_open)
    assert {*run_paths(home)} == {run, closed}
    assert "Permission denied" in summarize(closed).note
    assert summarize(run).state == "finished"


def test_the_table_has_every_file_that_an_engine_leaves(intact: Path) -> None:
    left = {path.relative_to(intact) for path in intact.rglob("*") if path.is_file()}
    assert left == {place(intact, name).relative_to(intact) for name in FILES if name != HEARTBEAT}
