"""`epochtop runs` and the export of losses, from the files of runs alone."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TextIO

import msgspec

from epochtop.engine.protocol.events import Evaluated
from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_number, format_seconds
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import output_file
from epochtop.engine.runs.index import RunSummary, run_paths, summarize
from epochtop.engine.runs.reader import BadLine, Follower
from epochtop.engine.runs.series import TRAIN_LOSS, SeriesTranslator, SeriesWindow
from epochtop.engine.terminal.output import data_output, write, write_error, write_json
from epochtop.engine.terminal.plain import plain_line

HEADINGS = ("run", "name", "state", "loss", "test loss", "device", "time", "age")


def cells(summary: RunSummary, now: float) -> tuple[str, ...]:
    """One run as texts, in the order of HEADINGS."""
    return (
        summary.id,
        summary.name,
        summary.state,
        format_number(summary.final_loss),
        format_number(summary.test_loss),
        summary.device or UNKNOWN,
        format_seconds(summary.seconds),
        format_age(now - summary.created),
    )


def print_runs(home: Path, as_json: bool) -> int:
    """Print all runs, the newest first."""
    summaries = [summarize(path) for path in run_paths(home)]
    if as_json:
        write_json(msgspec.json.format(msgspec.json.encode(summaries)))
        return 0
    if not summaries:
        write(f"no runs in {home} yet; run `epochtop train`\n")
        return 0
    now = time.time()
    rows = [HEADINGS, *(tuple(map(plain_line, cells(summary, now))) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for place, row in enumerate(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        note = plain_line(summaries[place - 1].note) if place else ""
        write(f"{line}{f'  {note}' if note else ''}\n")
    return 0


def export_losses(run: Path, form: str, output: str = "") -> int:
    """Write all losses of a run to a file or to standard output: csv `step,loss`, or jsonl with test losses too.

    Raises Invalid if the file cannot be written.
    """
    if not output:
        _write_losses(run, form, data_output())
        return 0
    try:
        with output_file(Path(output)) as file:
            _write_losses(run, form, file)
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None
    return 0


def _write_losses(run: Path, form: str, file: TextIO) -> None:
    if form == "csv":
        file.write("step,loss\n")
    name, translator, follower = summarize(run).series or TRAIN_LOSS, SeriesTranslator(), Follower(run)
    for event in follower.read_all():
        if not isinstance(event, BadLine):
            file.writelines(_lines(window, form) for window in translator.windows(event) if window.name == name)
        match event:
            case Evaluated() if form == "jsonl":
                row = {"step": event.step, "test_loss": event.loss, "test_metric": event.metric}
                file.write(msgspec.json.encode(row).decode() + "\n")
            case BadLine():
                write_error(
                    f"epochtop: {run / 'events.jsonl'}, line {event.number}: skipped, cannot be read: {event.reason}\n"
                )
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
