"""New rows from a CSV file through a run's model: prepared as in training, answered in the words of the data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochtop.engine.data.tables.csv import read_columns
from epochtop.engine.device.select import choose_device
from epochtop.engine.inference.csv_rows import RowFile, open_rows, write_rows
from epochtop.engine.inference.decode import answers
from epochtop.engine.inference.table_inputs import prepare
from epochtop.engine.inference.trained_model import Trained, load, numbers_of_a_row
from epochtop.engine.models.trace import tensors_of
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.tracebacks import explain_user_error

LABELS = ("label", "class", "target", "y")
"""Names by which a label column is known where the run does not name it."""
MOST_VALUES = 1 << 20
MOST_ROWS = 8192
"""Rows go through the model in pieces of at most so many rows and input values, so that activations stay small."""


def predict(run: Path, path: Path, output: Path | None, columns: Sequence[str] = ()) -> None:
    """Write the rows of the CSV file at `path` with a prediction behind each, to `output` or standard output.

    All its columns stay as they are. `columns` names those that the model takes, in order, where the run does not know
    their names: own tasks and images. Raises Invalid, before anything is written.
    """
    trained = load(run)
    file = open_rows(path)
    try:
        x = _inputs(trained, file, columns)
    except Invalid as error:
        raise Invalid("", error.message) from None
    added = answers(trained, _outputs(trained, x))
    taken = next((name for name in added.names if name in file.names), None)
    if taken is not None:
        raise Invalid("", f"{path} has a column {taken!r} already; rename it, so that no two columns have one name")
    write_rows(file, output, added.names, added.cells())
    if output is not None:
        weights = trained.weights
        sys.stdout.write(f"{output}: {len(x)} predictions with the {weights.kind} weights, of step {weights.step}\n")


# --- rows in -----------------------------------------------------------------------------------------------


def _inputs(trained: Trained, file: RowFile, columns: Sequence[str]) -> npt.NDArray[Any]:
    """All rows of the file as the model takes them. Raises Invalid."""
    preparation = trained.preparation
    if preparation is not None and preparation.kind == "text":
        raise Invalid("", f"{trained.run.name} was trained on a text; predict is for the rows of tables and images")
    if preparation is not None and preparation.kind == "table":
        if columns:
            names = ", ".join(map(repr, preparation.columns[:12])) + ", …" * (len(preparation.columns) > 12)
            raise Invalid("", f"{trained.run.name} knows its columns: {names}; leave --columns out")
        return prepare(preparation, preparation.columns, read_columns(file.path, preparation.columns))
    return _unnamed(trained, file, columns)


def _unnamed(trained: Trained, file: RowFile, columns: Sequence[str]) -> npt.NDArray[Any]:
    """Rows for a model that knows how many numbers it takes, not their names."""
    example = trained.example
    if not isinstance(example, Tensor):
        raise Invalid(
            "", f"a row of {trained.spec.task} is more than one tensor; the rows of a CSV file cannot be that"
        )
    wanted = numbers_of_a_row(example)
    picked = tuple(columns) or _numbers_in(file, trained, wanted)
    if len(picked) != wanted:
        shown = ", ".join(picked[:12]) + ", …" * (len(picked) > 12)
        whose = "--columns names" if columns else f"{file.path} has"
        how = "" if columns else "; name those it takes, in order: --columns a,b,…"
        raise Invalid(
            "", f"the model takes {wanted} numbers a row, {whose} {len(picked)} columns of numbers ({shown}){how}"
        )
    return _typed(read_columns(file.path, picked), picked, example)


def _numbers_in(file: RowFile, trained: Trained, wanted: int) -> tuple[str, ...]:
    """Its columns of numbers; one that is called as labels are is left out where there are too many."""
    labels = {*LABELS, trained.preparation.target if trained.preparation else ""}
    found = file.numeric()
    without = tuple(name for name in found if name.lower() not in labels)
    return without if len(without) == wanted else found


def _typed(values: npt.NDArray[np.float64], names: Sequence[str], example: Tensor) -> npt.NDArray[Any]:
    """float64 (rows, numbers) in the shape and type of the model's rows. Raises Invalid for what these cannot hold."""
    dtype = example.new_empty(0).cpu().numpy().dtype
    with np.errstate(all="ignore"):
        made = values.astype(dtype)
        fits = np.isfinite(made) if dtype.kind == "f" else made == values
    if not fits.all():
        row, place = (int(number) for number in np.argwhere(~fits)[0])
        what = "pixels are whole numbers from 0 to 255" if dtype == np.uint8 else f"the model takes {dtype}"
        raise Invalid("", f"data row {row + 1}, column {names[place]!r}: {values[row, place]:g} does not do: {what}")
    return made.reshape(-1, *example.shape[1:])


# --- answers out -------------------------------------------------------------------------------------------


def _outputs(trained: Trained, x: npt.NDArray[Any]) -> Tensor:
    """The model's output for all rows, float (rows, outputs), on the host. Raises Invalid."""
    device = _device(trained.spec.device)
    size = max(1, min(MOST_ROWS, MOST_VALUES // max(1, x[:1].size)))
    try:
        model = trained.model.to(device)
        with torch.no_grad():
            pieces = (torch.from_numpy(np.ascontiguousarray(x[at : at + size])) for at in range(0, len(x), size))
            made = [_flat(model(piece.to(device)), len(piece)).cpu() for piece in pieces]
            if not made:  # no row: the columns are those of the example's answer
                return _flat(model(_on(trained.example, device)), 2).cpu()[:0]
    except Invalid:
        raise
    except Exception as error:
        if not trained.spec.task:
            raise
        raise Invalid("", explain_user_error(error, Path(trained.spec.task.rpartition(":")[0]))) from error
    return torch.cat(made)


def _flat(output: Any, rows: int) -> Tensor:
    """One row of numbers for each row."""
    first = next(tensors_of(output), None)
    if first is None or first.ndim not in (1, 2) or len(first) != rows:
        shape = None if first is None else tuple(first.shape)
        raise Invalid("", f"the model's output has the shape {shape}; predict needs (rows,) or (rows, outputs)")
    return first.reshape(rows, -1)


def _on(example: Any, device: torch.device) -> Any:
    return example.to(device) if isinstance(example, Tensor) else example


def _device(name: str) -> torch.device:
    """Where the run was trained, if this machine has it; else the host."""
    try:
        return choose_device(name)
    except Invalid:
        return torch.device("cpu")
