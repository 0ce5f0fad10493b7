"""Training in the foreground: `train`, `resume` and `stop`, with a progress bar or plain lines.

The engine is a separate process here too: if this one is killed or its terminal closes, the run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from epochtop.engine.protocol.quantities import format_bytes, format_number, format_rate, format_seconds, plural
from epochtop.engine.protocol.requests import Accepted, Plan, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs import index, reader, writer
from epochtop.engine.runs.log import UNSAVED_STATUS
from epochtop.engine.runs.reader import Follower, is_alive
from epochtop.engine.terminal.output import flush, is_terminal, write, write_error, write_json
from epochtop.engine.terminal.plain import plain_text
from epochtop.tui.client.foreground import (
    ask,
    follow,
    ignore_signals,
    skip_history,
    start,
    stop_and_wait,
    stop_on_signals,
)
from epochtop.tui.client.job_advice import job_advice, read_machine
from epochtop.tui.client.silence import SilenceMeter
from epochtop.tui.client.standby import Standby
from epochtop.tui.state.lines import MessageLine
from epochtop.tui.state.run import RunState

BAR = 24
"""Characters of the progress bar."""
PATIENCE_S, REMINDER_S = 10.0, 30.0
"""Seconds after which a silence is worth a line, which cannot be taken back, and after which it is worth another one."""
STATUS = {"finished": 0, "stopped": 0, "failed": 1, "died": 1, "diverged": 3, "unsaved": UNSAVED_STATUS}
"""Exit statuses."""


class Display(Protocol):
    """Shows the progress of a run."""

    def show(self, line: MessageLine) -> None:
        """Show a line of the log."""

    def progress(self, state: RunState, silence: str) -> None:
        """Show the current figures; called about 20 times a second.

        `silence` says for how long and why the run has recorded nothing; its speed is unknown then.
        """


def train(spec: RunSpec, home: Path, as_json: bool, detach: bool) -> int:
    """Train `spec` until it ends. Returns 0 finished or stopped, 1 failed, 3 diverged, 4 unsaved.

    Raises Invalid, EngineDied.
    """
    writer.make_home(home)

    def begin(standby: Standby) -> Accepted | Refused:
        machine, sample = read_machine()  # meanwhile the engine imports torch
        reply = standby.begin(spec, home)
        if isinstance(reply, Accepted) and reply.plan is not None:
            _warn(job_advice(home, spec, reply.plan, machine, sample, standby.ready()))
        return reply

    return _run(begin, as_json, detach, resumed=False)


def summarize(spec: RunSpec, home: Path) -> int:
    """Print the model's layers and what a run of `spec` needs. Returns 0. Raises Invalid, EngineDied."""
    from epochtop.tui.cli.model_summary import summary_lines
    from epochtop.tui.state.column_lines import table_of_columns

    def describe(standby: Standby) -> Plan | Refused:
        machine, sample = read_machine()  # meanwhile the engine imports torch
        plan = standby.describe(spec)
        if isinstance(plan, Plan):
            advice.extend(job_advice(home, spec, plan, machine, sample, standby.ready()))
        return plan

    advice: list[str] = []
    plan = ask(describe)
    assert plan.summary is not None
    free = f" of {format_bytes(plan.available_bytes)} free" if plan.available_bytes is not None else ""
    validation = f", {plan.validation_rows:,} for validation" if plan.validation_rows else ""
    lines = (
        *summary_lines(plan.summary),
        f"{plural(plan.rows, 'training row')}{validation}, {plan.test_rows:,} for the test",
        f"{plural(plan.steps, 'step')} on {plan.device}, about {format_bytes(plan.memory_bytes)}{free}, data included",
        *((f"problem: {plan.problem}",) if plan.problem else ()),
        *table_of_columns(plan.columns),
        *plan.notes,
    )
    write("\n".join(lines) + "\n")
    _warn(advice)
    return 0


def _warn(advice: list[str]) -> None:
    """Write what speaks against a job to standard error."""
    for sentence in advice:
        write_error(f"epochtop: {sentence}\n")


def resume(run: Path, as_json: bool, detach: bool, trusted_owner: str = "", edited_task: bool = False) -> int:
    """Resume a run that ended before its last step, until it ends. Returns and raises what :func:`train` does.

    `trusted_owner` is another owner of the run whose task may be executed. `edited_task` executes the task's files as they
    are now.
    """
    index.check_can_resume(run)
    return _run(lambda standby: standby.resume(run, trusted_owner, edited_task), as_json, detach, resumed=True)


def train_to_the_end(spec: RunSpec, home: Path, quiet: bool) -> tuple[Path, RunState]:
    """Train `spec` until it ends. Returns the run and its state. Raises Invalid, EngineDied."""
    writer.make_home(home)
    run, standby = start(lambda standby: standby.begin(spec, home))
    return run, _follow(run, standby, quiet, resumed=False)


def stop(run: Path) -> int:
    """Stop a run and wait until its engine has ended. Returns 0, 1 if it died instead, 4 if it is unsaved."""
    if not is_alive(run):
        write(f"{run.name} is not running: {index.summarize(run).state}\n")
        return 0
    stop_and_wait(run)
    summary = index.summarize(run)
    note = f": {summary.note}" if summary.state == "unsaved" else ""
    write(f"{run.name}: {summary.state} after {summary.steps or 0:,} steps{note}\n")
    return {"died": 1, "unsaved": UNSAVED_STATUS}.get(summary.state, 0)


def _run(request: Callable[[Standby], Accepted | Refused], as_json: bool, detach: bool, resumed: bool) -> int:
    run, standby = start(request)
    if detach:
        write(f"{run.name}\n")
        return 0
    state = _follow(run, standby, as_json, resumed)
    if as_json:
        write_json(msgspec.json.encode(_result(run, state)))
    return STATUS[state.state]


def _follow(run: Path, standby: Standby, as_json: bool, resumed: bool) -> RunState:
    display, state, follower = _display(as_json), RunState(reader.read_record(run)), Follower(run)
    stop_on_signals(
        run,
        lambda: display.show(MessageLine("stopping after this step ...")),
        f"\nthe run stops after its current step; `epochtop attach {run.name}` opens it\n",
    )
    meter = SilenceMeter(run)

    def refresh(events: Sequence[object]) -> None:
        meter.see(events)
        trains = state.state == "running"
        display.progress(state, meter.text(state.refresh_ms / 1000, state.step_s) if trains else "")

    with _on_screen(display):
        display.show(MessageLine(f"run {run.name} · Ctrl-C stops it and saves"))
        if resumed:
            skip_history(follower, state, display.show)
        follow(follower, standby, state, display.show, refresh)
    ignore_signals()
    return state


def _result(run: Path, state: RunState) -> dict[str, Any]:
    end = state.finished
    return {
        "run": run.name,
        "outcome": state.state,
        "device": state.started.device if state.started else None,
        "steps": state.step,
        "epochs": end.epochs if end else None,
        "seconds": state.seconds,
        "steps_per_second": end.steps_per_second if end else state.steps_per_second,
        "final_loss": end.final_loss if end else state.loss,
        "test_loss": state.test_loss,
        "test_metric": state.test_metric,
        "device_reads": state.reads,
        "waited_seconds": state.waited_s,
        "parameters": state.started.parameters if state.started else None,
        "planned_memory_bytes": end.planned_memory_bytes if end else None,
        "peak_memory_bytes": end.peak_memory_bytes if end else None,
        **({"message": _failure(state)} if state.state in ("failed", "died", "diverged", "unsaved") else {}),
    }


def _failure(state: RunState) -> str:
    output = f"; output.log ends with:\n{state.output_tail}" if state.output_tail else ""
    return f"{state.verdict()}{output}"


# --- displays ----------------------------------------------------------------------------------------------


def _display(as_json: bool) -> Display:
    if as_json:
        return Quiet()
    return Bar() if is_terminal() else Lines()


def _on_screen(display: Display) -> AbstractContextManager[Any]:
    return display.bar if isinstance(display, Bar) else nullcontext()


class Reminder:
    """Says when a text that stays true should be written, and again."""

    def __init__(self) -> None:
        self._due = 0.0
        """When to write it; 0 while there is none."""

    def is_due(self, text: str) -> bool:
        """Whether `text` has been true for long enough since it was new, or was written; an empty one never is due."""
        if not text:
            self._due = 0.0
            return False
        self._due = self._due or monotonic() + PATIENCE_S
        if monotonic() < self._due:
            return False
        self._due = monotonic() + REMINDER_S
        return True


class Quiet:
    """Shows nothing; warnings and failures go to standard error."""

    def __init__(self) -> None:
        self._reminder = Reminder()

    def show(self, line: MessageLine) -> None:
        """Write a warning or a failure."""
        if line.kind in ("warning", "failure"):
            write_error(line.text + "\n")

    def progress(self, state: RunState, silence: str) -> None:
        """Write only that there is nothing to show."""
        if self._reminder.is_due(silence):
            write_error(f"epochtop: {silence}\n")


class Lines:
    """Plain lines: one a second at first, then less often, at most ten seconds apart."""

    def __init__(self) -> None:
        self._next_s = 1.0
        self._reminder = Reminder()

    def show(self, line: MessageLine) -> None:
        """Write the line, unless the progress lines have its figures."""
        if line.kind != "evaluation":
            self._write(line.text)

    def progress(self, state: RunState, silence: str) -> None:
        """Write the figures if a line is due."""
        if self._reminder.is_due(silence):
            self._write(f"{format_seconds(state.seconds):>8}  {progress_text(state, silence=silence)}")
        if state.seconds < self._next_s or state.over:
            return
        self._next_s = state.seconds + min(10.0, max(1.0, state.seconds / 10))
        self._write(f"{format_seconds(state.seconds):>8}  {progress_text(state)}")

    @staticmethod
    def _write(text: str) -> None:
        write(text + "\n")
        flush()


def progress_text(state: RunState, brief: bool = False, silence: str = "") -> str:
    """Progress in one line of nearly fixed widths; `brief` leaves out test loss and speed, `silence` replaces them."""
    total = state.total_steps
    share = state.step / total if total else 0.0
    steps = f"{state.step:>{len(f'{total:,}')},} of {total:,}  {share:4.0%}  loss {format_number(state.loss)}"
    if silence:
        return f"{steps}  {silence}"
    left = f"{format_seconds(state.remaining_s)} left"
    if brief:
        return f"{steps}  {left}"
    test = f"  test {format_number(state.test_loss)}" if state.test_loss is not None else ""
    return f"{steps}{test}  {format_rate(state.steps_per_second)}  {left}"


class Bar:
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.bar = Progress(
            BarColumn(bar_width=BAR), TextColumn("{task.description}", markup=False), refresh_per_second=5
        )
        self._task = self.bar.add_task("starting ...", total=None)

    def show(self, line: MessageLine) -> None:
        """Print the line above the bar."""
        if line.kind != "evaluation":
            self.bar.console.print(plain_text(line.text), markup=False, highlight=False, emoji=False)

    def progress(self, state: RunState, silence: str) -> None:
        """Move the bar."""
        if state.total_steps:
            text = progress_text(state, silence=plain_text(silence))
            if not silence and len(text) + BAR >= self.bar.console.width:
                text = progress_text(state, brief=True)
            self.bar.update(self._task, description=text, completed=state.step, total=state.total_steps)
