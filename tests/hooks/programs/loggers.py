"""A program that logs with whatever its arguments name; without torch unless a logger needs it."""

from __future__ import annotations

import os
import sys


def tensorboard(folder: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        for step in range(3):
            writer.add_scalar("val/accuracy", step / 4, step * 10)
            writer.add_scalars("loss", {"train": step, "val": step + 0.5}, global_step=step)
            writer.add_text("note", "text", step)
        writer.add_hparams({"lr": 0.1}, {"val/accuracy": 0.5})


def tensorboardx(folder: str) -> None:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(folder)
    for step in range(3):
        writer.add_scalar("val/accuracy", step / 4, step * 10)
        writer.add_scalars("loss", {"train": step, "val": step + 0.5}, global_step=step)
    writer.close()


def wandb(folder: str) -> None:
    import wandb

    run = wandb.init(mode="offline", dir=folder, project="p", config={"lr": 0.1}, settings=wandb.Settings(silent=True))
    for step in range(3):
        wandb.log({"val/accuracy": step / 4, "name": "text"})
        run.log({"loss": float(step)}, step=10 + step)
    wandb.config.update({"seed": 3})
    wandb.finish()


def mlflow(folder: str) -> None:
    import mlflow

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # the skinny package has no database
    mlflow.set_tracking_uri(f"{folder}/mlruns")
    with mlflow.start_run():
        mlflow.log_params({"lr": 0.1})
        mlflow.log_param("seed", 3)
        for step in range(3):
            mlflow.log_metric("val/accuracy", step / 4, step=step * 10)
            mlflow.log_metrics({"loss": step, "rate": 0.5}, step=step)


def trackio(folder: str) -> None:
    os.environ["TRACKIO_DIR"] = folder
    import trackio

    trackio.init(project="p", config={"lr": 0.1}, auto_log_cpu=False)
    for step in range(3):
        trackio.log({"val/accuracy": step / 4})
        trackio.log({"loss": step}, step=step + 10)
    trackio.finish()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
