"""A program that logs with whatever its arguments name; without torch unless a logger needs it."""

from __future__ import annotations

import sys


def tensorboard(folder: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        for step in range(3):
            writer.add_scalar("val/accuracy", step / 4, step * 10)
            writer.add_scalars("loss", {"train": step, "val": step + 0.5}, global_step=step)
            writer.add_text("note", "text", step)


def tensorboardx(folder: str) -> None:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(folder)
    for step in range(3):
        writer.add_scalar("val/accuracy", step / 4, step * 10)
        writer.add_scalars("loss", {"train": step, "val": step + 0.5}, global_step=step)
    writer.close()


def wandb(folder: str) -> None:
    import wandb

    run = wandb.init(mode="offline", dir=folder, project="p", settings=wandb.Settings(silent=True))
    for step in range(3):
        wandb.log({"val/accuracy": step / 4, "name": "text"})
        run.log({"loss": float(step)}, step=10 + step)
    wandb.finish()


def mlflow(folder: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    with mlflow.start_run():
        for step in range(3):
            mlflow.log_metric("val/accuracy", step / 4, step=step * 10)
            mlflow.log_metrics({"loss": step, "rate": 0.5}, step=step)


def trackio(folder: str) -> None:
    import trackio

    trackio.init(project="p", space_id=None)
    for step in range(3):
        trackio.log({"val/accuracy": step / 4})
        trackio.log({"loss": step}, step=step + 10)
    trackio.finish()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
