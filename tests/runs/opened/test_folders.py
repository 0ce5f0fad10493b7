"""The list of opened folders, looking runs up, and copies of logs."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import epochtop
from epochtop.engine.protocol.events import ScriptEnded
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import index
from epochtop.engine.runs.opened import folders
from epochtop.engine.runs.opened.copying import copy_log
from epochtop.engine.runs.opened.lookup import find_run
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.reader import Follower, read_record
from epochtop.engine.runs.values import history
from epochtop.formats.scan import find_logs
from tests.formats.test_csvlog import LIGHTNING
from tests.formats.test_scan import put
from tests.formats.writers import TIME, losses, scalar_event, single, tensorboard
from tests.support.runs import losses_like_iris, windows, write_run


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder with a TensorBoard run and a CSV log."""
    put(tmp_path / "logs" / "tb" / "events.out.tfevents.1", tensorboard(losses(100)))
    put(tmp_path / "logs" / "version_0" / "metrics.csv", LIGHTNING)
    put(tmp_path / "logs" / "version_0" / "hparams.yaml", "lr: 0.1\n")
    for path in (tmp_path / "logs").rglob("*.*"):
        os.utime(path, (TIME, TIME))
    return tmp_path / "logs"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(home: Path) -> list[str]:
    return [log.name for log in folders.OpenedLogs(home).list()]


def test_opened_folders_stay_in_the_list_until_they_are_forgotten(home: Path, logs: Path) -> None:
    home.mkdir(exist_ok=True)
    folders.add(home, [logs])
    folders.add(home, [logs / "tb"])
    assert listed(home) == ["tb", "version_0"]
    folders.forget(home, [logs])
    assert listed(home) == ["tb"]
    with pytest.raises(Invalid, match="is not open"):
        folders.forget(home, [logs])


def test_a_hidden_run_is_shown_again_when_its_folder_is_opened(home: Path, logs: Path) -> None:
    home.mkdir(exist_ok=True)
    folders.add(home, [logs])
    folders.hide(home, logs / "tb")
    assert listed(home) == ["version_0"]
    folders.add(home, [logs])
    assert listed(home) == ["tb", "version_0"]


def test_logs_are_never_changed(home: Path, logs: Path) -> None:
    before = tree(logs)
    home.mkdir(exist_ok=True)
    folders.add(home, [logs])
    for run in epochtop.runs():
        assert run.series
    with pytest.raises(Invalid, match="not a run directory"):
        index.delete(logs / "tb")
    with pytest.raises(Invalid, match="not a run directory"):
        index.rename(logs / "tb", "other")
    assert tree(logs) == before


def test_an_import_has_the_same_values(home: Path, logs: Path) -> None:
    home.mkdir(exist_ok=True)
    for log in find_logs(logs).logs:
        run = copy_log(home, log)
        original, copy = history.load(log.path), history.load(run)
        assert copy.config == original.config
        assert {name: (each.steps, each.values) for name, each in copy.series.items()} == {
            name: (each.steps, each.values) for name, each in original.series.items()
        }
        assert index.summarize(run).state == "finished"
        assert not is_opened_log(run)
        record = read_record(run)
        assert record.script is not None
        assert record.name == log.name
        with closing(Follower(run)) as follower:
            assert isinstance(list(follower.read_all())[-1], ScriptEnded)


# --- for programs ----------------------------------------------------------------------------------------------


def test_runs_of_both_kinds_have_series(home: Path, logs: Path) -> None:
    values = losses_like_iris(2_000)
    write_run(home, "iris-mlp-a4f0", windows(values))
    home.mkdir(exist_ok=True)
    folders.add(home, [logs])
    own, board, table = epochtop.runs()
    assert [own.format, board.format, table.format] == ["epochtop", "tensorboard", "csv"]
    assert own.series["train/loss"].values.tolist() == [single(value) for value in values]
    assert own.series["train/loss"].steps.tolist() == list(range(2_000))
    assert own.config["model"] == "mlp"
    assert board.series["train/loss"].times.tolist() == [TIME + step for step in range(100)]
    assert isinstance(board.series["train/loss"].values, np.ndarray)
    assert table.config == {"lr": 0.1}
    assert np.isnan(table.series["val_loss"].times).all()
    assert board.state == "finished"


def test_the_last_value_of_a_step_counts(tmp_path: Path) -> None:
    path = put(
        tmp_path / "log.jsonl",
        "".join(f'{{"step": {step}, "loss": {loss}}}\n' for step, loss in ((1, 9), (3, 2), (1, 5))),
    )
    series = epochtop.open(path).series["loss"]
    assert (series.steps.tolist(), series.values.tolist()) == ([1, 3], [5.0, 2.0])


def test_a_run_can_be_read_again_as_it_grows(tmp_path: Path) -> None:
    path = put(tmp_path / "log.jsonl", '{"step": 1, "loss": 2}\n')
    run = epochtop.open(path)
    assert len(run.series["loss"]) == 1
    put(path, '{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    run.reload()
    assert len(run.series["loss"]) == 2


def test_a_restart_discards_later_steps(tmp_path: Path) -> None:
    events = [*losses(10), *losses(10, "other"), scalar_event(4, "train/loss", 9.0)]
    path = put(tmp_path / "tb" / "events.out.tfevents.1", tensorboard(events))
    series = epochtop.open(path.parent).series
    assert series["train/loss"].steps.tolist() == [0, 1, 2, 3, 4]
    assert len(series["other"]) == 10


def test_a_run_is_found_by_id_name_and_path(home: Path, logs: Path) -> None:
    own = write_run(home, "iris-mlp-a4f0", windows(losses_like_iris(100)))
    folders.add(home, [logs])
    assert find_run(home, "iris-mlp-a4f0") == find_run(home, str(own)) == find_run(home, "last") == own
    assert find_run(home, "tb") == find_run(home, str(logs / "tb")) == logs / "tb"
    with pytest.raises(Invalid, match="holds 2 runs"):
        find_run(home, str(logs))
    with pytest.raises(Invalid, match="there is no run"):
        find_run(home, "nothing")
    with pytest.raises(ValueError, match="no file or folder"):
        epochtop.runs(logs / "nothing")


def test_rows_of_several_series_are_joined_by_step(logs: Path) -> None:
    run = history.load(logs / "version_0" / "metrics.csv")
    rows = [(step, values) for step, _, values in history.rows([run.series["train_loss"], run.series["val_loss"]])]
    assert rows == [(0, (1.0, None)), (1, (0.5, 0.75))]
