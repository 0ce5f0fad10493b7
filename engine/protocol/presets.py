"""Settings that suit a dataset and a model, for whoever does not set them: the form fills them in, the flags too.

:class:`epochtop.engine.protocol.spec.RunSpec` itself defaults to the Iris job. Imports the declaration only.
"""

from __future__ import annotations

from epochtop.engine.protocol.spec import FILES, GENERATED, IMAGES, Value

Recipe = dict[str, Value]

CHOOSERS = ("dataset", "model", "task")
"""Fields that a recipe depends on."""

ADAM: Recipe = {"optimizer": "adam", "learning_rate": 0.001, "batch_size": 64}
TABLE: Recipe = {**ADAM, "hidden": (64, 32), "epochs": 50}
SUMS: Recipe = {**ADAM, "hidden": (64, 32), "epochs": 3}
EXPLORING: Recipe = {"hidden": (32, 32), "optimizer": "adam", "epochs": 2000}
IMAGE_MLP: Recipe = {**ADAM, "hidden": (128,), "epochs": 5}
CNN: Recipe = {**ADAM, "epochs": 10}
DIGITS_CNN: Recipe = {**CNN, "learning_rate": 0.005, "schedule": "one_cycle", "dropout": 0.3, "epochs": 40}
PUBLISHED_CNN: Recipe = {"optimizer": "sgd", "batch_size": 64, "epochs": 10}
"""Of the write-up on CIFAR-10: SGD 0.01, batches of 64, 10 epochs."""
RESNET: Recipe = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0005,
    "batch_size": 128,
    "schedule": "cosine",
    "epochs": 20,
}
TEXT: Recipe = {
    "model": "transformer",
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "batch_size": 64,
    "width": 64,
    "schedule": "cosine",
    "warmup": 100,
    "clip_norm": 1.0,
    "epochs": 10,
}
OWN: Recipe = {**ADAM, "epochs": 20}


def recipe(dataset: str, model: str, task: str) -> Recipe:
    """Values for the fields that nobody has set; the other fields keep their defaults."""
    source, colon, _ = dataset.partition(":")
    if task:
        return OWN
    if source == "text":
        return TEXT
    if model == "cnn":
        return {"cifar10": PUBLISHED_CNN, "digits": DIGITS_CNN}.get(dataset, CNN)
    if model == "resnet":
        return RESNET
    if dataset in IMAGES or source == "images":
        return IMAGE_MLP
    if dataset in GENERATED:
        return EXPLORING
    if dataset == "sums":
        return SUMS
    return TABLE if colon and (source in FILES or source == "openml") else {}
