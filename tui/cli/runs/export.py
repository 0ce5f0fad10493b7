"""The export of losses and of other series, from the files of runs alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import output_file
from epochtop.engine.runs.index import summarize
from epochtop.engine.runs.reader import BadLine, Follower, SkippedLines
from epochtop.engine.runs.series import TRAIN_LOSS, SeriesTranslator, SeriesWindow
from epochtop.engine.runs.values import history
from epochtop.engine.terminal.output import data_output, write_error
from epochtop.engine.terminal.spreadsheets import row_filter


def export_losses(run: Path, form: str, output: str = "") -> int:
    """Write all losses of a run to a file or to standard output: csv `step,loss`, or jsonl with test losses too.

    Raises Invalid if the file cannot be written.
    """
    return _to_output(lambda file: _write_losses(run, form, file), output)


def export_series(run: Path, names: Sequence[str], form: str, output: str = "", excel_safe: bool = False) -> int:
    """Write series of a run or of an opened log: csv `step,time,NAME…`, or jsonl with the same keys. Time is Unix time.

    `excel_safe` escapes names that a spreadsheet would execute. A cell is empty, or a key missing, where a series has no value
    at a step. Raises Invalid for an unknown series or if the
    file cannot be written.
    """
    run_history = history.load(run)
    for name in names:
        if name not in run_history.series:
            known = ", ".join(sorted(run_history.series)) or "none"
            raise Invalid("series", f"{run_history.name or run.name} has no series {name!r}; it has {known}")
    columns = [run_history.series[name] for name in names]
    return _to_output(lambda file: _write_series(columns, form, file, excel_safe), output)


def _to_output(write: Callable[[TextIO], None], output: str) -> int:
    """Write to a file, or to standard output if `output` is empty. Returns 0. Raises Invalid."""
    if not output:
        write(data_output())
        return 0
    try:
        with output_file(Path(output)) as file:
            write(file)
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None
    return 0


def _write_series(columns: Sequence[history.SeriesValues], form: str, file: TextIO, excel_safe: bool) -> None:
    names = [column.name for column in columns]
    table = csv.writer(file, lineterminator="\n")
    if form == "csv":
        table.writerow(row_filter(excel_safe)(("step", "time", *names)))
    for step, time, values in history.rows(columns):
        moment = None if math.isnan(time) else round(time, 6)
        if form == "csv":
            table.writerow([step, moment, *(None if value is None else repr(value) for value in values)])
        else:
            cells = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            file.write(msgspec.json.encode({"step": step, "time": moment, **cells}).decode() + "\n")
    file.flush()


def _write_losses(run: Path, form: str, file: TextIO) -> None:
    if form == "csv":
        file.write("step,loss\n")
    name, translator, follower = summarize(run).series or TRAIN_LOSS, SeriesTranslator(), Follower(run)
    skipped = SkippedLines()
    for event in follower.read_all():
        if not isinstance(event, BadLine):
            file.writelines(_lines(window, form) for window in translator.windows(event) if window.name == name)
        match event:
            case Evaluated() if form == "jsonl":
                row = {"step": event.step, "test_loss": event.loss, "test_metric": event.metric}
                file.write(msgspec.json.encode(row).decode() + "\n")
            case BadLine():
                if report := skipped.report(event):
                    write_error(f"epochtop: {run}: {report}\n")
            case _:
                pass
    follower.close()
    file.flush()


def _lines(window: SeriesWindow, form: str) -> str:
    show = repr if window.double else _single
    numbered = zip(window.step_numbers(), window.numbers(), strict=True)
    if form == "csv":
        return "".join(f"{step},{show(value)}\n" for step, value in numbered)
    return "".join(
        f'{{"step":{step},"loss":{show(value) if math.isfinite(value) else "null"}}}\n' for step, value in numbered
    )


def _single(value: float) -> str:
    """The shortest text that restores a float32 exactly."""
    return f"{value:.9g}"
