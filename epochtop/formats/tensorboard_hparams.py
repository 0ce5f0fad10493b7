"""Folders that `SummaryWriter.add_hparams` makes below the folder of a run: its settings, and the results it names.

TensorBoard's own hparams page shows each as a row of a table, next to the run above. Here they are part of that run, unless
folders with different settings are next to each other: then each is a trial of its own.

Imports the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from epochtop.formats.decoding.growing import read_head
from epochtop.formats.decoding.protobuf import Malformed
from epochtop.formats.decoding.tfrecord import FOOTER_BYTES, HEADER_BYTES, intact, length_at
from epochtop.formats.tensorboard_event import decode

HEAD_BYTES = 1 << 16
"""Bytes at the beginning of a file in which settings are looked for."""
EVENT_FILE = "tfevents"
"""What the names of event files contain."""


def settings_folders(folder: Path) -> list[Path]:
    """The folders directly below that of a run which hold its settings; empty if their settings differ. Never raises."""
    settings = {}
    for below in _folders(folder):
        values = _settings(below)
        if values:
            settings[below] = values
    alike = all(values == other for values in settings.values() for other in settings.values())
    return sorted(settings) if alike else []


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []


def _settings(folder: Path) -> dict[str, Any]:
    """The settings in the event files of a folder; empty if there are none."""
    settings: dict[str, Any] = {}
    try:
        for name in sorted(os.listdir(folder)):
            if EVENT_FILE in name:
                settings.update(_first_settings(read_head(folder / name, HEAD_BYTES)))
    except OSError:
        pass
    return settings


def _first_settings(data: bytes) -> dict[str, Any]:
    """The settings in the first records of a file, up to its first value."""
    at = 0
    while (length := length_at(data, at) if len(data) - at >= HEADER_BYTES else None) is not None:
        start = at + HEADER_BYTES
        end = start + length
        try:
            if end + FOOTER_BYTES > len(data) or not intact(data, start, end):
                break
            event = decode(data, start, end)
        except Malformed:
            break
        if event.config or event.scalars:
            return event.config
        at = end + FOOTER_BYTES
    return {}
