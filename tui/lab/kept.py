"""Results of experiments that are kept: run directories in a folder beside the runs, listed from their files alone."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from epochtop.engine.protocol.events import UNREADABLE, AnyEvent, Concluded, Failed, Measured, decode_event
from epochtop.engine.protocol.experiments import Cell
from epochtop.engine.protocol.quantities import format_age
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import EVENTS, RECORD, lab_home
from epochtop.engine.runs.reader import BadLine, Follower, is_alive, read_record
from epochtop.tui.cells.rows import cut

END_BYTES = 1 << 20
"""Of a log that are read for its last event: a verdict is far shorter."""
MOST = 200
"""Results in a list."""
State = Literal["running", "finished", "stopped", "failed", "died"]


@dataclass(frozen=True)
class Kept:
    """One result in a list."""

    id: str
    experiment: str
    state: State
    created: float
    """Unix time in seconds."""
    quick: bool = False
    finding: str = ""
    """The verdict in a sentence, or why there is none."""


class Keeping:
    """The results below one home folder. What is over and unchanged is not read again; for one thread at a time."""

    def __init__(self, home: Path) -> None:
        self._folder = lab_home(home)
        self._known: dict[Path, tuple[object, Kept]] = {}

    def list(self) -> list[Kept]:
        """The newest first, at most MOST; what is no experiment is left out."""
        found: dict[Path, tuple[object, Kept]] = {}
        for run in run_paths(self._folder)[:MOST]:
            key, known = _key(run), self._known.get(run)
            if known is not None and known[0] == key:
                found[run] = known
            elif (kept := look(run)) is not None:
                found[run] = (key, kept)
        self._known = found
        return [kept for _, kept in found.values()]


def _key(run: Path) -> object:
    try:
        log, record = (run / EVENTS).stat(), (run / RECORD).stat()
    except OSError:
        return object()
    return log.st_size, log.st_mtime_ns, record.st_mtime_ns, is_alive(run)


def look(run: Path) -> Kept | None:
    """One result, from its record and the end of its log; None for what is no experiment."""
    alive = is_alive(run)  # asked before the log is read, so that an end written meanwhile is no death
    try:
        record = read_record(run)
    except Invalid:
        return None
    if record.experiment is None:
        return None
    state: State = "running" if alive else "died"
    finding = "" if alive else "the engine ended without a word; see output.log"
    match _last(run / EVENTS):
        case Concluded() as end:
            state, finding = end.outcome, end.verdict.finding
        case Failed() as end:
            state, finding = "failed", end.message
        case _:
            pass
    return Kept(run.name, record.experiment.name, state, record.created, record.experiment.quick, finding)


def _last(log: Path) -> AnyEvent | None:
    """The last event that can be read."""
    try:
        with open(log, "rb") as file:
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


def print_kept(home: Path, as_json: bool, width: int) -> int:
    """Print all of them, the newest first."""
    every = Keeping(home).list()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(every)).decode() + "\n")
        return 0
    if not every:
        sys.stdout.write(f"nothing is kept in {lab_home(home)} yet; `epochtop lab NAME` measures\n")
        return 0
    now, cells = time.time(), max(len(kept.id) for kept in every)
    for kept in every:
        quick = "quick" if kept.quick else ""
        line = f"{kept.id:<{cells}}  {kept.state:<8}  {quick:<5}  {format_age(now - kept.created):>6}  {kept.finding}"
        sys.stdout.write(cut(line, width).rstrip() + "\n")
    return 0


def export_rows(run: Path, form: str, output: str = "") -> int:
    """Every row of an experiment to a file or standard output: csv with a column a name, or jsonl.

    Raises Invalid for other formats and where the file cannot be written.
    """
    if form not in ("csv", "jsonl"):
        raise Invalid(
            "format", f"is for runs that train; {run.name} is an experiment: its rows are written as csv or jsonl"
        )
    if not output:
        _write(run, form, sys.stdout)
        return 0
    try:
        with open(output, "w", encoding="utf-8", newline="") as file:
            _write(run, form, file)
    except OSError as error:
        raise Invalid("", f"cannot write {output}: {error.strerror}") from None
    return 0


def _write(run: Path, form: str, file: TextIO) -> None:
    rows = _rows(run)
    if form == "jsonl":
        file.writelines(msgspec.json.encode(row).decode() + "\n" for row in rows)
    else:
        import csv

        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    file.flush()


def _rows(run: Path) -> list[dict[str, Cell]]:
    follower, rows = Follower(run), []
    for event in follower.read_all():
        if isinstance(event, Measured):
            rows.append(event.values)
        elif isinstance(event, BadLine):
            sys.stderr.write(f"epochtop: {run / EVENTS}, line {event.number} is skipped: {event.reason}\n")
    follower.close()
    return rows
