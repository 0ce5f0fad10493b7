"""A killed run of any kind of data continues with the losses of an uninterrupted one: its files are read alike again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import read_record
from epochtop.engine.training import checkpoint
from epochtop.engine.training.resume import recorded_run
from tests.support.engines import Engine, Watch, losses, wait_until
from tests.support.trained_runs import write_table

MORE = 30
"""Steps after the checkpoint that are compared; they cross an epoch."""


def table(folder: Path) -> dict[str, Any]:
    """A category with an embedding, one without, numbers and dates, all of them with gaps."""
    draw = np.random.default_rng(1)
    rows = [
        [f"code {row % 70}", "abc"[row % 3], draw.random(), f"2024-0{row % 9 + 1}-11", row % 2] for row in range(210)
    ]
    for place in range(4):
        for row in draw.integers(0, len(rows), 9).tolist():
            rows[row][place] = ""
    file = write_table(folder / "t.csv", ("code", "letter", "size", "day", "kind"), rows)
    return {"dataset": f"csv:{file}", "target": "kind", "dropout": 0.2, "hidden": (8,)}


def series(folder: Path) -> dict[str, Any]:
    """Series for a network that keeps a state."""
    np.savez(folder / "s.npz", x=np.random.default_rng(2).random((40, 8, 2)), y=np.arange(40) % 2)
    return {"dataset": f"npz:{folder / 's.npz'}", "model": "lstm", "layers": 2, "dropout": 0.3}


def texts(folder: Path) -> dict[str, Any]:
    """Hashed words and pairs of words."""
    films = [[f"film {number % 7} is {mood}", mood] for number in range(20) for mood in ("good", "bad")]
    return {"dataset": f"text:{write_table(folder / 'f.csv', ('text', 'label'), films)}", "hidden": ()}


def images(folder: Path) -> dict[str, Any]:
    """More images than one process decodes, in two sizes."""
    draw = np.random.default_rng(3)
    for number in range(80):
        path = folder / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8 + number % 3 // 2), dtype=np.uint8)).save(path)
    return {"dataset": f"images:{folder / 'pets'}", "model": "cnn"}


@pytest.mark.parametrize("kind", [table, series, texts, images])
def test_a_killed_run_of_any_data_continues_with_the_same_losses(kind: Any, home: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = RunSpec(
        device="cpu", threads=1, executor="eager", optimizer="adam", batch_size=16, width=4, save_every=0.05, refresh_ms=10,
        epochs=1_000_000, **kind(tmp_path),
    )  # fmt: skip
    with Engine() as engine:
        run = engine.train(spec, home)
        wait_until(lambda: checkpoint.exists(run, "last"))
        Watch(run).until_step(20)
        engine.kill()
    assert read_record(run).spec == spec
    recorded = recorded_run(run)
    straight, continued = prepare_job(spec), prepare_job(recorded.spec)
    expected = [straight.step().item() for _ in range(recorded.step + MORE)]
    assert recorded.restore(continued).step == recorded.step > 0
    assert [continued.step().item() for _ in range(MORE)] == expected[recorded.step :]
    logged = losses(run)[: len(expected)]
    np.testing.assert_array_equal(logged, np.float32(expected[: len(logged)]))
