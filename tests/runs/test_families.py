"""Families of series, by the names that training frameworks give them."""

from __future__ import annotations

import pytest

from epochtop.engine.runs.families import counts, families, labels, main_family, main_series, members, place_of

NAMES = {
    # Lightning
    "train_loss": ("loss", "train", ""),
    "val_loss": ("loss", "validation", ""),
    "test_loss": ("loss", "test", ""),
    "train_loss_step": ("loss", "train", "step"),
    "train_loss_epoch": ("loss", "train", "epoch"),
    "val_acc/dataloader_idx_0": ("acc/dataloader_idx_0", "validation", ""),
    # Keras
    "loss": ("loss", None, ""),
    "val_sparse_categorical_accuracy": ("sparse_categorical_accuracy", "validation", ""),
    # Hugging Face
    "eval_loss": ("loss", "validation", ""),
    "eval/mnli/accuracy": ("mnli/accuracy", "validation", ""),
    # TensorBoard
    "train/loss": ("loss", "train", ""),
    "eval/loss": ("loss", "validation", ""),
    "loss/test": ("loss", "test", ""),
    "Loss/train": ("Loss", "train", ""),
    # epochtop
    "validation/accuracy": ("accuracy", "validation", ""),
    "optimizer/learning_rate": ("optimizer/learning_rate", None, ""),
    "system/gpu0/percent": ("system/gpu0/percent", None, ""),
    "time/step_ms": ("time/step_ms", None, ""),
    # words that only begin like a role or end like a suffix
    "trainable_parameters": ("trainable_parameters", None, ""),
    "latest": ("latest", None, ""),
    "value": ("value", None, ""),
    "global_step": ("global_step", None, ""),
    "tokens_per_step": ("tokens_per_step", None, ""),
    "val": ("val", None, ""),
    "epoch": ("epoch", None, ""),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_series_is_placed_by_its_name(name: str) -> None:
    assert place_of(name) == NAMES[name]


def test_series_that_count_are_known_by_their_words() -> None:
    names = ["tokens", "train/num_input_tokens_seen", "total_flos", "time/total_timesteps", "Samples"]
    assert all(map(counts, names))
    assert not any(map(counts, ["tokens_per_second", "imagesize", "unseen", "loss/samples", "lr", "frames_rate"]))


@pytest.mark.parametrize(
    ("names", "family", "ordered", "short"),
    [
        (["val_loss", "train_loss"], "loss", ["train_loss", "val_loss"], ["train", "validation"]),
        (["val_loss", "loss"], "loss", ["loss", "val_loss"], ["train", "validation"]),
        (["loss"], "loss", ["loss"], ["loss"]),
        (["test/loss", "train/loss"], "loss", ["train/loss", "test/loss"], ["train", "test"]),
        (
            ["train_loss_epoch", "val_loss", "train_loss_step"],
            "loss",
            ["train_loss_step", "train_loss_epoch", "val_loss"],
            ["train", "train epoch", "validation"],
        ),
        (["loss", "train_loss"], "loss", ["loss", "train_loss"], ["loss", "train_loss"]),
        (["optimizer/learning_rate"], "optimizer/learning_rate", ["optimizer/learning_rate"], ["learning_rate"]),
    ],
)
def test_a_family_has_its_training_series_first(
    names: list[str], family: str, ordered: list[str], short: list[str]
) -> None:
    assert members(names, family) == ordered
    assert list(labels(names, family).items()) == list(zip(ordered, short, strict=True))


def test_the_loss_is_the_main_family_whenever_it_is_logged() -> None:
    names = ["lr", "epoch", "system/gpu0/percent", "val_accuracy", "grad_norm", "eval_loss"]
    assert families(names) == ["loss", "lr", "accuracy", "grad_norm", "system/gpu0/percent", "epoch"]
    assert main_series([*names, "loss"]) == "loss"
    assert main_family(["policy_loss", "reward"]) == "policy_loss"
    assert main_family(["time/step_ms", "reward"]) == "reward"
    assert main_series([]) == main_family([]) == ""
