"""Logs written by the real libraries, where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from epochtop.formats.scan import find_logs
from tests.formats.writers import Read, single

STEPS = 20

TENSORBOARD = """
from torch.utils.tensorboard import SummaryWriter
with SummaryWriter(folder) as writer:
    for step in range(20):
        writer.add_scalar("train/loss", 1 / (step + 1), step)
        writer.add_scalar("new", step, step, new_style=True)
        writer.add_scalar("double", 0.1 * step, step, new_style=True, double_precision=True)
    writer.add_text("note", "hello", 1)
    writer.add_hparams({"lr": 0.1}, {"train/loss": 0.5, "best": 0.75})
"""
TENSORBOARDX = """
from tensorboardX import SummaryWriter
with SummaryWriter(folder) as writer:
    for step in range(20):
        writer.add_scalar("train/loss", 1 / (step + 1), step)
"""
LIGHTNING = """
from lightning.pytorch.loggers import CSVLogger
logger = CSVLogger(folder, flush_logs_every_n_steps=1)
logger.log_hyperparams({"lr": 0.1, "model": {"sizes": [1, 2]}})
for step in range(20):
    logger.log_metrics({"train/loss": 1 / (step + 1)}, step)
    if step % 5 == 4:
        logger.log_metrics({"val_loss": float(step)}, step)
logger.save()
"""
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
logger = keras.callbacks.CSVLogger(folder + "/log.csv")
logger.set_model(keras.Sequential([keras.layers.Dense(1)]))
logger.on_train_begin()
for step in range(20):
    logger.on_epoch_end(step, {"train/loss": 1 / (step + 1)})
logger.on_train_end()
"""
WANDB = """
import wandb
with wandb.init(mode="offline", dir=folder, name="first", config={"lr": 0.1, "model": {"layers": 2}}) as run:
    for step in range(20):
        run.log({"train/loss": 1 / (step + 1), "nested": {"step": step}})
"""
MLFLOW = """
import os
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
mlflow.set_tracking_uri(WHERE)
with mlflow.start_run(run_name="first"):
    mlflow.log_params({"lr": 0.1})
    for step in range(20):
        mlflow.log_metric("train/loss", 1 / (step + 1), step=step)
"""
TRACKIO = """
import os
os.environ["TRACKIO_DIR"] = folder
from trackio.sqlite_storage import SQLiteStorage
rows = [{"train/loss": 1 / (step + 1), "nested": {"step": step}} for step in range(20)]
SQLiteStorage.bulk_log("project", "first", rows, config={"lr": 0.1})
"""
TRAINER = """
from transformers import TrainerState
entries = [{"loss": 1 / (step + 1), "epoch": step / 20, "step": step} for step in range(20)]
TrainerState(epoch=1.0, global_step=20, max_steps=20, log_history=entries).save_to_json(folder + "/trainer_state.json")
"""
LR = {"lr": 0.1}


@pytest.mark.parametrize(
    ("library", "script", "kind", "config", "others"),
    [
        pytest.param(
            "tensorboard", TENSORBOARD, "tensorboard", LR, {"new", "double", "best"}, id="torch with tensorboard"
        ),
        pytest.param("tensorboardX", TENSORBOARDX, "tensorboard", {}, set(), id="tensorboardX"),
        pytest.param("lightning", LIGHTNING, "csv", LR | {"model/sizes": [1, 2]}, {"val_loss"}, id="lightning"),
        pytest.param("keras", KERAS, "csv", {}, set(), id="keras"),
        pytest.param("wandb", WANDB, "wandb", LR | {"model/layers": 2}, {"nested/step"}, id="wandb"),
        pytest.param(
            "mlflow", MLFLOW.replace("WHERE", "folder + '/mlruns'"), "mlflow", LR, set(), id="mlflow's file store"
        ),
        pytest.param(
            "sqlalchemy",
            MLFLOW.replace("WHERE", "'sqlite:///' + folder + '/m.db'"),
            "mlflow",
            LR,
            set(),
            id="mlflow.db",
        ),
        pytest.param("trackio", TRACKIO, "trackio", LR, {"nested/step"}, id="trackio"),
        pytest.param("transformers", TRAINER, "transformers", {"max_steps": 20}, {"train/epoch"}, id="transformers"),
    ],
)
def test_a_log_of_the_real_library(
    library: str, script: str, kind: str, config: Mapping[str, Any], others: set[str], tmp_path: Path
) -> None:
    import importlib.util

    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    code = f"folder = {str(tmp_path)!r}\n{script}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    (log,) = find_logs(tmp_path).logs
    assert log.kind == kind
    result = Read(log.follow())
    assert result.config.items() >= config.items()
    assert set(result.series) - {"epoch"} == {"train/loss"} | others
    precision = single if kind == "tensorboard" else float
    assert result.series["train/loss"] == {step: precision(1 / (step + 1)) for step in range(STEPS)}
    if "double" in others:
        assert result.series["double"] == {step: 0.1 * step for step in range(STEPS)}
    assert result.follower.damaged == 0
