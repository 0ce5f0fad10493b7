"""The search for logs in trees."""

from __future__ import annotations

import os
from pathlib import Path
from time import process_time

import pytest

from epochtop.formats.scan import DEEPEST, find_logs, log_at
from tests.formats import writers
from tests.formats.test_csvlog import LIGHTNING
from tests.formats.test_jsonl import TIME, save, state
from tests.formats.writers import history, losses, tensorboard, wandb


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_formats_are_recognized_by_their_contents(tmp_path: Path) -> None:
    events, csv = put(tmp_path / "a" / "renamed", tensorboard(losses(2))), put(tmp_path / "b" / "some.txt", LIGHTNING)
    lines = put(tmp_path / "c" / "x.log", '{"step": 1, "loss": 1}\n')
    offline = put(tmp_path / "d" / "x", wandb([history(0, loss=1.0)]))
    put(tmp_path / "e" / "metrics.csv", "species,petal\nsetosa,1\n")
    put(tmp_path / "e" / "events.out.tfevents.1", b"not events")
    put(tmp_path / "e" / "weights.pt", tensorboard(losses(2)))
    logs, problems = find_logs(tmp_path)
    expected = [("tensorboard", events.parent), ("csv", csv), ("jsonl", lines), ("wandb", offline)]
    assert [(log.kind, log.path) for log in logs] == expected
    assert problems == []


def test_every_log_is_found_again_by_its_path(tmp_path: Path) -> None:
    put(tmp_path / "tb" / "events.out.tfevents.1", tensorboard(losses(2)))
    put(tmp_path / "lightning" / "version_0" / "metrics.csv", LIGHTNING)
    (tmp_path / "out").mkdir()
    save(tmp_path / "out" / "checkpoint-3", state(3), TIME)
    writers.trackio(tmp_path / "project.db", {"a/b": [{"loss": 1.0}], "..": [{"loss": 2.0}]}, {})
    logs = find_logs(tmp_path).logs
    assert [log.name for log in logs] == ["lightning/version_0", "out", "project.db/id-..", "project.db/id-a/b", "tb"]
    for log in logs:
        same = log_at(log.path)
        assert same is not None
        assert (same.kind, same.path) == (log.kind, log.path)
        follower = same.follow()
        assert follower.read()
        follower.close()
    assert log_at(tmp_path) is None
    assert log_at(tmp_path / "project.db" / "id-other") is None


def test_event_files_are_preferred_to_the_state_of_a_trainer(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "checkpoint-3", state(3), TIME)
    put(tmp_path / "with" / "runs" / "Nov30" / "events.out.tfevents.1", tensorboard(losses(2)))
    kinds = {log.name: log.kind for log in find_logs(tmp_path).logs}
    assert kinds == {"with/runs/Nov30": "tensorboard", "without": "transformers"}


def test_a_tree_of_a_thousand_runs(tmp_path: Path) -> None:
    content = tensorboard(losses(1))
    for run in range(1_000):
        put(tmp_path / f"sweep{run // 100}" / f"run{run}" / "events.out.tfevents.1", content)
    before = process_time()
    logs, problems = find_logs(tmp_path)
    assert len({log.name for log in logs}) == 1_000
    assert problems == []
    assert process_time() - before < 60  # a search that is quadratic would take longer


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put(tmp_path / "b" / "run" / "metrics.csv", LIGHTNING)
    (tmp_path / "b" / "run" / "up").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "b" / "run")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    logs, problems = find_logs(tmp_path)
    assert [log.name for log in logs] == ["b/run"]
    assert problems == []


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.csv")
    assert find_logs(tmp_path).logs == []
    assert find_logs(tmp_path / "metrics.csv").logs == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folders_without_permission_are_reported(tmp_path: Path) -> None:
    put(tmp_path / "a" / "metrics.csv", LIGHTNING)
    put(tmp_path / "b" / "metrics.csv", LIGHTNING)
    (tmp_path / "a").chmod(0)
    try:
        logs, problems = find_logs(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)
    assert [log.name for log in logs] == ["b"]
    assert problems == [f"{tmp_path / 'a'} cannot be read: Permission denied"]


def test_an_error_of_the_system_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a" / "metrics.csv", LIGHTNING)
    put(tmp_path / "b" / "metrics.csv", LIGHTNING)
    real = os.scandir

    def scandir(folder: str | os.PathLike[str]) -> object:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    logs, problems = find_logs(tmp_path)
    assert [log.name for log in logs] == ["b"]
    assert problems == [f"{tmp_path / 'a'} cannot be read: Permission denied"]


def test_the_depth_is_bounded_and_reported(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["x"] * (DEEPEST + 2))
    put(deep / "metrics.csv", LIGHTNING)
    logs, problems = find_logs(tmp_path)
    assert logs == []
    assert len(problems) == 1


def test_a_missing_path_is_a_problem(tmp_path: Path) -> None:
    assert find_logs(tmp_path / "nothing").problems == [
        f"{tmp_path / 'nothing'} cannot be read: No such file or directory"
    ]


def test_a_run_directory_is_one_run(tmp_path: Path) -> None:
    put(tmp_path / "iris-mlp-a4f0" / "run.json", "{}")
    put(tmp_path / "iris-mlp-a4f0" / "events.jsonl", '{"type":"Losses","first_step":0}\n')
    put(tmp_path / "iris-mlp-a4f0" / "metrics.csv", LIGHTNING)
    assert [(log.kind, log.path.name) for log in find_logs(tmp_path).logs] == [("epochtop", "iris-mlp-a4f0")]
