"""The log of a run as TensorBoard scalars: the loss of every step and every evaluation, at the time of recording."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from epochtop.engine.protocol.events import Evaluated, Losses, Started
from epochtop.engine.runs.reader import BadLine, Follower, read_record
from epochtop.engine.terminal.output import write_error

SUFFIX = ".epochtop"
"""Suffix of event files that this module writes."""


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
        self._seconds, self._metric = 0.0, "metric"

    def add(self, event: object) -> None:
        match event:
            case Started():
                self._started_at, self._metric = event.time, event.metric
            case Losses():
                self._losses(event)
            case Evaluated():
                self._evaluated(event)
            case _:
                pass

    def _losses(self, event: Losses) -> None:
        """Steps are spread evenly over the time of their window."""
        values = np.frombuffer(event.values, dtype="<f4").tolist()
        times = np.linspace(self._seconds, event.seconds, len(values) + 1)[1:] + self._started_at
        for step, (value, time) in enumerate(zip(values, times.tolist(), strict=True), start=event.first_step):
            self._writer.add_scalar("loss/train", value, step, time)
        self._seconds = event.seconds
        if event.learning_rate is not None and values:
            last = event.first_step + len(values) - 1
            self._writer.add_scalar("learning_rate", event.learning_rate, last, self._started_at + event.seconds)

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
    curves, follower = _Curves(writer, record.created), Follower(run)
    try:
        for event in follower.read_all():
            if isinstance(event, BadLine):
                write_error(f"epochtop: events.jsonl, line {event.number} is skipped: {event.reason}\n")
            else:
                curves.add(event)
    finally:
        follower.close()
