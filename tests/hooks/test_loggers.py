"""What a program sends to real loggers and frameworks is recorded; a framework's results are the same bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hooked import bare, hooked

PROGRAMS = Path(__file__).parent / "programs"
ACCURACY = [(0, 0.0), (10, 0.25), (20, 0.5)]


@pytest.mark.parametrize(("package", "name"), [("tensorboard", "tensorboard"), ("tensorboardX", "tensorboardx")])
def test_scalars_of_a_summary_writer(package: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    series = hooked([PROGRAMS / "loggers.py", name, tmp_path]).series
    assert series["val/accuracy"] == ACCURACY
    assert series["loss/train"] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert series["loss/val"] == [(0, 0.5), (1, 1.5), (2, 2.5)]


def test_epochs_of_keras_and_its_steps_on_torch(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    command = [PROGRAMS / "frameworks.py", "keras", tmp_path]
    recorded = hooked(command)
    assert recorded.output == bare(command)
    assert len(recorded.series["train/loss"]) == 6
    assert [step for step, _ in recorded.series["val_loss"]] == [2, 5]
