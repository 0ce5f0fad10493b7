"""Training in the foreground: the same engine and the same run directory, shown as a bar or as lines.

The engine is a process of its own here too: if this one is killed or its terminal goes, the run goes on.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import msgspec

from epochtop.engine.protocol.events import Continued, Finished, Stop
from epochtop.engine.protocol.quantities import format_number, format_rate, format_seconds
from epochtop.engine.protocol.requests import Accepted, Refused
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs import index, reader, writer
from epochtop.engine.runs.paths import whoami
from epochtop.engine.runs.reader import Follower, is_alive, output_tail
from epochtop.engine.runs.writer import send
from epochtop.tui.client.standby import EngineDied, Standby, how_it_ended
from epochtop.tui.state.run import RunState

POLL_S = 0.05
BAR = 24
"""Characters of the progress bar."""
STATUS = {"finished": 0, "stopped": 0, "failed": 1, "died": 1, "diverged": 3}


class Display(Protocol):
    """Where the progress of a run goes."""

    def news(self, line: str) -> None:
        """Something happened."""

    def progress(self, state: RunState) -> None:
        """New figures; called about 20 times a second."""


def train(spec: RunSpec, home: Path, as_json: bool, detach: bool) -> int:
    """Train `spec` until it ends. Returns 0 finished or stopped, 1 failed, 3 diverged. Raises Invalid."""
    writer.make_home(home)
    return _serve(lambda standby: standby.begin(spec, home), as_json, detach, resumed=False)


def summarize(spec: RunSpec) -> int:
    """Print what a run of `spec` would train: its layers, and what they need. Raises Invalid."""
    from epochtop.engine.protocol.quantities import format_bytes, plural
    from epochtop.tui.cli.model_summary import summary_lines

    standby = Standby(lambda message: sys.stderr.write(f"{message}\n"))
    try:
        plan = standby.describe(spec)
    except EngineDied as error:
        sys.stderr.write(f"epochtop: {error}\n")
        return 1
    finally:
        standby.close()
    if isinstance(plan, Refused):
        raise Invalid(plan.field, plan.message)
    assert plan.summary is not None
    free = f" of {format_bytes(plan.available_bytes)} free" if plan.available_bytes is not None else ""
    held_out = f", {plan.validation_rows:,} for validation" if plan.validation_rows else ""
    lines = (
        *summary_lines(plan.summary),
        f"{plural(plan.rows, 'training row')}{held_out}, {plan.test_rows:,} for the test",
        f"{plural(plan.steps, 'step')} on {plan.device}, about {format_bytes(plan.memory_bytes)}{free}, data included",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def resume(run: Path, as_json: bool, detach: bool) -> int:
    """Go on with a run that ended before its last step, until it ends. Returns what :func:`train` does."""
    index.check_can_resume(run)
    return _serve(lambda standby: standby.resume(run), as_json, detach, resumed=True)


def _serve(ask: Callable[[Standby], Accepted | Refused], as_json: bool, detach: bool, resumed: bool) -> int:
    begun = _begin(ask)
    if isinstance(begun, int):
        return begun
    run, standby = begun
    if detach:
        sys.stdout.write(f"{run.name}\n")
        return 0
    state = _follow(run, standby, as_json, resumed)
    if as_json:
        sys.stdout.write(msgspec.json.encode(_result(run, state)).decode() + "\n")
    return STATUS[state.state]


def train_to_the_end(spec: RunSpec, home: Path, quiet: bool) -> tuple[Path, RunState] | int:
    """Train `spec` and give the run and how it ended; an exit status if it never began. Raises Invalid."""
    writer.make_home(home)
    begun = _begin(lambda standby: standby.begin(spec, home))
    if isinstance(begun, int):
        return begun
    run, standby = begun
    return run, _follow(run, standby, as_json=quiet, resumed=False)


def _begin(ask: Callable[[Standby], Accepted | Refused]) -> tuple[Path, Standby] | int:
    """The run that an engine has begun, or the exit status if there is none. Raises Invalid."""
    standby = Standby(lambda message: sys.stderr.write(f"{message}\n"))
    try:
        reply = ask(standby)
    except EngineDied as error:
        sys.stderr.write(f"epochtop: {error}\n")
        return 1
    except KeyboardInterrupt:
        standby.close()
        return 130
    if isinstance(reply, Refused):
        standby.close()
        raise Invalid(reply.field, reply.message)
    return Path(reply.run), standby


def _follow(run: Path, standby: Standby, as_json: bool, resumed: bool) -> RunState:
    display = _display(as_json)
    state = RunState(reader.read_record(run))
    follower = Follower(run)
    _stop_on_signals(run, display)
    with _shown(display):
        display.news(f"run {run.name} · Ctrl-C stops it and saves")
        if resumed:
            _skip_to_the_present(follower, state, run, display)
        while not state.over:
            alive = is_alive(run)
            events = follower.read()
            for event in events:
                line = state.apply(event)
                for more in state.afterwards() if isinstance(event, Finished) else ():
                    display.news(more)
                if line:
                    display.news(line)
            display.progress(state)
            if not events and not alive and not state.over:
                display.news(state.died(_how(run, standby)))
            elif not events:
                time.sleep(POLL_S)
    return state


def _skip_to_the_present(follower: Follower, state: RunState, run: Path, display: Display) -> None:
    """Take in what happened before the engine went on; only its last word is news."""
    while True:
        alive = is_alive(run)
        for event in follower.read_all():
            line = state.apply(event)
            if line and isinstance(event, Continued):
                display.news(line)
        if not state.over or not alive:
            return
        time.sleep(POLL_S)


def _how(run: Path, standby: Standby) -> str:
    how = how_it_ended(standby.process.wait())
    tail = output_tail(run)
    return f"{how}; output.log ends with:\n{tail}" if tail else how


def _stop_on_signals(run: Path, display: Display) -> None:
    asked = 0

    def stop(number_: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            sys.stderr.write(f"\nthe run stops by itself after its step; `epochtop attach {run.name}` shows it\n")
            raise SystemExit(130)
        display.news("stopping after this step ...")
        send(run, Stop(by=whoami()))

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


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
        **({"message": state.verdict()} if state.state in ("failed", "died", "diverged") else {}),
    }


# --- displays ----------------------------------------------------------------------------------------------


def _display(as_json: bool) -> Display:
    if as_json:
        return Silence()
    return Bar() if sys.stdout.isatty() else Lines()


def _shown(display: Display) -> AbstractContextManager[Any]:
    return display.bar if isinstance(display, Bar) else nullcontext()


class Silence:
    """Nothing but the result; trouble goes to standard error."""

    def news(self, line: str) -> None:
        """Only what went wrong."""
        if line.startswith(("warning", "failed", "the engine died", "diverged")):
            sys.stderr.write(line + "\n")

    def progress(self, state: RunState) -> None:
        """Not shown."""


class Lines:
    """Plain lines: every second at first, then ever more rarely, at most ten seconds apart."""

    def __init__(self) -> None:
        self._next_s = 1.0

    def news(self, line: str) -> None:
        """A line."""
        if not line.startswith("step "):  # test losses are in the progress lines
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def progress(self, state: RunState) -> None:
        """A line when it is time for one."""
        if state.seconds < self._next_s or state.over:
            return
        self._next_s = state.seconds + min(10.0, max(1.0, state.seconds / 10))
        self.news(f"{format_seconds(state.seconds):>8}  {figures(state)}")


def figures(state: RunState, brief: bool = False) -> str:
    """Progress in one line of nearly fixed widths; `brief` leaves out test loss and speed."""
    total = state.total_steps
    share = state.step / total if total else 0.0
    steps = f"{state.step:>{len(f'{total:,}')},} of {total:,}  {share:4.0%}  loss {format_number(state.loss)}"
    left = f"{format_seconds(state.left_s)} left"
    if brief:
        return f"{steps}  {left}"
    test = f"  test {format_number(state.test_loss)}" if state.test_loss is not None else ""
    return f"{steps}{test}  {format_rate(state.steps_per_second)}  {left}"


class Bar:
    """A progress bar on a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.bar = Progress(BarColumn(bar_width=BAR), TextColumn("{task.description}"), refresh_per_second=5)
        self._task = self.bar.add_task("starting ...", total=None)

    def news(self, line: str) -> None:
        """A line above the bar."""
        if not line.startswith("step "):
            self.bar.console.print(line, markup=False, highlight=False)

    def progress(self, state: RunState) -> None:
        """Move the bar."""
        if state.total_steps:
            text = figures(state)
            if len(text) + BAR >= self.bar.console.width:
                text = figures(state, brief=True)
            self.bar.update(self._task, description=text, completed=state.step, total=state.total_steps)


# --- stop --------------------------------------------------------------------------------------------------


def stop(run: Path) -> int:
    """Ask a run to stop and wait until it has. Returns 0, or 1 if its engine died instead."""
    if not is_alive(run):
        sys.stdout.write(f"{run.name} is not running: {index.summarize(run).state}\n")
        return 0
    send(run, Stop(by=whoami()))
    while is_alive(run):
        time.sleep(POLL_S)
    summary = index.summarize(run)
    sys.stdout.write(f"{run.name}: {summary.state} after {summary.steps or 0:,} steps\n")
    return 0 if summary.state != "died" else 1
