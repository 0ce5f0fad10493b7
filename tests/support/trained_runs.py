"""Runs that have learned something, tables to ask them about, and their weights by a way of their own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file
from sklearn.datasets import load_iris
from torch import Tensor

from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import CHECKPOINTS, PREPARATION, TASK
from tests.support.engines import train_here

FLOWERS = ("sepal length", "sepal width", "petal length", "petal width")


def trained(home: Path, **fields: Any) -> Path:
    """A finished run on the CPU, as an engine leaves it."""
    defaults = {"device": "cpu", "threads": 1, "optimizer": "adam", "learning_rate": 0.02, "epochs": 60}
    spec = RunSpec(**{**defaults, **fields})
    run = train_here(spec, home)
    workload = load_workload(spec)
    if workload.preparation is not None:
        (run / PREPARATION).write_bytes(encode(workload.preparation))
    if workload.task_record is not None:
        (run / TASK).write_bytes(encode(workload.task_record))
    return run


def weights(run: Path, kind: str = "best", part: str = "model.") -> dict[str, Tensor]:
    """The weights of a checkpoint, by names in the model."""
    (file,) = (run / CHECKPOINTS).glob(f"{kind}-*.safetensors")
    return {name.removeprefix(part): tensor for name, tensor in load_file(file).items() if name.startswith(part)}


def write_table(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> Path:
    """A CSV file with a header."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    return path


def flowers(path: Path) -> Path:
    """Iris with the names of its species."""
    bunch = load_iris()
    rows = [[*map(float, x), str(bunch.target_names[y])] for x, y in zip(bunch.data, bunch.target, strict=True)]
    return write_table(path, (*FLOWERS, "species"), rows)


def houses(path: Path, rows: int = 200) -> Path:
    """Prices in thousands, a plain function of two columns."""
    draw = np.random.default_rng(3)
    area, age = draw.uniform(30, 200, rows), draw.uniform(0, 80, rows)
    price = 100 + 3 * area - 1.5 * age
    return write_table(path, ("area", "age", "price"), np.stack((area, age, price), axis=1).tolist())


def read_table(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows by the names of their columns."""
    return list(csv.DictReader(text.splitlines(), delimiter=delimiter))


def floats(rows: list[dict[str, str]], *names: str) -> npt.NDArray[np.float64]:
    """The columns of these names as numbers, (rows, names)."""
    return np.array([[float(row[name]) for name in names] for row in rows])
