"""The title and the status line. Fixed widths, repainted only when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from epochtop.engine.protocol.quantities import UNKNOWN, format_fixed_width, format_rate, format_seconds
from epochtop.engine.runs.families import EPOCHS
from epochtop.engine.terminal.plain import plain_line
from epochtop.tui.cells.plain import PlainText
from epochtop.tui.state.run import RunState

if TYPE_CHECKING:
    from epochtop.tui.state.experiment import ExperimentState

MARKS = {
    "starting": "○",
    "running": "●",
    "paused": "‖",
    "finished": "✓",
    "stopped": "■",
    "diverged": "✗",
    "unsaved": "✗",
    "failed": "✗",
    "died": "✗",
}


class StatusLine(PlainText):
    """One row, repainted only when its text changes."""

    DEFAULT_CSS = """
    Line { height: 1; width: 1fr; }
    """

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._shown = ""

    def put(self, text: Text | str) -> None:
        """Show `text` if it differs."""
        key = text.markup if isinstance(text, Text) else text
        if key != self._shown:
            self._shown = key
            self.show(text, layout=False)


def title(state: RunState | None, run: str, host: str, torch: str, width: int) -> Text:
    """The title: program, run and state on the left, host and torch on the right."""
    left = Text(" epochtop", style="bold")
    if state is not None:
        left.append(f" · {plain_line(run)} · ", style="not bold").append(
            f"{state.state} {MARKS[state.state]}", style="bold"
        )
    return _across(left, host, torch, width)


def _across(left: Text, host: str, torch: str, width: int) -> Text:
    right = plain_line(f"{host} · {torch} " if torch else f"{host} ")
    space = width - left.cell_len - len(right)
    if space < 1:
        left.truncate(max(0, width - len(right) - 1), overflow="ellipsis")
        space = width - left.cell_len - len(right)
    return left.append(" " * max(0, space)).append(right, style="not bold dim")


def lab_title(state: ExperimentState | None, host: str, torch: str, width: int) -> Text:
    """The title of the Lab page."""
    left = Text(" epochtop · lab", style="bold")
    if state is not None:
        left.append(f" · {plain_line(state.name)} · ", style="not bold").append(
            f"{state.outcome} {MARKS[state.outcome]}", style="bold"
        )
    return _across(left, host, torch, width)


def status(state: RunState | None, idle: str, width: int, silence: str = "") -> str:
    """The status line: progress, speed, time left, device reads, refresh.

    `silence` says for how long and why a run that trains has recorded nothing; its speed is unknown then.
    """
    if state is None:
        return f" {plain_line(idle)}"
    if state.over:
        line = f" {plain_line(state.verdict())}"
        return _ended(line, width)
    if state.script is not None:
        return _script_status(state, width, silence)
    total = state.total_steps
    if not total:
        return " preparing the data …"
    if silence:
        line = f" step {state.step:,} of {total:,}  {UNKNOWN} steps/s  {plain_line(silence)}"
        return _ended(line, width)
    share = state.step / total
    progress = f" step {state.step:>{len(f'{total:,}')},} of {total:,}"
    speed = "paused" if state.state == "paused" else format_rate(state.steps_per_second)
    left = f"{format_seconds(state.remaining_s)} left" if state.remaining_s is not None else f"{UNKNOWN} left"
    parts = [f"{share:4.0%}", f"{speed:>13}", f"{left:>12}"]
    if state.started and state.started.steps_per_epoch > 1:
        parts.insert(1, f"epoch {state.step / state.started.steps_per_epoch:,.1f}")
    waited = f"{1000 * state.waited_s:.1f} ms"
    how = f" · {state.executor}" if state.executor not in ("", "eager") else ""
    long, short = (
        f"reads {state.reads:,} · waited {waited} · every {state.refresh_ms:g} ms{how}",
        f"reads {state.reads:,} · {waited}{how}",
    )
    tail = next((text for text in (long, short, "") if len("  ".join([progress, *parts, text])) <= width), "")
    line = "  ".join([progress, *parts, tail])
    bar = _bar(share, min(24, width - len(line) - 2))
    return "  ".join([progress, bar, *parts, tail] if len(bar) >= 4 else [progress, *parts, tail])[:width]


def _ended(line: str, width: int) -> str:
    """The line, with "…" for what does not fit."""
    return line if len(line) <= width else line[: width - 1] + "…"


def _script_status(state: RunState, width: int, silence: str = "") -> str:
    """Step, speed, and the last values of as many series as fit, the main one first. `silence` as for :func:`status`."""
    total, names = state.total_steps, list(state.last_values)
    if not names:
        line = " the script has logged no value yet" + (f"  {plain_line(silence)}" if silence else "")
        return _ended(line, width)
    parts = [f"step {state.step - 1:,}"]
    if total:
        step = state.script.step_count(state.step) if state.script is not None else state.step
        parts = [f"step {step:>{len(f'{total:,}')},} of {total:,}", f"{step / total:4.0%}"]
    if state.epoch is not None:
        parts.append(f"epoch {state.epoch:,.1f}")
    if silence:
        line = " " + "  ".join([*parts, f"{UNKNOWN} steps/s", plain_line(silence)])
        return _ended(line, width)
    parts.append(f"{'paused' if state.state == 'paused' else format_rate(state.steps_per_second):>13}")
    if total and state.remaining_s is not None:
        parts.append(f"{format_seconds(state.remaining_s):>10} left")
    line = " " + "  ".join(parts)
    for name in sorted(names, key=lambda name: (name != state.main, _rank_of_group(name))):
        text = f"  {plain_line(name)} {format_fixed_width(state.last_values[name]).strip()}"
        if len(line) + len(text) > width:
            break
        line += text
    return line[:width]


def _rank_of_group(name: str) -> int:
    """Figures of the machine and counters come last."""
    return 1 if name.startswith(("system/", "time/")) or name in EPOCHS else 0


def _bar(share: float, width: int) -> str:
    width = max(0, width)
    full = round(share * width)
    return "█" * full + "░" * (width - full)
