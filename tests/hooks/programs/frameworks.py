"""Training with every framework that its arguments name; prints every loss, exactly. Its first argument is a folder."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROWS = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(32) % 3


def lightning(folder: str) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True)
            print("loss", loss.item().hex())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger(folder),
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Module(), DataLoader(TensorDataset(ROWS, LABELS), batch_size=8))


def transformers(folder: str) -> None:
    from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, rows: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            loss = nn.functional.cross_entropy(self.net(rows), labels)
            print("loss", loss.item().hex())
            return {"loss": loss}

    set_seed(1)
    arguments = TrainingArguments(
        folder,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        logging_steps=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"rows": row, "labels": label} for row, label in zip(ROWS, LABELS, strict=True)]
    trainer = Trainer(Net(), arguments, train_dataset=data)
    trainer.remove_callback(PrinterCallback)  # prints durations
    trainer.train()


def keras(_folder: str) -> None:
    import keras

    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    net.compile(optimizer=keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    class Show(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            print("epoch", epoch, {name: float(value).hex() for name, value in (logs or {}).items()})

    net.fit(ROWS.numpy(), LABELS.numpy(), batch_size=8, epochs=2, verbose=0, callbacks=[Show()], validation_split=0.25)
    print(*[float(each).hex() for each in net.get_weights()[0].ravel()])


def main() -> None:
    """Train with all of them. With hooks, each has a run of its own, named after it."""
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    for name in names:
        run = None
        if "EPOCHTOP_RUN" in os.environ:
            import epochtop

            run = epochtop.Run(name)
        torch.manual_seed(1)
        print(name)
        globals()[name](folder)
        gc.collect()  # an optimizer is gone before the next one steps
        if run is not None:
            run.finish()


if __name__ == "__main__":
    main()
