"""`epochtop runs`, from the files of runs alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from epochtop.engine.protocol.quantities import UNKNOWN, format_age, format_number, format_seconds
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import RunSummary
from epochtop.engine.runs.opened import lookup, sources
from epochtop.engine.runs.remote.registry import place_of
from epochtop.engine.runs.values import figures
from epochtop.engine.terminal.output import write, write_error, write_json
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


def print_runs(home: Path, as_json: bool, paths: Sequence[Path] = ()) -> int:
    """Print the runs at `paths`; without paths all runs of the home folder and of opened folders. The newest come first.

    Raises Invalid if a path does not exist.
    """
    logs = lookup.all_runs(home, list(paths))
    listed = sorted(((sources.summarize(log, home), log) for log in logs), key=lambda entry: -entry[0].created)
    if as_json:
        write_json(
            msgspec.json.format(msgspec.json.encode([_with_figures(summary, log.path) for summary, log in listed]))
        )
        return 0
    summaries = [summary for summary, _ in listed]
    if not summaries:
        where = ", ".join(map(str, paths))
        write(f"no runs in {where}\n" if paths else f"no runs in {place_of(home)} yet; run `epochtop train`\n")
        return 0
    now = time.time()
    rows = [HEADINGS, *(tuple(map(plain_line, cells(summary, now))) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for place, row in enumerate(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        note = plain_line(summaries[place - 1].note) if place else ""
        write(f"{line}{f'  {note}' if note else ''}\n")
    return 0


def _with_figures(summary: RunSummary, path: Path) -> dict[str, Any]:
    """A run as an object for programs. A run that cannot be read has no configuration and no series."""
    entry: dict[str, Any] = msgspec.to_builtins(summary)
    entry["main_series"] = entry.pop("series")
    try:
        read = figures.read(path)
    except Invalid as error:
        write_error(f"epochtop: {error.message}\n")
        return {**entry, "path": place_of(path), "format": "", "config": {}, "series": {}}
    return {**entry, "path": place_of(path), "format": read.kind, "config": read.config, "series": read.series}
