"""Predictions for the rows of a file or the images of a folder: prepared as in training, decoded to class names or raw units.

Must never write into the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochtop.engine.data.columns.new_rows import NewRows, new_rows, types_for
from epochtop.engine.data.dataset import Preparation
from epochtop.engine.data.tables.csv_files.read import read_csv, read_numbers
from epochtop.engine.data.text.tables import texts_in
from epochtop.engine.data.text.words import codes_for
from epochtop.engine.device.select import choose_device
from epochtop.engine.inference.array_rows import NumberedRows, array_inputs, is_array_file, series_rows
from epochtop.engine.inference.csv_rows import RowFile, RowSource, open_rows, write_rows
from epochtop.engine.inference.decode import decode
from epochtop.engine.inference.image_rows import holds_images, image_inputs
from epochtop.engine.inference.table_rows import TableRows, is_other_table, open_table
from epochtop.engine.inference.trained_model import TrainedModel, load, numbers_per_row, report_changes
from epochtop.engine.models.nested import mapped, rows_first, tensors_of
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.errors.tracebacks import explain_user_error
from epochtop.engine.terminal.output import write, write_error

LABELS = ("label", "class", "target", "y")
"""Names of label columns in files for runs that do not name theirs."""
MAX_VALUES = 1 << 20
REASON = "reason"
"""Column that says why a row has no prediction; only there if some row has none."""
MAX_ROWS = 8192
"""Input values and rows of one batch at most, so that activations stay small."""


def predict(
    run: Path,
    path: Path,
    output: Path | None,
    columns: Sequence[str] = (),
    trusted_owner: str = "",
    excel_safe: bool = False,
) -> None:
    """Write the rows of the file at `path` with appended predictions to `output` or standard output.

    All columns of a table stay unchanged; rows of an `.npz` or `.npy` file get their number, images their path.
    `columns` names the columns that the model takes, in order, for runs that have no column names: custom tasks, images
    and series. `trusted_owner` is another owner of the run whose task may be executed. `excel_safe` escapes cells that
    a spreadsheet would execute as formulas. Raises Invalid, before anything is written.
    """
    trained = load(run, trusted_owner)
    report_changes(trained)
    try:
        file, rows = _opened(trained, path, columns)
    except Invalid as error:
        raise Invalid("", error.message) from None
    outputs = _outputs(trained, rows.x)
    problems = _problems(rows, outputs)
    predictions = decode(trained, outputs.nan_to_num())
    names, cells = predictions.names, predictions.cells()
    if problems:
        names, cells = (*names, REASON), _with_reasons(cells, problems)
    duplicate = next((name for name in names if name in file.names), None)
    if duplicate is not None:
        raise Invalid("", f"{path} has a column {duplicate!r} already; rename it")
    write_rows(file, output, names, cells, excel_safe)
    if problems:
        row = min(problems)
        write_error(
            f"epochtop: {len(problems):,} of {len(rows.x):,} rows have no prediction, see the column {REASON!r}; the first is "
            f"{rows.where(row)}: {problems[row]}\n"
        )
    if output is not None:
        weights = trained.weights
        count = len(rows.x) - len(problems)
        write(f"{output}: {count} predictions with the {weights.kind} weights, of step {weights.step}\n")


def _problems(rows: NewRows, outputs: Tensor) -> dict[int, str]:
    """Why rows have no prediction, by number from 0."""
    infinite = (~outputs.isfinite().all(1)).nonzero()[:, 0].tolist()
    reason = "the prediction is not finite; check for values that are far too large"
    return dict.fromkeys(infinite, reason) | dict(rows.problems)


def _with_reasons(cells: Iterable[list[str]], problems: Mapping[int, str]) -> Iterator[list[str]]:
    """The cells of every row and its reason; rows with a reason have no prediction."""
    for row, texts in enumerate(cells):
        yield [*[""] * len(texts), problems[row]] if row in problems else [*texts, ""]


# --- inputs -----------------------------------------------------------------------------------------------


def _opened(trained: TrainedModel, path: Path, columns: Sequence[str]) -> tuple[RowSource, NewRows]:
    """The rows of the file, and the same rows as model input. Raises Invalid."""
    preparation = trained.preparation
    if preparation is not None and is_array_file(path):
        rows = array_inputs(preparation, path)
        return NumberedRows(path, len(rows.x)), rows
    if preparation is not None and holds_images(preparation, path):
        return image_inputs(trained.spec, preparation, path)
    if preparation is not None and is_other_table(path):
        _check_unnamed(trained, columns)
        table = open_table(trained.spec, preparation, path)
        return table, _table_inputs(preparation, table)
    is_document = preparation is not None and preparation.kind == "document"
    needed = preparation.columns if preparation is not None and preparation.kind == "table" else ()
    file = open_rows(path, "yes" if is_document else trained.spec.header, trained.spec.encoding, needed)
    return file, _inputs(trained, file, columns)


def _table_inputs(preparation: Preparation, rows: TableRows) -> NewRows:
    if preparation.kind == "table":
        return new_rows(preparation, rows.table)
    texts = texts_in(rows.table.column(preparation.columns[0]))
    return NewRows(codes_for(texts, preparation.length, preparation.ngrams), table=rows.table)


def _check_unnamed(trained: TrainedModel, columns: Sequence[str]) -> None:
    """Raise Invalid if columns are chosen for a run that knows their names."""
    if columns and trained.preparation is not None:
        stored = trained.preparation.columns
        names = ", ".join(map(repr, stored[:12])) + ", …" * (len(stored) > 12)
        raise Invalid("", f"{trained.run.name} has column names: {names}; leave --columns out")


def _inputs(trained: TrainedModel, file: RowFile, columns: Sequence[str]) -> NewRows:
    """All rows of the file as model input. Raises Invalid."""
    preparation = trained.preparation
    if preparation is not None and preparation.kind == "text":
        raise Invalid("", f"{trained.run.name} was trained on a text without labels; it has no rows to predict")
    if preparation is not None and preparation.kind == "table":
        _check_unnamed(trained, columns)
        file.check_names(preparation.columns)
        return new_rows(preparation, read_csv(file.path, types_for(preparation), file.options))
    if preparation is not None and preparation.kind == "document":
        return NewRows(_documents(preparation, file))
    names, values = _unnamed(trained, file, columns)
    if preparation is not None and preparation.kind == "series":
        return series_rows(preparation, values.reshape(-1, *(preparation.series or ())))
    return NewRows(_typed(values, names, trained.example))


def _documents(preparation: Preparation, file: RowFile) -> npt.NDArray[Any]:
    """Codes of the words in the column of texts. Raises Invalid."""
    name = preparation.columns[0]
    file.check_names([name])
    if name not in file.names:
        raise Invalid(
            "", f"{file.path} has no column {name!r}, the texts; its columns are {', '.join(file.names[:12])}"
        )
    place = file.names.index(name)
    texts = [cells[place] if place < len(cells) else "" for cells in file.rows()]
    return codes_for(texts, preparation.length, preparation.ngrams)


def _unnamed(
    trained: TrainedModel, file: RowFile, columns: Sequence[str]
) -> tuple[Sequence[str], npt.NDArray[np.float64]]:
    """Columns for a model without column names, and their values, (rows, numbers)."""
    example = trained.example
    if not isinstance(example, Tensor):
        raise Invalid(
            "", f"a row of {trained.spec.task} is more than one tensor; predict cannot read it from a CSV file"
        )
    count = numbers_per_row(example)
    names = tuple(columns) or _numeric_columns(file, trained, count)
    if len(names) != count:
        listed = ", ".join(names[:12]) + ", …" * (len(names) > 12)
        source = "--columns names" if columns else f"{file.path} has"
        hint = "" if columns else "; name the columns in order: --columns a,b,…"
        raise Invalid(
            "", f"the model takes {count} numbers per row, {source} {len(names)} numeric columns ({listed}){hint}"
        )
    file.check_names(names)
    return names, read_numbers(file.path, names, file.options)


def _numeric_columns(file: RowFile, trained: TrainedModel, count: int) -> tuple[str, ...]:
    """The numeric columns of the file, without label columns if that gives `count` columns."""
    labels = {*LABELS, trained.preparation.target if trained.preparation else ""}
    numeric = file.numeric()
    features = tuple(name for name in numeric if name.lower() not in labels)
    return features if len(features) == count else numeric


def _typed(values: npt.NDArray[np.float64], names: Sequence[str], example: Tensor) -> npt.NDArray[Any]:
    """float64 (rows, numbers) in the shape and type of model input. Raises Invalid for values the type cannot hold."""
    dtype = example.new_empty(0).cpu().numpy().dtype
    with np.errstate(all="ignore"):
        converted = values.astype(dtype)
        fits = np.isfinite(converted) if dtype.kind == "f" else converted == values
    if not fits.all():
        row, place = (int(number) for number in np.argwhere(~fits)[0])
        pixel = dtype == np.uint8
        problem = "not a pixel value: pixels are integers from 0 to 255" if pixel else f"outside the range of {dtype}"
        raise Invalid("", f"data row {row + 1}, column {names[place]!r}: {values[row, place]:g} is {problem}")
    return converted.reshape(-1, *example.shape[1:])


# --- outputs -------------------------------------------------------------------------------------------


def _outputs(trained: TrainedModel, x: npt.NDArray[Any]) -> Tensor:
    """The model's output for all rows, float (rows, outputs), on the host. Raises Invalid."""
    device = _device(trained.spec.device)
    size = max(1, min(MAX_ROWS, MAX_VALUES // max(1, x[:1].size)))
    try:
        model = trained.model.to(device)
        with torch.set_grad_enabled(trained.task is not None):  # a task may compute gradients by the input
            batches = (torch.from_numpy(np.ascontiguousarray(x[at : at + size])) for at in range(0, len(x), size))
            outputs = [_flat(model(batch.to(device)), len(batch)).detach().cpu() for batch in batches]
            if not outputs:  # the output of the example shows the number of columns
                return _flat(model(_on(trained.example, device)), 2).detach().cpu()[:0]
    except Invalid:
        raise
    except Exception as error:
        if not trained.spec.task:
            raise
        raise Invalid("", explain_user_error(error, Path(trained.spec.task.rpartition(":")[0]))) from error
    return torch.cat(outputs)


def _flat(output: Any, rows: int) -> Tensor:
    """The output as (rows, outputs). Raises Invalid for other shapes."""
    first = rows_first(output, rows)
    if first is None or first.ndim not in (1, 2):
        shape = next((tuple(tensor.shape) for tensor in tensors_of(output)), None)
        raise Invalid("", f"the model's output has the shape {shape}; predict needs (rows,) or (rows, outputs)")
    return first.reshape(rows, -1)


def _on(example: Any, device: torch.device) -> Any:
    return mapped(example, lambda tensor: tensor.to(device))


def _device(name: str) -> torch.device:
    """The device of the run if this machine has it, else the CPU."""
    try:
        return choose_device(name)
    except Invalid:
        return torch.device("cpu")
