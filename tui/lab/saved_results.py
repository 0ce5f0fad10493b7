"""Saved results of experiments: run directories in the lab folder, listed from their files alone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from epochtop.engine.protocol.events import UNREADABLE, AnyEvent, Concluded, Failed, Measured, decode_event
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import format_age
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import output_file
from epochtop.engine.runs.index import fingerprint, run_paths
from epochtop.engine.runs.paths import EVENTS, lab_home
from epochtop.engine.runs.reader import BadLine, Follower, SkippedLines, is_alive, read_record
from epochtop.engine.runs.regular import open_file
from epochtop.engine.terminal.output import data_output, write, write_error, write_json
from epochtop.engine.terminal.plain import plain_line
from epochtop.engine.terminal.spreadsheets import row_filter
from epochtop.tui.cells.rows import cut

END_BYTES = 1 << 20
"""Bytes at the end of a log that are read for its last event; a verdict is far shorter."""
MOST = 200
"""Most results in a list."""
State = Literal["running", "finished", "stopped", "failed", "died"]


@dataclass(frozen=True)
class SavedResult:
    """One result in a list."""

    id: str
    experiment: str
    state: State
    created: float
    """Unix time in seconds."""
    quick: bool = False
    finding: str = ""
    """The verdict's finding, or why there is none."""


class ResultIndex:
    """The results in one home folder. Finished ones are read once. Not thread-safe."""

    def __init__(self, home: Path) -> None:
        self._folder = lab_home(home)
        self._cache: dict[Path, tuple[object, SavedResult]] = {}

    def list(self) -> list[SavedResult]:
        """The newest results first, at most MOST; other directories are skipped."""
        entries: dict[Path, tuple[object, SavedResult]] = {}
        for run in run_paths(self._folder)[:MOST]:
            key, cached = fingerprint(run), self._cache.get(run)
            if cached is not None and cached[0] == key:
                entries[run] = cached
            elif (result := look(run)) is not None:
                entries[run] = (key, result)
        self._cache = entries
        return [result for _, result in entries.values()]


def look(run: Path) -> SavedResult | None:
    """One result, from its record and the end of its log; None if it is not an experiment."""
    alive = is_alive(run)  # checked before the log is read, so that an end written in between counts
    try:
        record = read_record(run)
    except Invalid:
        return None
    if record.experiment is None:
        return None
    state: State = "running" if alive else "died"
    finding = "" if alive else "the engine died; see output.log"
    match _last(run / EVENTS):
        case Concluded() as end:
            state, finding = end.outcome, end.verdict.finding
        case Failed() as end:
            state, finding = "failed", end.message
        case _:
            pass
    return SavedResult(run.name, record.experiment.name, state, record.created, record.experiment.quick, finding)


def _last(log: Path) -> AnyEvent | None:
    """The last readable event."""
    try:
        with open_file(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return decode_event(line)
        except UNREADABLE:
            continue
    return None


# --- on the command line -------------------------------------------------------------------------------------------


def print_results(home: Path, as_json: bool, width: int) -> int:
    """Print all results, the newest first. Returns 0."""
    results = ResultIndex(home).list()
    if as_json:
        write_json(msgspec.json.format(msgspec.json.encode(results)))
        return 0
    if not results:
        write(f"no results in {lab_home(home)} yet; run `epochtop lab NAME`\n")
        return 0
    now, cells = time.time(), max(len(result.id) for result in results)
    for result in results:
        quick = "quick" if result.quick else ""
        line = f"{result.id:<{cells}}  {result.state:<8}  {quick:<5}  {format_age(now - result.created):>6}  {result.finding}"
        write(cut(plain_line(line), width).rstrip() + "\n")
    return 0


def export_rows(run: Path, form: str, output: str = "", excel_safe: bool = False) -> int:
    """Write the rows of an experiment to a file or to standard output, as csv (a column per name) or jsonl.

    `excel_safe` escapes cells of a csv that a spreadsheet would execute as formulas.
    Raises Invalid for other formats, and if the file cannot be written.
    """
    if form not in ("csv", "jsonl"):
        raise Invalid("format", f"{form} is for training runs; {run.name} is an experiment: use csv or jsonl")
    if not output:
        _write(run, form, data_output(), excel_safe)
        return 0
    try:
        with output_file(Path(output)) as file:
            _write(run, form, file, excel_safe)
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None
    return 0


def _write(run: Path, form: str, file: TextIO, excel_safe: bool) -> None:
    rows = _rows(run)
    if form == "jsonl":
        file.writelines(msgspec.json.encode(row).decode() + "\n" for row in rows)
    else:
        import csv

        writer, names = csv.writer(file, lineterminator="\n"), list(dict.fromkeys(name for row in rows for name in row))
        cells_of = row_filter(excel_safe)
        writer.writerow(cells_of(names))
        writer.writerows(cells_of(row.get(name, "") for name in names) for row in rows)
    file.flush()


def _rows(run: Path) -> list[dict[str, Cell]]:
    follower, skipped, rows = Follower(run), SkippedLines(), []
    for event in follower.read_all():
        if isinstance(event, Measured):
            rows.append(event.values)
        elif isinstance(event, BadLine) and (report := skipped.report(event)):
            write_error(f"epochtop: {run}: {report}\n")
    follower.close()
    return rows
