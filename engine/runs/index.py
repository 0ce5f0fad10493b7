"""The folder of all runs: list, summarize, find, rename, delete.

Works from the files alone and reads only the two ends of a log, so that a list of many long runs is quick.
Must never import torch, numpy or Textual.
"""

from __future__ import annotations

import array
import os
import shutil
import sys
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
    Losses,
    Paused,
    Resumed,
    Started,
    decode_event,
    encode,
)
from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.paths import EVENTS, LOCK, RECORD, lab_home
from epochtop.engine.runs.reader import is_alive, read_record
from epochtop.engine.runs.writer import write_whole

State = Literal["running", "paused", "finished", "stopped", "diverged", "failed", "died"]

_END_BYTES = 1 << 18
_LONGEST_END_BYTES = 1 << 25


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list."""

    id: str
    name: str = ""
    state: State
    created: float
    """Unix time in seconds."""
    dataset: str = "?"
    device: str | None = None
    seconds: float | None = None
    """Of training so far."""
    steps: int | None = None
    final_loss: float | None = None
    test_loss: float | None = None
    test_metric: float | None = None
    note: str = ""
    """What a reader should know of a run that did not finish: the reason, the advice, why it is unreadable."""


def run_paths(folder: Path) -> list[Path]:
    """All run directories of a home folder, the newest first."""
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".") and (path / RECORD).exists()]
    except OSError:
        return []
    return sorted(found, key=_lock_time, reverse=True)


def _lock_time(run: Path) -> float:
    try:
        return (run / LOCK).stat().st_mtime
    except OSError:
        return 0.0


def summarize(run: Path) -> RunSummary:
    """One line about a run, from run.json and the two ends of its log."""
    alive = is_alive(run)  # asked before the log is read, so that an end written meanwhile is no death
    try:
        record = read_record(run)
    except Invalid as error:
        return RunSummary(id=run.name, state="died", created=_lock_time(run), note=error.message)
    summary = RunSummary(
        id=run.name,
        name=record.spec.name,
        state="running" if alive else "died",
        created=record.created,
        dataset=record.spec.dataset,
        note="" if alive else "the engine ended without a word; see output.log",
    )
    head, tail = _ends(run / EVENTS)
    for event in [*(event for event in head if isinstance(event, Started)), *tail]:
        summary = _after(summary, event, alive)
    return summary


def _after(summary: RunSummary, event: AnyEvent, alive: bool) -> RunSummary:
    change = msgspec.structs.replace
    match event:
        case Started():
            return change(summary, device=event.device)
        case Losses():
            steps = event.first_step + len(event.values) // 4
            return change(summary, seconds=event.seconds, steps=steps, final_loss=last_loss(event))
        case Evaluated():
            return change(summary, test_loss=event.loss, test_metric=event.metric)
        case Paused() if alive:
            return change(summary, state="paused")
        case Resumed() if alive:
            return change(summary, state="running")
        case Continued():
            return change(summary, state="running" if alive else "died", note="" if alive else summary.note)
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


def last_loss(losses: Losses) -> float | None:
    """The newest loss of a window; None if it is empty."""
    if len(losses.values) < 4:
        return None
    value = array.array("f", losses.values[-4:])
    if sys.byteorder == "big":
        value.byteswap()
    return value[0]


def _ends(log: Path) -> tuple[list[AnyEvent], list[AnyEvent]]:
    """The readable events at the beginning and at the end of a log; the two may overlap."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = _readable(file.read(_END_BYTES).split(b"\n")[:-1])
            span = _END_BYTES
            while True:
                file.seek(max(0, size - span))
                lines = file.read(span).split(b"\n")[:-1]
                tail = _readable(lines if span >= size else lines[1:])
                if tail or span >= min(size, _LONGEST_END_BYTES):
                    return head, tail
                span *= 8
    except OSError:
        return [], []


def _readable(lines: list[bytes]) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    for line in lines:
        try:
            events.append(decode_event(line))
        except UNREADABLE:
            continue
    return events


def find(folder: Path, wanted: str) -> Path:
    """The run directory that `wanted` means: an id, a name, a unique prefix of an id, or `last`.

    Raises Invalid when there is none or more than one.
    """
    return _only(_runs(folder, wanted), wanted, "runs") or _none(folder, wanted)


def find_any(folder: Path, wanted: str) -> Path:
    """The directory that `wanted` means: a run, as :func:`find` finds it, else an experiment by its id or a prefix of it.

    Raises Invalid when there is none or more than one.
    """
    experiments = _begins(run_paths(lab_home(folder)), wanted)
    if experiments and experiments[0].name == wanted:
        return experiments[0]
    found = _only(_runs(folder, wanted), wanted, "runs") or _only(experiments, wanted, "experiments")
    return found or _none(folder, wanted)


def _runs(folder: Path, wanted: str) -> list[Path]:
    """Those that `wanted` may mean: the one of that id, else those of that name, else those whose id begins so."""
    paths = run_paths(folder)
    if wanted == "last":
        return paths[:1]
    exact = [path for path in paths if path.name == wanted]
    named = [] if exact or not wanted else [path for path in paths if _name_of(path) == wanted]
    return exact or named or _begins(paths, wanted)


def _begins(paths: list[Path], wanted: str) -> list[Path]:
    """Those whose id is `wanted`, else those whose id begins so; nothing is the beginning of none."""
    matches = [path for path in paths if path.name.startswith(wanted)] if wanted else []
    return [path for path in matches if path.name == wanted] or matches


def _only(matches: list[Path], wanted: str, kind: str) -> Path | None:
    """The only one; None where there is none. Raises Invalid where there are more."""
    if len(matches) > 1:
        ids = ", ".join(path.name for path in matches[:5]) + (", …" if len(matches) > 5 else "")
        raise Invalid("", f"{wanted!r} means {len(matches)} {kind}: {ids}; give the whole id")
    return matches[0] if matches else None


def _none(folder: Path, wanted: str) -> NoReturn:
    if not run_paths(folder):
        raise Invalid("", f"there are no runs in {folder} yet; `epochtop train` makes one")
    raise Invalid("", f"there is no run {wanted!r} in {folder}; `epochtop runs` lists them")


def _name_of(path: Path) -> str:
    try:
        return read_record(path).spec.name
    except Invalid:
        return ""


def rename(run: Path, name: str) -> None:
    """Give a run another name; its id stays. Raises Invalid for a name that is not allowed."""
    checked = parse("name", name)
    record = read_record(run)
    spec = msgspec.structs.replace(record.spec, name=checked)
    write_whole(run / RECORD, encode(msgspec.structs.replace(record, spec=spec)))


def check_can_go_on(run: Path) -> None:
    """Raises Invalid for a run with nothing left to do."""
    summary = summarize(run)
    if is_alive(run):
        raise Invalid("", f"{run.name} is still running; `epochtop attach {run.name}` shows it")
    if summary.state == "finished":
        raise Invalid("", f"{run.name} has finished; nothing is left to do. Start a new run with more epochs")
    if summary.state == "diverged":
        raise Invalid("", f"{run.name} has diverged; start a new run with a lower learning rate")


def delete(run: Path) -> None:
    """Remove a run and all it holds. Raises Invalid while its engine lives or if it cannot be removed."""
    if is_alive(run):
        raise Invalid("", f"{run.name} is still running; stop it first")
    try:
        shutil.rmtree(run)
    except OSError as error:
        raise Invalid("", f"cannot delete {run.name}: {error.strerror}") from None
