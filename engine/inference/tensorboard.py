"""The log of a run as TensorBoard scalars: the loss of every step and every evaluation, at the time of recording."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from epochtop.engine.protocol.events import Evaluated, Event, Started
from epochtop.engine.runs.reader import BadLine, Follower, SkippedLines, read_record
from epochtop.engine.runs.series import LEARNING_RATE, TRAIN_LOSS, SeriesTranslator, SeriesWindow
from epochtop.engine.terminal.output import write_error

SUFFIX = ".epochtop"
"""Suffix of event files that this module writes."""


TAGS = {TRAIN_LOSS: "loss/train", LEARNING_RATE: "learning_rate"}
"""Tags of series."""


class Writer(Protocol):
    """The part of `torch.utils.tensorboard.SummaryWriter` that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, walltime: float) -> None:
        """Add a value to a curve; `walltime` is Unix time in seconds."""

    def add_text(self, tag: str, text_string: str, global_step: int, walltime: float) -> None:
        """Add a text in Markdown."""


class _Curves:
    """Adds events to a writer; training time becomes wall time."""

    def __init__(self, writer: Writer, created: float) -> None:
        self._writer, self._started_at = writer, created
        self._translator = SeriesTranslator()
        self._seconds, self._metric = 0.0, "metric"

    def add(self, event: Event) -> None:
        windows = self._translator.windows(event)
        match event:
            case Started():
                self._started_at, self._metric = event.time, event.metric
            case Evaluated():
                self._evaluated(event)
            case _:
                for window in windows:
                    if window.name in TAGS:
                        self._values(window)

    def _values(self, window: SeriesWindow) -> None:
        """Steps are spread evenly over the time of their window."""
        since = min(self._seconds, window.seconds) if window.count > 1 else window.seconds
        times = np.linspace(since, window.seconds, window.count + 1)[1:] + self._started_at
        for step, value, time in zip(window.step_numbers(), window.numbers(), times.tolist(), strict=True):
            self._writer.add_scalar(TAGS[window.name], value, step, time)
        self._seconds = window.seconds

    def _evaluated(self, event: Evaluated) -> None:
        time = self._started_at + event.seconds
        self._writer.add_scalar("loss/test", math.nan if event.loss is None else event.loss, event.step, time)
        for name, value in (event.metrics or {self._metric: event.metric}).items():
            if value is not None:
                self._writer.add_scalar(f"metric/{name.replace(' ', '_')}", value, event.step, time)


def write(run: Path, writer: Writer) -> None:
    """Write the log of `run`: `loss/train`, `loss/test`, `metric/…`, `learning_rate`, and the spec as text."""
    record = read_record(run)
    spec = msgspec.json.format(msgspec.json.encode(record.spec)).decode()
    writer.add_text("run", f"{run.name}\n\n```json\n{spec}\n```", 0, record.created)
    curves, follower, skipped = _Curves(writer, record.created), Follower(run), SkippedLines()
    try:
        for event in follower.read_all():
            if isinstance(event, BadLine):
                if report := skipped.report(event):
                    write_error(f"epochtop: {run}: {report}\n")
            else:
                curves.add(event)
    finally:
        follower.close()
