"""What a viewer knows about a script beyond its series: configuration, settings, how it ended.

Takes events, gives figures and sentences. Never imports a widget, never reads a clock.
"""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

from msgspec.structs import replace

from epochtop.engine.protocol.events import (
    AnyEvent,
    Configured,
    ScriptEnded,
    ScriptStarted,
    SettingDeclared,
    Summarized,
)
from epochtop.engine.protocol.fields import show
from epochtop.engine.protocol.quantities import format_number, format_seconds, plural
from epochtop.engine.protocol.record import ScriptRecord
from epochtop.engine.protocol.spec import Invalid
from epochtop.tui.state.lines import MessageLine

TOTALS = ("max_steps", "total_steps", "num_training_steps", "train_steps", "num_steps", "max_iters", "n_steps")
"""Names of configuration entries that say how many steps a script will take."""


class ScriptState:
    """A user's script that records a run."""

    def __init__(self, record: ScriptRecord | None = None) -> None:
        self.record = record or ScriptRecord()
        self.config: dict[str, Any] = dict(self.record.config)
        """JSON values by name, with changes after the start."""
        self.summary: dict[str, Any] = {}
        self.settings: dict[str, SettingDeclared] = {}
        """Settings that viewers may change, by name, with their current values."""
        self.ended: ScriptEnded | None = None
        self.starts = 0
        """How often the script has begun to record."""

    @property
    def total_steps(self) -> int:
        """Steps that the script will take, by its configuration; 0 if unknown."""
        for name, value in self.config.items():
            if name.rpartition("/")[2].lower() in TOTALS and type(value) is int and value > 0:
                return value
        return 0

    def step_count(self, steps: int) -> int:
        """The highest step plus 1, without step 0 if the script counts from 1, which its total tells."""
        total = self.total_steps
        return total if total and steps == total + 1 else steps

    def apply(self, event: AnyEvent) -> list[MessageLine] | None:
        """Update the state. Returns lines for the log; None if the event is not about scripts."""
        match event:
            case ScriptStarted():
                self.ended = None
                self.starts += 1
                if self.starts > 1:
                    process = f" by process {event.pid}" if event.pid else ""
                    return [MessageLine(f"continued from step {event.step:,}{process}", "resumed")]
                return [MessageLine(self._start_summary(event))]
            case Configured():
                new = {name: value for name, value in event.values.items() if self.config.get(name) != value}
                self.config |= new
                return [MessageLine(f"config: {_pairs(new)}")] if new else []
            case Summarized():
                self.summary |= event.values
                return []
            case SettingDeclared():
                known, self.settings[event.name] = self.settings.get(event.name), event
                text = f"setting {event.name} is {event.value:g}{_bounds(event)}; press r to change it"
                return [] if known is not None else [MessageLine(text)]
            case ScriptEnded():
                self.ended = event
                dropped = f"{plural(event.dropped, 'value')} dropped, because the disk refused them"
                return [*([MessageLine(dropped, "warning")] if event.dropped else []), MessageLine(self.verdict())]
            case _:
                return None

    def changed(self, name: str, value: float) -> None:
        """A setting has a new value."""
        if name in self.settings:
            self.settings[name] = replace(self.settings[name], value=value)

    def setting_texts(self) -> dict[str, str]:
        """The current values of the settings as text, by name."""
        return {name: show(setting.value) for name, setting in self.settings.items()}

    def parse_setting(self, name: str, text: str) -> float:
        """The value that `text` gives a setting. Raises Invalid for a value that the script would not accept."""
        setting = self.settings[name]
        try:
            value = float(text)
        except ValueError:
            value = nan
        low, high = setting.low, setting.high
        if not isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
            raise Invalid(name, f"{text.strip()!r} is not a number{_bounds(setting)}")
        return value

    def verdict(self) -> str:
        """One line on how the script ended; empty while it runs."""
        end = self.ended
        if end is None:
            return ""
        status = f"exit status {end.exit_status}" if end.exit_status else ""
        summary = _pairs(self.summary)
        took = f" in {format_seconds(end.seconds)}" if end.seconds else ""  # some logs have no times
        what = f"{end.outcome}: {plural(self.step_count(end.steps), 'step')}{took}"
        return " · ".join(filter(None, (what, end.reason, status, summary)))

    def _start_summary(self, event: ScriptStarted) -> str:
        if not event.pid:
            return f"opened the log of another tool in {self.record.working_folder}"
        command = " ".join(self.record.command)
        where = f" in {self.record.working_folder}" if self.record.working_folder else ""
        commit = f", commit {self.record.git.commit[:10]}" if self.record.git is not None else ""
        dirty = " with changes" if self.record.git is not None and self.record.git.dirty else ""
        return f"started: {command or 'a script'}{where}, process {event.pid}{commit}{dirty}"


def _bounds(setting: SettingDeclared) -> str:
    match setting.low, setting.high:
        case None, None:
            return ""
        case low, None:
            return f", at least {low:g}"
        case None, high:
            return f", at most {high:g}"
        case low, high:
            return f", {low:g} to {high:g}"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {format_number(value) if isinstance(value, float) else value}" for name, value in values.items()
    )
