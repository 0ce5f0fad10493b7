"""The home folder of runs: list, summarize, find, rename, delete.

Reads only the beginning and the end of each log, so that listing many long runs is quick. Never imports torch, numpy or
Textual.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from epochtop.engine.protocol.events import (
    UNREADABLE,
    AnyEvent,
    Continued,
    Evaluated,
    Failed,
    Finished,
    Logged,
    Losses,
    Paused,
    Resumed,
    ScriptEnded,
    ScriptStarted,
    Started,
    decode_event,
)
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.families import main_series
from epochtop.engine.runs.paths import EVENTS, LOCK, OUTPUT, RECORD, lab_home
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.regular import open_file, reason_of
from epochtop.engine.runs.remote.changes import remove_run, write_record
from epochtop.engine.runs.remote.registry import place_of
from epochtop.engine.runs.series import SeriesTranslator, SeriesWindow

State = Literal["running", "paused", "finished", "stopped", "diverged", "unsaved", "failed", "died"]
"""State of a run; `died` means that its engine ended without a last event, `unsaved` that it has no last checkpoint."""

_END_BYTES = 1 << 18
"""Bytes read from each end of a log."""
_LONGEST_END_BYTES = 1 << 25
"""Most bytes read from the end, where single lines are long."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list; None is unknown."""

    id: str
    name: str = ""
    state: State
    created: float
    """Unix time in seconds."""
    dataset: str = "?"
    """Dataset of a run; the project of a script, or its file if it has none."""
    script: bool = False
    """Whether a user's script records the run."""
    device: str | None = None
    """torch's name of the device."""
    seconds: float | None = None
    """Training time so far, in seconds."""
    steps: int | None = None
    """Steps so far."""
    final_loss: float | None = None
    """Loss of the last step; for a script, the last value of its main series."""
    series: str = ""
    """Name of the main series of a script; empty for other runs."""
    test_loss: float | None = None
    """Loss of the last evaluation."""
    test_metric: float | None = None
    """Headline metric of the last evaluation."""
    note: str = ""
    """Why the run did not finish, and advice; or why it cannot be read."""


def run_paths(folder: Path) -> list[Path]:
    """All run directories in a home folder, newest first; also those that cannot be read."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - quicker
    except OSError:
        return []
    return sorted((folder / name for name in names if _is_run(folder / name)), key=_lock_time, reverse=True)


def newest_live_run(folder: Path, most: int = 50) -> Path | None:
    """The newest of the last `most` runs that is alive; None if there is none."""
    return next((path for path in run_paths(folder)[:most] if is_alive(path)), None)


def _is_run(path: Path) -> bool:
    """Whether a run is stored there, as far as can be seen."""
    try:
        os.lstat(path / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # its own row says why it cannot be read
        return True
    return True


def _lock_time(run: Path) -> float:
    try:
        return (run / LOCK).stat().st_mtime
    except OSError:
        return 0.0


def fingerprint(run: Path) -> object:
    """A value that stays equal as long as the summary of a run does; different each time if the run cannot be read."""
    try:
        log, record = (run / EVENTS).stat(), (run / RECORD).stat()
    except OSError:
        return object()
    return log.st_size, log.st_mtime_ns, record.st_mtime_ns, is_alive(run)


def summarize(run: Path) -> RunSummary:
    """Summarize a run, from its record and both ends of its log."""
    return summary_and_record(run)[0]


def summary_and_record(run: Path) -> tuple[RunSummary, RunRecord | None]:
    """The summary of a run and its record; None if the record cannot be read."""
    alive = is_alive(run)  # checked before reading, so that a run that ends meanwhile does not look dead
    try:
        record = read_record(run)
    except Invalid as error:
        return RunSummary(id=run.name, state="died", created=_lock_time(run), note=error.message), None
    return _summary(run, record, alive), record


def _summary(run: Path, record: RunRecord, alive: bool) -> RunSummary:
    process = "script" if record.script is not None else "engine"
    summary = RunSummary(
        id=run.name,
        name=record.name,
        state="running" if alive else "died",
        created=record.created,
        dataset=record.spec.dataset if record.script is None else record.script.source,
        script=record.script is not None,
        note="" if alive else _note_of_death(run, process),
    )
    try:
        head, tail = _ends(run / EVENTS)
    except OSError as error:
        return msgspec.structs.replace(summary, note=f"{run / EVENTS} cannot be read: {reason_of(error)}")
    beginning = [event for event in head if isinstance(event, Started | ScriptStarted)]
    for event in [*beginning, *tail]:
        summary = _after(summary, event, alive)
    return _with_series(summary, tail if head is tail else [*head, *tail])


def _note_of_death(run: Path, process: str) -> str:
    try:
        printed = (run / OUTPUT).stat().st_size > 0
    except OSError:
        printed = False
    return f"the {process} died; see output.log" if printed else f"the {process} died"


def _after(summary: RunSummary, event: AnyEvent, alive: bool) -> RunSummary:
    change = msgspec.structs.replace
    match event:
        case Started():
            return change(summary, device=event.device)
        case Evaluated():
            return change(summary, test_loss=event.loss, test_metric=event.metric)
        case Paused() if alive:
            return change(summary, state="paused")
        case Resumed() if alive:
            return change(summary, state="running")
        case Continued() | ScriptStarted():
            state: State = "running" if alive else "died"
            return change(summary, state=state, note="" if alive else summary.note, steps=None, seconds=None)
        case ScriptEnded():
            return change(
                summary, state=event.outcome, seconds=event.seconds, steps=event.steps or None, note=event.reason
            )
        case Finished():
            return change(
                summary,
                state=event.outcome,
                seconds=event.seconds,
                steps=event.steps,
                final_loss=event.final_loss,
                test_loss=event.test_loss,
                test_metric=event.test_metric,
                note="" if event.outcome == "finished" else " · ".join(filter(None, (event.reason, event.advice))),
            )
        case Failed():
            return change(summary, state="failed", note=event.message)
        case _:
            return summary


def _with_series(summary: RunSummary, events: Iterable[AnyEvent]) -> RunSummary:
    """The summary with what the windows at both ends of the log say, unless the end of the run says it."""
    translator, newest, steps, seconds = SeriesTranslator(), dict[str, SeriesWindow](), 0, 0.0
    for event in events:
        windows = translator.windows(event)
        newest.update((window.name, window) for window in windows)
        if windows and isinstance(event, Losses | Logged):  # all windows of an event have the same steps
            steps, seconds = max(steps, windows[0].last_step + 1), max(seconds, windows[0].seconds)
    main = main_series(newest)
    change = msgspec.structs.replace
    if summary.script:
        summary = change(summary, series=main)
    if summary.state in ("finished", "stopped", "diverged", "unsaved") and not summary.script:
        return summary
    last = newest[main].last if main in newest else None
    return change(
        summary,
        seconds=(summary.seconds or seconds) if newest else summary.seconds,
        steps=(summary.steps or steps) if newest else summary.steps,
        final_loss=None if last is None or isnan(last) else last,
    )


def _ends(log: Path) -> tuple[list[AnyEvent], list[AnyEvent]]:
    """The readable events at the beginning and at the end of a log, one list for a short log. Raises OSError."""
    with open_file(log) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = _readable(file.read(_END_BYTES).split(b"\n")[:-1])
        if size <= _END_BYTES:
            return head, head
        span = _END_BYTES
        while True:
            file.seek(max(0, size - span))
            lines = file.read(span).split(b"\n")[:-1]
            tail = _readable(lines if span >= size else lines[1:])
            if tail or span >= min(size, _LONGEST_END_BYTES):
                return head, tail
            span *= 8


def _readable(lines: list[bytes]) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    for line in lines:
        try:
            events.append(decode_event(line))
        except UNREADABLE:
            continue
    return events


def find(folder: Path, query: str) -> Path:
    """The run that `query` refers to: an id, a name, a unique prefix of an id, or `last`.

    Raises Invalid if there is none, or more than one.
    """
    return _only(_runs(folder, query), query, "runs") or _no_match(folder, query)


def find_any(folder: Path, query: str, *, prefers_live: bool = False) -> Path:
    """The run that `query` refers to, as for :func:`find`, else the experiment with that id or prefix.

    With `prefers_live`, runs that have ended count only if no run that matches is alive. Raises Invalid if there is none, or
    more than one.
    """
    experiments = _with_prefix(run_paths(lab_home(folder)), query)
    if experiments and experiments[0].name == query:
        return experiments[0]
    runs = _runs(folder, query)
    if prefers_live and len(runs) > 1:
        runs = [run for run in runs if is_alive(run)] or runs
    match = _only(runs, query, "runs") or _only(experiments, query, "experiments")
    return match or _no_match(folder, query)


def _runs(folder: Path, query: str) -> list[Path]:
    """Runs that match `query`: by id, else by name, else by a prefix of the id."""
    paths = run_paths(folder)
    if query == "last":
        return paths[:1]
    exact = [path for path in paths if path.name == query]
    named = [] if exact or not query else [path for path in paths if _name_of(path) == query]
    return exact or named or _with_prefix(paths, query)


def _with_prefix(paths: list[Path], query: str) -> list[Path]:
    """Paths with the id `query`, else those whose id starts with it; none for an empty query."""
    matches = [path for path in paths if path.name.startswith(query)] if query else []
    return [path for path in matches if path.name == query] or matches


def _only(matches: list[Path], query: str, kind: str) -> Path | None:
    """The only match; None if there is none. Raises Invalid if there are several."""
    if len(matches) > 1:
        ids = ", ".join(path.name for path in matches[:5]) + (", …" if len(matches) > 5 else "")
        raise Invalid("", f"{query!r} matches {len(matches)} {kind}: {ids}; use the full id")
    return matches[0] if matches else None


def _no_match(folder: Path, query: str) -> NoReturn:
    if not run_paths(folder):
        raise Invalid("", f"there are no runs in {place_of(folder)} yet; start one with `epochtop train`")
    raise Invalid("", f"there is no run {query!r} in {place_of(folder)}; list all runs with `epochtop runs`")


def _name_of(path: Path) -> str:
    try:
        return read_record(path).name
    except Invalid:
        return ""


def rename(run: Path, name: str) -> None:
    """Rename a run; its id does not change. Raises Invalid for an invalid name, or if it cannot be stored."""
    checked = parse("name", name)
    _check_is_run(run)
    record = read_record(run)
    if record.script is not None:
        renamed = msgspec.structs.replace(record, script=msgspec.structs.replace(record.script, name=checked))
    else:
        renamed = msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, name=checked))
    write_record(run, renamed)


def check_can_resume(run: Path) -> None:
    """Raises Invalid for a script's run, and for a run that is running, finished or diverged."""
    summary = summarize(run)
    if summary.script:
        raise Invalid("", f"{run.name} was recorded by a script; run the script again, with resume={run.name!r}")
    if is_alive(run):
        raise Invalid("", f"{run.name} is still running; watch it with `epochtop attach {run.name}`")
    if summary.state == "finished":
        raise Invalid("", f"{run.name} has finished; start a new run with more epochs")
    if summary.state == "diverged":
        raise Invalid("", f"{run.name} has diverged; start a new run with a lower learning rate")


def delete(run: Path) -> None:
    """Delete a run with all its files. Raises Invalid if its engine is alive or a file cannot be deleted."""
    _check_is_run(run)
    if is_alive(run):
        raise Invalid("", f"{run.name} is still running; stop it first")
    remove_run(run)


def _check_is_run(run: Path) -> None:
    """Raises Invalid for anything but a run directory, such as the log of another tool."""
    if run.exists() and not (run / EVENTS).exists() and not (run / RECORD).exists():
        raise Invalid("", f"{run} is not a run directory; epochtop does not change files of other tools")
