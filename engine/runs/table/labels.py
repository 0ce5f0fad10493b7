"""Tags and notes: read and written in run.json, for logs of other tools in a file of the home folder.

Files of other tools are never changed. Never imports torch, numpy or Textual.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from epochtop.engine.protocol.events import UNREADABLE, encode
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.files import write_atomically
from epochtop.engine.runs.opened.sources import is_opened_log
from epochtop.engine.runs.reader import read_record
from epochtop.engine.runs.regular import read_regular
from epochtop.engine.runs.remote.changes import write_record

LABELS = "labels.json"
"""File in the home folder with the labels of opened logs, by path."""
LONGEST_TAG = 60
LONGEST_NOTES = 10_000


class Labels(msgspec.Struct, frozen=True):
    """What the user says about a run."""

    tags: tuple[str, ...] = ()
    """Words to filter by, each once."""
    notes: str = ""


_decode = msgspec.json.Decoder(dict[str, Labels]).decode


def labels_of(record: RunRecord) -> Labels:
    """The labels in a record."""
    owner = record if record.script is None else record.script
    return Labels(owner.tags, owner.notes)


def read_log_labels(home: Path) -> dict[str, Labels]:
    """The labels of opened logs, by path. Raises Invalid if the file cannot be read."""
    try:
        return _decode(read_regular(home / LABELS))
    except FileNotFoundError:
        return {}
    except (OSError, *UNREADABLE) as error:
        raise Invalid("", f"{home / LABELS} cannot be read: {error}; move it away to start with no labels") from None


def set_labels(home: Path, run: Path, labels: Labels) -> None:
    """Exchange the labels of a run or of an opened log. Raises Invalid if they cannot be stored."""
    if not is_opened_log(run):
        write_record(run, _labeled(read_record(run), labels))
        return
    path = home / LABELS
    try:
        write_atomically(path, encode({**read_log_labels(home), str(run): labels}))
    except OSError as error:
        raise Invalid("", f"cannot write {path}: {error.strerror}") from None


def _labeled(record: RunRecord, labels: Labels) -> RunRecord:
    change = msgspec.structs.replace
    if record.script is None:
        return change(record, tags=labels.tags, notes=labels.notes)
    return change(record, script=change(record.script, tags=labels.tags, notes=labels.notes))


def parse_tags(text: str) -> tuple[str, ...]:
    """Tags separated by commas or spaces, each once. Raises Invalid for a tag that is too long."""
    tags = tuple(dict.fromkeys(part for part in re.split(r"[\s,]+", text) if part))
    for tag in tags:
        if len(tag) > LONGEST_TAG:
            raise Invalid("tags", f"{tag[:20]}… is longer than {LONGEST_TAG} characters")
    return tags


def parse_notes(text: str) -> str:
    """Notes without blanks around them. Raises Invalid if they are too long."""
    if len(text) > LONGEST_NOTES:
        raise Invalid("notes", f"notes are limited to {LONGEST_NOTES:,} characters")
    return text.strip()


def tag_text(tags: Sequence[str]) -> str:
    """Tags as :func:`parse_tags` reads them."""
    return ", ".join(tags)
