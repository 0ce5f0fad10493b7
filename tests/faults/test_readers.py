"""Every reader with a pipe without a writer, or a folder, in place of its file: it neither waits nor raises undeclared errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epochtop.configuration import load as configuration
from epochtop.engine.data.downloads import cache as downloads
from epochtop.engine.data.images import cache as images
from epochtop.engine.process import torchrun
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import ownership, reader
from epochtop.engine.runs.paths import COMMANDS, EVENTS, HEARTBEAT, LOCK, OUTPUT, RECORD
from epochtop.engine.runs.table import labels, store
from epochtop.engine.training import checkpoint
from epochtop.formats import csvlog, huggingface, jsonl, mlflow, scan, tensorboard, trackio, wandb
from epochtop.notifications import child
from epochtop.recording import directory, log
from epochtop.recording.earlier import joining, resume
from epochtop.recording.later import control
from epochtop.supervisor import commands as supervisor_commands
from epochtop.supervisor import ending
from epochtop.supervisor.output import OutputLog
from epochtop.tui.board import memory
from epochtop.tui.client.printed import PrintedReader
from epochtop.tui.runs_table import layout
from tests.faults.test_files import _no_reader_hangs, fifo, folder

__all__ = ["_no_reader_hangs"]

Reader = Callable[[Path], object]


def _join(run: Path) -> bool:
    os.environ[directory.RUN_TO_JOIN] = str(run)
    return joining.join(object(), {})  # type: ignore[arg-type]


READERS: dict[str, tuple[str, Reader]] = {
    "the record": (RECORD, reader.read_record),
    "the task": ("task.json", reader.read_task_record),
    "the log": (EVENTS, lambda run: reader.Follower(run).read()),
    "the output": (OUTPUT, reader.output_tail),
    "the output of a script, in the app": (OUTPUT, lambda run: PrintedReader(run).read()),
    "whether a process lives, by its lock": (LOCK, reader.is_alive),
    "whether a process lives, by its heartbeat": (HEARTBEAT, reader.is_alive),
    "where a run was copied from": ("origin.json", ownership.origin_of),
    "the launch of torchrun": (torchrun.LAUNCH, torchrun._launch_of),
    "a checkpoint's json": ("checkpoints/last.json", lambda run: checkpoint.read_info(run, "last")),
    # in the home folder
    "figures of all runs": (store.STORE, store.load),
    "labels of logs": (labels.LABELS, labels.read_log_labels),
    "the layout of the table": (layout.LAYOUT, layout.load),
    "the layout of the board": ("board.json", lambda home: memory.load(home / "board.json")),
    # in the caches
    "a downloaded dataset": ("iris.npz", lambda cache: downloads.load_cached(cache / "iris.npz")),
    "decoded images": ("x.npy", lambda cache: images.load_images(cache / "x.npy", 1)),
    # in a user's script, and in the process that runs it
    "the record, in a script": (RECORD, lambda run: resume.read_record(str(run))),
    "the log, in a script": (EVENTS, lambda run: resume.end_of(str(run))),
    "the log that a script continues": (EVENTS, lambda run: log.EventLog(run, print)),
    "the lock that a script takes": (LOCK, lambda run: directory.lock_again(str(run))),
    "commands, in a script": (COMMANDS, lambda run: control.Inbox(str(run), False)),
    "the claim of a script": (directory.CLAIM, _join),
    "the claim, in the supervisor": (directory.CLAIM, supervisor_commands.is_claimed),
    "commands, in the supervisor": (
        COMMANDS,
        lambda run: supervisor_commands.CommandReader(run, None, print).look(),  # type: ignore[arg-type]
    ),
    "the output, in the supervisor": (OUTPUT, lambda run: OutputLog(run / OUTPUT, lambda *_: None)),
    "the end of the output, in the supervisor": (OUTPUT, lambda run: ending.output_tail(run / OUTPUT)),
    "the record, for a notification": (RECORD, lambda run: child.display_name(str(run))),
    "the output, for a notification": (OUTPUT, lambda run: child.report(["failed"], str(run))),
    "the configuration": ("config.toml", lambda _: configuration.load().values),
    # logs of other tools
    "csv": ("metrics.csv", lambda root: csvlog.CsvFollower(root / "metrics.csv").read()),
    "JSON lines": ("log.jsonl", lambda root: jsonl.JsonLinesFollower(root / "log.jsonl").read()),
    "transformers": ("trainer_state.json", lambda root: huggingface.TrainerFollower(root).read()),
    "TensorBoard": ("events.out.tfevents.1.a", lambda root: tensorboard.TensorBoardFollower(root).read()),
    "wandb": ("run-a.wandb", lambda root: wandb.WandbFollower(root / "run-a.wandb").read()),
    "Trackio": ("a.db", lambda root: trackio.TrackioFollower(root / "a.db", "a").read()),
    "MLflow's database": ("mlflow.db", lambda root: mlflow.MlflowDatabaseFollower(root / "mlflow.db", "a").read()),
    "MLflow's folder": ("meta.yaml", lambda root: mlflow.MlflowFolderFollower(root).read()),
    "a search for logs": ("metrics.csv", scan.find_logs),
}
EXPECTED = (OSError, Invalid, memory.SettingsError, ValueError, sqlite3.Error)
"""What a reader raises about a file that it cannot read; its callers handle each."""


@pytest.mark.parametrize("damage", [fifo, folder], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits(
    name: str, damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file, read = READERS[name]
    monkeypatch.setenv("EPOCHTOP_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv(directory.RUN_TO_JOIN, "")
    (tmp_path / "checkpoints").mkdir()
    damage(tmp_path / file)
    with contextlib.suppress(*EXPECTED):
        read(tmp_path)
    assert (tmp_path / file).exists()
