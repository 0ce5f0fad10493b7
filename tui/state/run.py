"""The state of a run, folded from its events: the same for live, reattached and finished runs.

Takes events, gives figures and sentences. Never imports a widget, never reads a clock.
"""

from __future__ import annotations

from collections import deque
from math import isnan
from typing import Literal

from epochtop.engine.protocol.events import (
    ANALYSIS_FAILED,
    COMMAND_IGNORED,
    SETTING_REJECTED,
    Analyzed,
    AnyEvent,
    Changed,
    Continued,
    Evaluated,
    Failed,
    Finished,
    Logged,
    Losses,
    Mapped,
    Measured,
    Noted,
    Paused,
    Resumed,
    Saved,
    ScriptEnded,
    ScriptStarted,
    Started,
    Switched,
    Telemetry,
    Warned,
)
from epochtop.engine.protocol.quantities import format_number, format_seconds, plural
from epochtop.engine.protocol.record import RunRecord
from epochtop.engine.runs.families import EPOCHS, main_series
from epochtop.engine.runs.reader import BadLine, SkippedLines
from epochtop.engine.runs.series import LEARNING_RATE, SeriesTranslator, SeriesWindow
from epochtop.tui.state.column_lines import notable_columns
from epochtop.tui.state.lines import LineKind, MessageLine
from epochtop.tui.state.script import ScriptState
from epochtop.tui.state.telemetry import RunTelemetry, planned_and_peak

State = Literal["starting", "running", "paused", "finished", "stopped", "diverged", "unsaved", "failed", "died"]

REFUSALS = (ANALYSIS_FAILED, COMMAND_IGNORED, SETTING_REJECTED)
"""Codes of warnings that answer a command."""
RATE_WINDOW_S = 2.0
"""Steps per second are a mean over the last windows that span this training time."""


class RunState:
    """One run. Call `apply` with every event in order."""

    def __init__(self, record: RunRecord | None = None) -> None:
        self.record = record
        self.script = ScriptState(record.script) if record is not None and record.script is not None else None
        """The script that records the run; None if the engine trains."""
        self.state: State = "starting"
        self.started: Started | None = None
        self.executor = ""
        """The current executor."""
        self.switched: Switched | None = None
        """The last change of executor."""
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self.step = 0
        self.seconds = 0.0
        self.last_values: dict[str, float] = {}
        """Last value of every series, by name."""
        self.main = ""
        """Name of the series that stands for the run; empty before the first value."""
        self.loss: float | None = None
        """Last value of the main series."""
        self.test_loss: float | None = None
        self.test_metric: float | None = None
        self.evaluated: Evaluated | None = None
        """The newest evaluation."""
        self.mapped: Mapped | None = None
        """The newest decision boundary; only classifiers of two features have one."""
        self.analyzed: Analyzed | None = None
        """The newest analysis of a script's steps."""
        self.refusals: list[str] = []
        """Why commands had no effect, oldest first."""
        self.reads = 0
        self.waited_s = 0.0
        self.learning_rate = record.spec.learning_rate if record else 0.0
        self.refresh_ms = float(record.spec.refresh_ms) if record else 0.0
        self.death = ""
        """How the engine ended; empty unless it died."""
        self.output_tail = ""
        """The end of what the dead engine printed."""
        self.telemetry = RunTelemetry()
        self._translator = SeriesTranslator()
        self._skipped = SkippedLines()
        self._recent: deque[tuple[float, int]] = deque(maxlen=512)

    @property
    def name(self) -> str:
        """The user's name for the run; empty if it has none."""
        return self.record.name if self.record else ""

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.state in ("finished", "stopped", "diverged", "unsaved", "failed", "died")

    @property
    def can_resume(self) -> bool:
        """Whether the run ended before its last step, so that an engine can resume it."""
        return self.script is None and self.state in ("stopped", "unsaved", "failed", "died")

    @property
    def total_steps(self) -> int:
        """Steps of the complete run; 0 while unknown."""
        if self.script is not None:
            return self.script.total_steps
        return self.started.steps if self.started else 0

    @property
    def metric_name(self) -> str:
        """Display name of the headline metric: `accuracy`, `R²`, `bits per character`, or a custom one."""
        name = self.started.metric if self.started else "accuracy"
        return "R²" if name == "r2" else name.replace("_", " ")

    @property
    def held_out(self) -> str:
        """Name of the evaluated rows: `test`, `validation` or `train`."""
        return self.started.eval_split if self.started else "test"

    @property
    def steps_per_second(self) -> float | None:
        """Mean over the run once it is over, else over the last two seconds."""
        if self.finished is not None:
            return self.finished.steps_per_second
        if len(self._recent) < 2:
            return None
        (first_s, first_step), (last_s, last_step) = self._recent[0], self._recent[-1]
        return (last_step - first_step) / (last_s - first_s) if last_s > first_s else None

    @property
    def step_s(self) -> float:
        """Seconds between two steps at the current speed; 0 if unknown."""
        rate = self.steps_per_second
        return 1 / rate if rate else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the last step at the current speed; None if unknown."""
        rate = self.steps_per_second
        return max(0, self.total_steps - self.step) / rate if rate and not self.over and self.total_steps else None

    @property
    def epoch(self) -> float | None:
        """Epochs so far; None if the run has none."""
        if self.started is not None and self.started.steps_per_epoch > 1:
            return self.step / self.started.steps_per_epoch
        return next((self.last_values[name] for name in EPOCHS if name in self.last_values), None)

    def apply(self, event: AnyEvent | BadLine) -> list[MessageLine]:
        """Update the state. Returns lines for the log, none if there is no news."""
        if not isinstance(event, BadLine):
            self._add_windows(event, self._translator.windows(event))
        match event:
            case Losses() | Logged():
                return []
            case Evaluated():
                self.test_loss, self.test_metric = event.loss, event.metric
                self.evaluated = event
                text = f"step {event.step:,}: {self.held_out} loss {format_number(event.loss)}{self._metrics(event)}"
                return [MessageLine(text, "evaluation")]
            case Mapped():
                self.mapped = event
                return []
            case Started():
                self.started, self.state, self.executor = event, "running", event.executor
                lines = (*event.notes, *notable_columns(event.columns))
                return [MessageLine(self._start_summary(event)), *map(MessageLine, lines)]
            case Finished():
                self._finish(event)
                kind: LineKind = "failure" if event.outcome in ("diverged", "unsaved") else "news"
                return [*map(MessageLine, self.device_summary()), MessageLine(self.verdict(), kind)]
            case Failed():
                self.failed, self.state = event, "failed"
                traceback = event.traceback.rstrip() if self.script is not None else ""
                return [MessageLine(text, "failure") for text in (traceback, self.verdict()) if text]
            case Continued():
                return [MessageLine(self._resume(event), "resumed")]
            case _:
                return self._apply_other(event)

    def died(self, how: str, tail: str = "") -> list[MessageLine]:
        """Mark the run as died: its engine is gone without a final event. `tail` is the end of its output."""
        self.state, self.death, self.output_tail = "died", how, tail
        output = [MessageLine(f"output.log | {text}", "failure") for text in tail.splitlines()]
        return [*output, MessageLine(self.verdict(), "failure")]

    def verdict(self) -> str:
        """One line on how the run ended; its state while it is running."""
        if self.failed is not None:
            return " · ".join(
                filter(None, (f"failed at step {self.failed.step:,}", self.failed.message, self.failed.advice))
            )
        process = "engine" if self.script is None else "script"
        if self.state == "died":
            return f"the {process} died after step {self.step:,}: {self.death}"
        if self.script is not None and self.script.ended is not None:
            return self.script.verdict()
        if self.finished is None:
            return self.state
        return self._summary(self.finished)

    def device_summary(self) -> list[str]:
        """After the end: how busy the device was, and how much memory the run used."""
        end, busy = self.finished, self.telemetry.summary()
        memory = planned_and_peak(end.planned_memory_bytes, end.peak_memory_bytes) if end else ""
        return list(filter(None, (f"device: {busy}" if busy else "", f"memory: {memory}" if memory else "")))

    def _add_windows(self, event: AnyEvent, windows: list[SeriesWindow]) -> None:
        new = [window.name for window in windows if window.name not in self.last_values]
        self.last_values.update((window.name, window.last) for window in windows)
        if new:
            self.main = main_series(self.last_values)
        if windows and isinstance(event, Losses | Logged):
            self._add_progress(event, windows)

    def _add_progress(self, event: Losses | Logged, windows: list[SeriesWindow]) -> None:
        """Take the step and the time of a window that was recorded while training."""
        stop = windows[0].last_step + 1  # all windows of these events have the same steps
        self.seconds = event.seconds
        self.reads = self.reads if event.reads is None else event.reads
        self.waited_s = self.waited_s if event.waited is None else event.waited
        if self.script is not None:
            self.learning_rate = self.last_values.get(LEARNING_RATE, self.learning_rate)
        if all(window.name != self.main for window in windows):
            self.step = max(self.step, stop)
            return
        if stop < self.step:  # steps are taken again
            self._recent.clear()
        self.step, loss = stop, self.last_values[self.main]
        self.loss = None if isnan(loss) else loss
        self._recent.append((event.seconds, self.step))
        while len(self._recent) > 2 and self._recent[-1][0] - self._recent[1][0] > RATE_WINDOW_S:
            self._recent.popleft()

    @staticmethod
    def _start_summary(event: Started) -> str:
        return (
            f"started on {event.device} ({event.device_name}), {event.executor}, "
            f"{plural(event.threads, 'thread')}: {plural(event.steps, 'step')}, {plural(event.rows, 'row')}, "
            f"{plural(event.parameters, 'parameter')}"
        )

    def _finish(self, event: Finished) -> None:
        self.finished, self.state = event, event.outcome
        self.step, self.seconds = event.steps, event.seconds
        self.reads, self.waited_s = event.device_reads, event.waited_seconds
        self.test_loss, self.test_metric = event.test_loss, event.test_metric

    def _resume(self, event: Continued) -> str:
        self.finished, self.failed, self.state = None, None, "running"
        self.death, self.output_tail = "", ""
        self.executor = event.executor or self.executor
        self._recent.clear()
        again = event.recorded - event.step
        repeated = f"; repeats the {plural(again, 'step')} after the checkpoint" if again else ""
        why = f" ({event.why})" if event.why else ""
        return f"resumed from step {event.step:,} on {event.device}{repeated}{why}"

    def _metrics(self, event: Evaluated) -> str:
        """All metrics of an evaluation, the headline metric first."""
        main = self.started.metric if self.started else "accuracy"
        metrics = event.metrics or {main: event.metric}  # logs of older versions have the headline alone
        names = sorted(metrics, key=lambda name: name != main)
        titles = ("R²" if name == "r2" else name.replace("_", " ") for name in names)
        return "".join(f", {title} {format_number(metrics[name])}" for title, name in zip(titles, names, strict=True))

    def _summary(self, end: Finished) -> str:
        took = f"{plural(end.steps, 'step')} in {format_seconds(end.seconds)}"
        if end.outcome in ("diverged", "unsaved"):
            return f"{end.outcome}: {end.reason} · {end.advice}"
        parts = [f"{end.outcome}: {took}", f"loss {format_number(end.final_loss)}"]
        if end.test_loss is not None:
            parts.append(f"test {format_number(end.test_loss)}")
            parts += [f"{self.metric_name} {format_number(end.test_metric)}"] if self.metric_name else []
        if end.outcome == "stopped":
            parts.append(end.reason)
        if end.advice:
            parts.append(end.advice)
        return " · ".join(parts)

    def _apply_script(self, script: ScriptState, event: AnyEvent) -> list[MessageLine] | None:
        """Take an event that only scripts record; None if it is another one."""
        match event:
            case ScriptStarted():
                self.failed, self.state, self.death, self.output_tail = None, "running", "", ""
                self._recent.clear()
            case ScriptEnded():
                self.state, self.seconds = event.outcome, event.seconds
            case Changed():
                script.changed(event.field, event.value)
            case _:
                pass
        return script.apply(event)

    def _apply_other(self, event: AnyEvent | BadLine) -> list[MessageLine]:
        if self.script is not None and not isinstance(event, BadLine):
            lines = self._apply_script(self.script, event)
            if lines is not None:
                return lines
        match event:
            case Telemetry():
                self.telemetry.add(event)
                return []
            case Paused():
                self.state = "paused"
                return [MessageLine(f"paused before step {event.step:,}{_by(event.by)}")]
            case Resumed():
                self.state = "running"
                return [MessageLine(f"resumed at step {event.step:,}{_by(event.by)}")]
            case Switched():
                self.executor, self.switched = event.executor, event
                eager = event.executor == "eager"
                text = event.why if eager else f"{event.executor} from step {event.step:,}: {event.why}"
                return [MessageLine(text)] if text else []
            case Changed():
                return [MessageLine(self._change(event))]
            case Saved():
                return [MessageLine(f"saved checkpoint {event.kind!r} of step {event.step:,}")]
            case Noted():
                return [MessageLine(event.message)]
            case Warned():
                if event.code in REFUSALS:
                    self.refusals.append(event.message)
                return [MessageLine(f"warning: {event.message}", "warning")]
            case BadLine():
                report = self._skipped.report(event)
                return [MessageLine(report)] if report else []
            case Analyzed():
                self.analyzed = event
                return [
                    MessageLine(
                        f"measured {plural(event.steps, 'step')} of {event.step_ms:.3g} ms; press a to see them"
                    )
                ]
            case Measured():
                return [MessageLine(", ".join(f"{name} {value}" for name, value in event.values.items()))]
            case _:
                return []

    def _change(self, event: Changed) -> str:
        if event.field == "learning_rate":
            self.learning_rate = event.value
        elif event.field == "refresh_ms":
            self.refresh_ms = event.value
        return f"{event.field} is {event.value:g} from step {event.step:,}{_by(event.by)}"


def _by(who: str) -> str:
    return f", by {who}" if who else ""
