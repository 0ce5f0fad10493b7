"""Checkpoints that a disk refuses or damages: nothing partial stays, and the newest intact one is used."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.job import memory_estimate
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.commands import Pause
from epochtop.engine.protocol.events import CHECKPOINT_DAMAGED, Continued, Paused, Saved, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS
from epochtop.engine.runs.writer import create
from epochtop.engine.training import checkpoint
from tests.runs.test_files import largest_file, names
from tests.support.engines import Engine, Watch, events, finished, losses, train_here
from tests.support.plain_loop import needs_muon

TENSORS = {"weight": torch.arange(3000.0)}


@pytest.fixture
def run(home: Path) -> Iterator[Path]:
    """The directory of a run served by this process."""
    path, lock = create(home, RunSpec(), {}, time.time())
    with lock:
        yield path


def write_steps(run: Path, *steps: int, kind: str = "last") -> None:
    """Checkpoints whose weight is their step."""
    for step in steps:
        checkpoint.write(run, kind, step, RunSpec(), {"weight": torch.full((3000,), float(step))}, {})


@pytest.mark.parametrize("kind", ["last", "best", "epoch-4"])
@pytest.mark.parametrize("largest", [0, 5000], ids=["nothing fits", "weights do not fit"])
def test_saves_that_the_disk_refuses_leave_nothing(run: Path, kind: str, largest: int) -> None:
    write_steps(run, 1, kind=kind)
    before = names(run / CHECKPOINTS)
    for step in range(2, 7):
        with pytest.raises(OSError), largest_file(largest):
            checkpoint.write(run, kind, step, RunSpec(), TENSORS, {})
        assert names(run / CHECKPOINTS) == before
    assert checkpoint.read(run, kind)[0].step == 1


def test_weights_whose_json_is_refused_are_removed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(run, 1, 2)
    write = checkpoint.write_atomically

    def refuse_json(path: Path, content: bytes) -> None:
        if path.name == "last.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", refuse_json)
    for step in (3, 4):
        with pytest.raises(OSError):
            write_steps(run, step)
    assert [name for name in names(run / CHECKPOINTS) if name.endswith("tensors")] == ["last-2.safetensors"]
    assert checkpoint.read(run, "last")[0].step == 2


def test_a_save_never_needs_room_for_a_third_copy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    write = checkpoint.write_atomically

    def count(path: Path, content: bytes) -> None:
        write(path, content)
        counts.append(len(list(path.parent.glob("*.safetensors"))))

    monkeypatch.setattr(checkpoint, "write_atomically", count)
    write_steps(run, 1, 2, 3, 4, 5)
    assert max(counts) == 2


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()


def _flipped(path: Path) -> None:
    """Damage one bit of a weight, or of the json's first key."""
    content = bytearray(path.read_bytes())
    content[-1 if path.suffix == ".safetensors" else 5] ^= 1
    path.write_bytes(content)


def _swapped(path: Path) -> None:
    """Put the file of another checkpoint in its place."""
    path.write_bytes((path.parent / path.name.replace("7", "5")).read_bytes())


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *itertools.product(
            ("last.json", "last-7.safetensors"), (_empty, _cut, _half, _zeros, _folder, _gone, _flipped)
        ),
        ("last-7.safetensors", _swapped),
    ],
)
def test_the_newest_intact_checkpoint_is_found(run: Path, file: str, damage: Callable[[Path], None]) -> None:
    write_steps(run, 3, 5, 7)
    damage(run / CHECKPOINTS / file)
    newest = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS))
    assert newest.info is not None
    assert (newest.kind, newest.info.step, newest.tensors["weight"][0]) == ("previous", 5, 5.0)
    assert len(newest.problems) == (0 if (damage, file) == (_gone, "last.json") else 1)
    assert all("'last'" in problem for problem in newest.problems)
    if (damage, file) == (_folder, "last.json"):
        return  # no rename replaces a folder
    write_steps(run, 9)
    again = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS))
    assert again.info is not None
    assert (again.kind, again.info.step, list(again.problems)) == ("last", 9, [])


@pytest.mark.parametrize("file", ["last.json", "last-7.safetensors"])
def test_a_checkpoint_that_other_users_can_write_is_not_used(run: Path, file: str) -> None:
    write_steps(run, 5, 7)
    run.chmod(0o755)
    (run / CHECKPOINTS / file).chmod(0o666)
    for read in (checkpoint.read, checkpoint.intact_info):
        with pytest.raises(Invalid, match=rf"{file} is writable by other users; it is not used"):
            read(run, "last")
    newest = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS))
    assert newest.kind == "previous"
    assert checkpoint.newest_step(run, (checkpoint.LAST, checkpoint.PREVIOUS)) == 5


def test_a_checkpoint_without_a_value_that_training_needs_is_not_used(run: Path) -> None:
    values = {"rows_taken_of_epoch": 0, "learning_rate": 0.5}
    checkpoint.write(run, "last", 3, RunSpec(), TENSORS, values)
    checkpoint.write(run, "last", 5, RunSpec(), TENSORS, values | {"learning_rate": None})
    newest = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS), values=checkpoint.RESUME_VALUES)
    assert newest.kind == "previous"
    assert newest.problems == [f"checkpoint 'last' of {run.name} has no value 'learning_rate'"]


def test_checkpoints_of_older_versions_have_no_checksum_and_can_be_read(run: Path) -> None:
    write_steps(run, 3)
    path = run / CHECKPOINTS / "last.json"
    content = json.loads(path.read_bytes())
    expected = hashlib.sha256((run / CHECKPOINTS / content["file"]).read_bytes()).hexdigest()
    assert content.pop("sha256") == expected
    path.write_text(json.dumps(content))
    assert checkpoint.read(run, "last")[0].step == checkpoint.intact_info(run, "last").step == 3


def test_a_checkpoint_ahead_of_the_log_is_not_used(run: Path) -> None:
    write_steps(run, 3, 5)
    newest = checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS), steps=4)
    assert newest.info is not None
    assert newest.info.step == 3
    assert "the log ends at step 4" in newest.problems[0]
    assert checkpoint.newest(run, (checkpoint.LAST, checkpoint.PREVIOUS), steps=2).info is None


def test_a_finished_run_keeps_one_copy_of_its_state(home: Path) -> None:
    run = train_here(RunSpec(epochs=3000, save_every=0.02, device="cpu", threads=1, executor="eager"), home)
    assert sum(isinstance(event, Saved) and event.kind == "last" for event in events(run)) > 1
    assert [name for name in names(run / CHECKPOINTS) if name.startswith(("last", "previous"))] == [
        "last-3000.safetensors",
        "last.json",
    ]


DIGITS = RunSpec(
    dataset="digits", batch_size=100, hidden=(16,), epochs=250, momentum=0.9, device="cpu", threads=1, seed=5,
    refresh_ms=10, eval_every=0.05, save_every=0.05, executor="eager",
)  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIGITS, trained without an interruption."""
    torch.set_num_threads(1)
    return train_here(DIGITS, tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIGITS, killed when it had saved three times."""
    with Engine() as engine:
        run = engine.train(DIGITS, tmp_path_factory.mktemp("interrupted"))
        watch = Watch(run)
        for _ in range(3):
            watch.until(Saved, lambda event: event.kind == "last", start=len(watch.seen))
        watch.command(Pause(), Paused)  # nothing is being written
        engine.kill()
    return run


@pytest.mark.xdist_group("straight")
@pytest.mark.parametrize("damage", [_empty, _flipped])
@pytest.mark.parametrize("whose", ["last-*.safetensors", "last.json", "last", "best-*.safetensors", "best.json"])
def test_a_run_resumes_from_the_newest_intact_checkpoint_and_says_so(
    home: Path, straight: Path, interrupted: Path, damage: Callable[[Path], None], whose: str
) -> None:
    run = shutil.copytree(interrupted, home / interrupted.name)
    folder = run / CHECKPOINTS
    expected = checkpoint.read_info(run, "last" if whose.startswith("best") else "previous").step
    if whose == "last":  # no checkpoint is left
        (folder / "previous.json").unlink()
        whose, expected = "last.json", 0
    newest = checkpoint.read_info(run, whose.partition(".")[0].partition("-")[0]).file
    damage(folder / (newest if "*" in whose else whose))
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        assert engine.wait() == 0
    recorded = events(run)
    (continued,) = (event for event in recorded if isinstance(event, Continued))
    assert continued.step == expected
    (report,) = (event for event in recorded if isinstance(event, Warned) and event.code == CHECKPOINT_DAMAGED)
    assert ("'best'" if whose.startswith("best") else "'last'") in report.message
    assert not [event for event in recorded if isinstance(event, Warned) and event is not report]
    np.testing.assert_array_equal(losses(run), losses(straight))
    (_, weights), (_, same) = checkpoint.read(run, "last"), checkpoint.read(straight, "last")
    assert all(torch.equal(weights[name], same[name]) for name in same)
    assert finished(run).test_loss == finished(straight).test_loss
    assert names(folder) == sorted(
        ["best.json", "last.json", *(checkpoint.read_info(run, kind).file for kind in ("best", "last"))]
    )


@pytest.mark.parametrize(
    "fields",
    [{"optimizer": "adam"}, {"momentum": 0.9, "ema": 0.9}, pytest.param({"optimizer": "muon"}, marks=needs_muon), {}],
    ids=str,
)
def test_the_size_of_a_save_is_known_before_the_first_step(home: Path, fields: dict[str, object]) -> None:
    spec = RunSpec(**({"hidden": (300, 300), "epochs": 3, "device": "cpu"} | fields))  # type: ignore[arg-type]
    run = train_here(spec, home)
    written = sum(path.stat().st_size for path in (run / CHECKPOINTS).glob("*.safetensors"))
    estimate = memory_estimate.checkpoint_bytes(spec, prepare_job(spec).plan)
    assert estimate == pytest.approx(written, rel=0.05)
