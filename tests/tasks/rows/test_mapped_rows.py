"""Rows in memory-mapped files train as the same rows in memory do, but are neither copied nor counted as memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.data.dataset import Rows
from epochtop.engine.hardware.memory_maps import MAPS
from epochtop.engine.job.prepare import prepare_job
from tests.support.engines import losses, train_here
from tests.tasks.task_files import task_file, task_spec

ROWS = 65
BODY = """
import numpy as np
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        assert x.dtype in (torch.float32, torch.int64, torch.uint8), x.dtype
        return self.fc(x.float() / SCALE)

def make_task():
    return Task(model=Net(), train=(OPEN("x"), OPEN("y")), test=(OPEN("x")[:20], OPEN("y")[:20]))
"""
OPEN = {
    "memory": "np.load(f'{FOLDER}/{name}.npy')",
    "map": "np.load(f'{FOLDER}/{name}.npy', mmap_mode='r')",
    "strides": "np.load(f'{FOLDER}/twice_{name}.npy', mmap_mode='r')[::2]",
    "tensor": "torch.from_numpy(np.load(f'{FOLDER}/{name}.npy', mmap_mode='c'))",
}


def saved(folder: Path, dtype: str) -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 200, (ROWS, 4)).astype(dtype)
    y = generator.integers(0, 3, ROWS).astype(np.uint16)
    for name, array in (("x", x), ("y", y)):
        np.save(folder / f"{name}.npy", array)
        np.save(folder / f"twice_{name}.npy", np.repeat(array, 2, axis=0))


def written(folder: Path, how: str) -> str:
    opened = f"SCALE, FOLDER = 100, {str(folder)!r}\ndef OPEN(name): return {OPEN[how]}\n"
    (folder / how).mkdir()
    return task_file(folder / how, opened + BODY)


@pytest.mark.skipif(not MAPS.exists(), reason="needs the list of mappings of Linux")
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "uint8"])
@pytest.mark.parametrize("settings", [{"batch_size": 16}, {"batch_size": 0}, {"batch_size": 16, "placement": "stream"}])
def test_mapped_rows_train_as_rows_in_memory(
    dtype: str, settings: dict[str, object], home: Path, tmp_path: Path
) -> None:
    saved(tmp_path, dtype)
    runs = {}
    for how in OPEN if settings == {"batch_size": 16} else ("memory", "map"):
        spec = task_spec(written(tmp_path, how), **{"eval_every": 0, **settings})
        runs[how] = losses(train_here(spec, home)).tolist()
        job = prepare_job(spec)
        held = [
            array
            for part in (job.workload.train, job.workload.test)
            if isinstance(part, Rows)
            for array in (part.x, part.y)
        ]
        assert [array.dtype for array in held] == 2 * [held[0].dtype, np.dtype(np.uint16)]
        assert (job.workload.memory_bytes == 0) == (how != "memory")
        if how != "memory" and settings == {"batch_size": 16}:
            assert job.batches.x.data_ptr() == held[0].ctypes.data  # type: ignore[attr-defined]
            assert held[0].dtype == dtype
    assert len(set(map(tuple, runs.values()))) == 1
    assert torch.tensor(runs["memory"]).isfinite().all()


def test_the_plan_counts_no_mapped_rows(tmp_path: Path) -> None:
    saved(tmp_path, "float32")
    plans = {how: prepare_job(task_spec(written(tmp_path, how))).plan for how in ("memory", "map")}
    rows = (ROWS + 20) * (4 * 4 + 2)
    assert plans["memory"].memory_bytes - plans["map"].memory_bytes == rows
