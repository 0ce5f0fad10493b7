"""Presets: default settings for each kind of dataset and model, used by the form and the command line.

A preset fills only fields that the user has not set. :class:`~epochtop.engine.protocol.spec.RunSpec` itself defaults to
the Iris job. Imports the spec only.
"""

from __future__ import annotations

from epochtop.engine.protocol.datasets import CACHED, FILES, GENERATED, IMAGES, is_labeled_text
from epochtop.engine.protocol.spec import Value

Preset = dict[str, Value]
"""Values by field name; the other fields keep their defaults."""

CHOOSERS = ("dataset", "model", "task")
"""Fields that choose the preset."""

ADAM: Preset = {"optimizer": "adam", "learning_rate": 0.001, "batch_size": 64}
TABLE: Preset = {**ADAM, "hidden": (100,), "epochs": 50, "scaling": "standard"}
"""As accurate as scikit-learn's MLPClassifier on tables with categories and gaps; with minmax and (64, 32), up to nine points lower."""
SUMS: Preset = {**ADAM, "hidden": (64, 32), "epochs": 3}
GENERATED_TABLE: Preset = {"hidden": (32, 32), "optimizer": "adam", "epochs": 2000}
IMAGE_MLP: Preset = {**ADAM, "hidden": (128,), "epochs": 5}
CNN: Preset = {**ADAM, "epochs": 10}
DIGITS_CNN: Preset = {**CNN, "learning_rate": 0.005, "schedule": "one_cycle", "dropout": 0.3, "epochs": 40}
PUBLISHED_CNN: Preset = {"optimizer": "sgd", "batch_size": 64, "epochs": 10}
"""Settings of the published CIFAR-10 write-up: SGD 0.01, batches of 64, 10 epochs."""
RESNET: Preset = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0005,
    "batch_size": 128,
    "schedule": "cosine",
    "epochs": 20,
}
TEXT: Preset = {
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
LABELED_TEXT: Preset = {**ADAM, "learning_rate": 0.005, "hidden": (), "width": 16, "context": 256, "epochs": 5}
LABELED_TEXT_TRANSFORMER: Preset = {**TEXT, "context": 128, "epochs": 5}
OVER_TIME: Preset = {**ADAM, "width": 64, "clip_norm": 1.0, "epochs": 30}
"""Settings of networks for series."""
CUSTOM_TASK: Preset = {**ADAM, "epochs": 20}


def preset(dataset: str, model: str, task: str) -> Preset:
    """The preset for a dataset, a model and a task, as text of those fields; empty for the Iris job and its like."""
    source, colon, _ = dataset.partition(":")
    if task:
        return CUSTOM_TASK
    if is_labeled_text(dataset):
        return LABELED_TEXT_TRANSFORMER if model == "transformer" else LABELED_TEXT
    if source == "text":
        return TEXT
    if model in ("lstm", "transformer"):
        return OVER_TIME
    if model == "cnn":
        return {"cifar10": PUBLISHED_CNN, "digits": DIGITS_CNN}.get(dataset, CNN)
    if model == "resnet":
        return RESNET
    if dataset in IMAGES or source == "images":
        return IMAGE_MLP
    if dataset in GENERATED:
        return GENERATED_TABLE
    if dataset == "sums":
        return SUMS
    is_table = dataset in ("diabetes", *CACHED) or (colon and (source in FILES or source == "openml"))
    return TABLE if is_table else {}
