"""Hugging Face `trainer_state.json`: the log of a Trainer, as it was at its last checkpoint.

The log is that of an output folder: the file in it, or the newest one in its folders `checkpoint-…`. Series have the names
that the Trainer gives them in TensorBoard. Imports the standard library only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from epochtop.configuration.regular import open_file
from epochtop.formats.decoding.growing import modified_time
from epochtop.formats.records import NAN, Collector, Configuration, Record, Restart, number

STATE = "trainer_state.json"
LARGEST_BYTES = 1 << 28
SETTINGS = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps")


def recognize(path: Path, head: bytes) -> bool:
    """Whether a file is the state of a Trainer; its keys are sorted, so the history may begin late."""
    start = head.lstrip()
    if not start.startswith(b"{"):
        return False
    return (
        b'"best_metric"' in head
        or b'"log_history"' in head
        or (b'"global_step"' in head and b'"epoch"' in head and b"\n" in head[:8])
    )


def output_folder(path: Path) -> Path:
    """The output folder of a state file."""
    folder = path.parent
    return folder.parent if folder.name.startswith("checkpoint-") else folder


def state_files(folder: Path) -> list[Path]:
    """The state files of an output folder, or of a checkpoint that was opened by itself, the newest last."""
    paths = [folder / STATE]
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith("checkpoint-")]
    except OSError:
        names = []
    paths += [folder / name / STATE for name in names]
    return sorted((path for path in paths if modified_time(path)), key=modified_time)


def series_name(name: str) -> str:
    """The name under which the Trainer logs a metric to TensorBoard."""
    for prefix in ("eval_", "test_"):
        if name.startswith(prefix):
            return f"{prefix[:-1]}/{name[len(prefix) :]}"
    return f"train/{name}"


class TrainerFollower:
    """Follows the newest state of an output folder."""

    def __init__(self, folder: Path, last_bytes: int | None = None) -> None:
        self._folder = folder
        self._collector = Collector()
        self._seen: tuple[str, float] = ("", 0.0)
        self._history: list[Any] = []
        """The entries that were read."""
        self._config: dict[str, Any] = {}
        self.damaged = 0

    def read(self) -> list[Record]:
        """What was written since the last call; see :class:`~epochtop.formats.records.Follower`."""
        paths = state_files(self._folder)
        if not paths:
            return []
        key = (str(paths[-1]), modified_time(paths[-1]))
        if key == self._seen:
            return []
        state = _state(paths[-1])
        if state is None:
            return []  # being written, or damaged: the next version is complete
        self._seen = key
        self._add(state)
        return self._collector.take()

    def modified(self) -> float:
        """Unix time of the newest state."""
        return modified_time(*state_files(self._folder))

    def close(self) -> None:
        """Nothing stays open."""

    def _add(self, state: dict[str, Any]) -> None:
        config = {name: state[name] for name in SETTINGS if isinstance(state.get(name), (int, float))}
        if config != self._config:
            self._config = config
            self._collector.put(Configuration(config))
        history = [entry for entry in state.get("log_history") or [] if isinstance(entry, dict)]
        before = len(self._history)
        if history[:before] != self._history:
            first = next(
                (place for place, (new, old) in enumerate(zip(history, self._history)) if new != old),
                min(len(history), before),
            )
            self._collector.put(Restart(_step(self._history[first])))
            before = first
        for entry in history[before:]:
            step = _step(entry)
            for name, value in entry.items():
                amount = number(value)
                if name != "step" and amount is not None and not isinstance(value, str):
                    self._collector.add(series_name(name), step, NAN, amount)
        self._history = history


def _step(entry: dict[str, Any]) -> int:
    step = entry.get("step")
    return int(step) if isinstance(step, (int, float)) and abs(step) < 1 << 62 else 0


def _state(path: Path) -> dict[str, Any] | None:
    """The contents of a state file; None while it is incomplete. Raises OSError."""
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_BYTES:
                return None
            state = json.loads(file.read())
    except (ValueError, RecursionError, FileNotFoundError):
        return None
    return state if isinstance(state, dict) and isinstance(state.get("log_history"), list) else None
