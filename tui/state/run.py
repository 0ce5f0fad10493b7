"""A run as its events tell it: one fold, used for live, re-attached and finished runs alike.

Takes events in, gives figures and sentences out; knows no widget and no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from epochtop.engine.protocol.events import (
    AnyEvent,
    Changed,
    Continued,
    Evaluated,
    Failed,
    Finished,
    Losses,
    Mapped,
    Measured,
    Noted,
    Paused,
    Resumed,
    RunRecord,
    Saved,
    Started,
    Switched,
    Telemetry,
    Warned,
)
from epochtop.engine.protocol.quantities import format_number, format_seconds, plural
from epochtop.engine.runs.index import last_loss
from epochtop.engine.runs.reader import BadLine
from epochtop.tui.state.telemetry import RunTelemetry, planned_and_peak

State = Literal["starting", "running", "paused", "finished", "stopped", "diverged", "failed", "died"]

RATE_WINDOW_S = 2.0
"""Steps per second are a mean over the last windows that span this training time."""


class RunState:
    """What is known of one run. `apply` every event in order."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record
        self.state: State = "starting"
        self.started: Started | None = None
        self.executor = ""
        """How steps are executed now."""
        self.switched: Switched | None = None
        """When that changed last, and why."""
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self.step = 0
        self.seconds = 0.0
        self.loss: float | None = None
        self.test_loss: float | None = None
        self.test_metric: float | None = None
        self.evaluated: Evaluated | None = None
        """The newest evaluation."""
        self.mapped: Mapped | None = None
        """The newest decision boundary, of a classifier of two features."""
        self.reads = 0
        self.waited_s = 0.0
        self.learning_rate = record.spec.learning_rate if record else 0.0
        self.refresh_ms = float(record.spec.refresh_ms) if record else 0.0
        self.death = ""
        self.telemetry = RunTelemetry()
        self._recent: deque[tuple[float, int]] = deque(maxlen=512)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("finished", "stopped", "diverged", "failed", "died")

    @property
    def can_go_on(self) -> bool:
        """Whether it ended before its last step and an engine may take it up again."""
        return self.state in ("stopped", "failed", "died")

    @property
    def total_steps(self) -> int:
        """Steps asked for; 0 while unknown."""
        return self.started.steps if self.started else 0

    @property
    def metric_name(self) -> str:
        """The headline metric as people call it: `accuracy`, `R²`, `bits per character`, or a task's own."""
        name = self.started.metric if self.started else "accuracy"
        return "R²" if name == "r2" else name.replace("_", " ")

    @property
    def held_out(self) -> str:
        """What the evaluated rows are called."""
        return self.started.eval_split if self.started else "test"

    @property
    def steps_per_second(self) -> float | None:
        """Of the whole run when it is over, else of the last two seconds."""
        if self.finished is not None:
            return self.finished.steps_per_second
        if len(self._recent) < 2:
            return None
        (first_s, first_step), (last_s, last_step) = self._recent[0], self._recent[-1]
        return (last_step - first_step) / (last_s - first_s) if last_s > first_s else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the last step at the present speed; None where that is unknown."""
        rate = self.steps_per_second
        return (self.total_steps - self.step) / rate if rate and not self.over else None

    def apply(self, event: AnyEvent | BadLine) -> str | None:
        """Take in what happened. Returns a line for the log, or None for what is no news."""
        match event:
            case Losses():
                self._take_losses(event)
                return None
            case Evaluated():
                self.test_loss, self.test_metric = event.loss, event.metric
                self.evaluated = event
                return f"step {event.step:,}: {self.held_out} loss {format_number(event.loss)}{self._figures(event)}"
            case Mapped():
                self.mapped = event
                return None
            case Started():
                self.started, self.state, self.executor = event, "running", event.executor
                return self._beginning(event)
            case Finished():
                self._end(event)
                return self.verdict()
            case Failed():
                self.failed, self.state = event, "failed"
                return self.verdict()
            case Continued():
                return self._go_on(event)
            case _:
                return self._small_news(event)

    def died(self, how: str) -> str:
        """The engine is gone without a last word. Returns a line for the log."""
        self.state, self.death = "died", how
        return self.verdict()

    def verdict(self) -> str:
        """One line on how the run ended; what it is doing while it goes on."""
        if self.failed is not None:
            return " · ".join(
                filter(None, (f"failed at step {self.failed.step:,}", self.failed.message, self.failed.advice))
            )
        if self.state == "died":
            return f"the engine died after step {self.step:,}: {self.death}"
        if self.finished is None:
            return self.state
        return self._summary(self.finished)

    def afterwards(self) -> list[str]:
        """What a run that ended tells of its device: how busy it was, and the memory it held."""
        end, busy = self.finished, self.telemetry.summary()
        memory = planned_and_peak(end.planned_memory_bytes, end.peak_memory_bytes) if end else ""
        return list(filter(None, (f"device: {busy}" if busy else "", f"memory: {memory}" if memory else "")))

    def _take_losses(self, event: Losses) -> None:
        self.step = event.first_step + len(event.values) // 4
        self.seconds, self.reads, self.waited_s = event.seconds, event.reads, event.waited
        self.loss = last_loss(event)
        self._recent.append((event.seconds, self.step))
        while len(self._recent) > 2 and self._recent[-1][0] - self._recent[1][0] > RATE_WINDOW_S:
            self._recent.popleft()

    def _beginning(self, event: Started) -> str:
        text = (
            f"started on {event.device} ({event.device_name}), {event.executor}, "
            f"{plural(event.threads, 'thread')}: {plural(event.steps, 'step')}, {plural(event.rows, 'row')}, "
            f"{plural(event.parameters, 'parameter')}"
        )
        return "\n".join((text, *event.notes))

    def _end(self, event: Finished) -> None:
        self.finished, self.state = event, event.outcome
        self.step, self.seconds = event.steps, event.seconds
        self.reads, self.waited_s = event.device_reads, event.waited_seconds
        self.test_loss, self.test_metric = event.test_loss, event.test_metric

    def _go_on(self, event: Continued) -> str:
        self.finished, self.failed, self.death, self.state = None, None, "", "running"
        self.executor = event.executor or self.executor
        self._recent.clear()
        again = event.recorded - event.step
        repeated = f", repeating {plural(again, 'step')} that were not in a checkpoint" if again else ""
        why = f" ({event.why})" if event.why else ""
        return f"goes on from step {event.step:,} on {event.device}{repeated}{why}"

    def _figures(self, event: Evaluated) -> str:
        """All metrics of an evaluation, the headline first."""
        main = self.started.metric if self.started else "accuracy"
        metrics = event.metrics or {main: event.metric}  # logs of older versions have the headline alone
        names = sorted(metrics, key=lambda name: name != main)
        shown = ("R²" if name == "r2" else name.replace("_", " ") for name in names)
        return "".join(f", {title} {format_number(metrics[name])}" for title, name in zip(shown, names, strict=True))

    def _summary(self, end: Finished) -> str:
        took = f"{plural(end.steps, 'step')} in {format_seconds(end.seconds)}"
        if end.outcome == "diverged":
            return f"diverged: {end.reason} · {end.advice}"
        parts = [f"{end.outcome}: {took}", f"loss {format_number(end.final_loss)}"]
        if end.test_loss is not None:
            parts.append(f"test {format_number(end.test_loss)}")
            parts += [f"{self.metric_name} {format_number(end.test_metric)}"] if self.metric_name else []
        if end.outcome == "stopped":
            parts.append(end.reason)
        if end.advice:
            parts.append(end.advice)
        return " · ".join(parts)

    def _small_news(self, event: AnyEvent | BadLine) -> str | None:
        match event:
            case Telemetry():
                self.telemetry.add(event)
                return None
            case Paused():
                self.state = "paused"
                return f"paused before step {event.step:,}{_by(event.by)}"
            case Resumed():
                self.state = "running"
                return f"resumed with step {event.step:,}{_by(event.by)}"
            case Changed():
                return self._changed(event)
            case Saved():
                return f"saved checkpoint {event.kind!r} of step {event.step:,}"
            case Switched():
                self.executor, self.switched = event.executor, event
                if event.executor == "eager":
                    return event.why
                return f"{event.executor} takes the steps from {event.step:,} on: {event.why}"
            case Noted():
                return event.message
            case Warned():
                return f"warning: {event.message}"
            case BadLine():
                return f"events.jsonl, line {event.number} cannot be read and is skipped: {event.reason}"
            case Measured():
                return ", ".join(f"{name} {value}" for name, value in event.values.items())
            case _:
                return None

    def _changed(self, event: Changed) -> str:
        if event.field == "learning_rate":
            self.learning_rate = event.value
        elif event.field == "refresh_ms":
            self.refresh_ms = event.value
        return f"{event.field} is {event.value:g} from step {event.step:,} on{_by(event.by)}"


def _by(who: str) -> str:
    return f", by {who}" if who else ""
