"""Changes of runs from the table: name, tags, notes, deletion. Files of other tools stay as they are."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from pathlib import Path

from textual.app import App

from epochtop.engine.protocol.fields import parse
from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid, Value
from epochtop.engine.runs.index import delete, rename
from epochtop.engine.runs.opened.folders import EPOCHTOP, hide
from epochtop.engine.runs.table.details import RunDetails
from epochtop.engine.runs.table.labels import Labels, parse_notes, parse_tags, set_labels, tag_text
from epochtop.tui.forms.dialogs import Entries

NAMED = 5
"""Runs that a question names."""


async def edit_run(app: App[int], home: Path, run: RunDetails) -> bool:
    """Ask for name, tags and notes of a run, and store them. True if something was stored."""
    texts = {"tags": tag_text(run.labels.tags), "notes": run.labels.notes.replace("\n", " ")}
    named = run.kind == EPOCHTOP
    if named:
        texts = {"name": run.summary.name, **texts}
    answer = await app.push_screen_wait(Entries(f"{run.name}; tags are separated by commas:", texts, _check))
    if answer is None or answer == texts:
        return False
    notes = run.labels.notes if answer["notes"] == texts["notes"] else answer["notes"]
    labels = Labels(parse_tags(answer["tags"]), notes)
    name = answer["name"] if named and answer["name"] != texts["name"] else None
    try:
        await to_thread(_store, home, Path(run.path), name, labels)
    except (Invalid, OSError) as error:
        app.notify(str(error), severity="error")
        return False
    return True


def _store(home: Path, run: Path, name: str | None, labels: Labels) -> None:
    """Store what differs. Waits for the disk, or for another machine. Raises Invalid, OSError."""
    if name is not None:
        rename(run, name)
    set_labels(home, run, labels)


def _check(name: str, text: str) -> Value:
    if name == "tags":
        return tag_text(parse_tags(text))
    return parse_notes(text) if name == "notes" else parse(name, text)


def is_own(home: Path, run: RunDetails) -> bool:
    """Whether a run is a run directory in the home folder, which is deleted; any other one only leaves the list."""
    return Path(run.path).parent == home


def delete_text(home: Path, runs: Sequence[RunDetails]) -> str:
    """The question before runs are deleted."""
    own = [run for run in runs if is_own(home, run)]
    others = len(runs) - len(own)
    names = ", ".join(run.name for run in own[:NAMED]) + (", …" if len(own) > NAMED else "")
    parts = []
    if own:
        what = names if len(own) == 1 else f"{plural(len(own), 'run')} ({names})"
        parts.append(f"Delete {what} with values and checkpoints? This cannot be undone.")
    if others:
        parts.append(f"Remove {plural(others, 'run')} of opened folders from the list? Files stay as they are.")
    return "\n".join(parts)


def delete_runs(home: Path, runs: Sequence[RunDetails]) -> tuple[list[RunDetails], list[str]]:
    """Delete runs of the home folder, and take others off the list. Returns those that are gone, and what went wrong."""
    gone, problems = [], []
    for run in runs:
        try:
            (delete if is_own(home, run) else lambda path: hide(home, path))(Path(run.path))
            gone.append(run)
        except (Invalid, OSError) as error:
            problems.append(str(error))
    return gone, problems
