"""The app's keys: their actions, names and descriptions. The first ones that fit are in the footer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.app import App, SystemCommand
from textual.binding import Binding

if TYPE_CHECKING:
    from epochtop.tui.app.run_controller import RunController

KEYS = (
    Binding("4", "lab", "lab", id="app.lab", tooltip="Experiments: where time goes on this machine"),
    Binding("a", "anatomy", "anatomy", id="app.anatomy", tooltip="Measure where a step of this run spends its time"),
    Binding("ctrl+s", "start", "start", id="app.start", tooltip="Train with the settings of the Run panel"),
    Binding("space", "pause", "pause", id="app.pause", tooltip="Pause or resume; also resumes a stopped or killed run"),
    Binding("ctrl+x", "stop", "stop", id="app.stop", tooltip="Finish the step, evaluate, save, end"),
    Binding(
        "r",
        "change",
        "rate",
        id="app.change",
        tooltip="Learning rate and refresh of the run, or settings of the script",
    ),
    Binding("s", "save", "save", id="app.save", tooltip="Write a checkpoint now"),
    Binding(
        "b",
        "look('boundary')",
        "boundary",
        id="app.boundary",
        tooltip="Decision boundary in the plane of two features",
    ),
    Binding(
        "v",
        "look('metrics')",
        "metrics",
        id="app.metrics",
        tooltip="Metrics and confusion matrix of the last evaluation",
    ),
    Binding("e", "export", "export", id="app.export", tooltip="Write the chart as SVG and CSV"),
    Binding("R", "begin('script')", "run script", id="app.script", tooltip="Run your own training program and show it"),
    Binding("O", "begin('logs')", "open logs", id="app.logs", tooltip="Show logs of other tools, such as TensorBoard"),
    Binding("question_mark", "help", "help", id="app.help", tooltip="Show or hide all keys"),
    Binding(
        "ctrl+z",
        "suspend_process",
        "suspend",
        id="app.suspend",
        tooltip="Back to the shell; fg returns",
        show=False,
    ),
    Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Quit; a run can continue", priority=True),
)

KEYS_OF_RUNS = frozenset(["start", "pause", "stop", "save", "change", "export", "look", "lab", "anatomy", "begin"])
"""Actions of the main screen, which the Lab page hides."""


def works_now(action: str, parameters: tuple[object, ...], runs: RunController) -> bool | None:
    """True if an action can be taken now, None to gray its key out, False to hide it."""
    match action:
        case "pause":
            return True if runs.active is not None or runs.resumable is not None else None
        case "stop" | "change":
            return True if runs.active is not None else None
        case "save":
            return True if runs.active is not None and not runs.script else None
        case "export" | "anatomy":
            return True if runs.session is not None else None
        case "look":
            return runs.can_view(str(parameters[0]))
        case _:
            return True


def system_commands(app: App[int], is_active: bool) -> Iterator[SystemCommand]:
    """Commands of the palette, which are actions of `app`. `is_active` is whether the open run can be commanded."""

    def do(name: str, *arguments: str) -> Callable[[], None]:
        return partial(getattr(app, f"action_{name}"), *arguments)

    yield SystemCommand("Lab", "Experiments: where time goes on this machine", do("lab"))
    yield SystemCommand("Guide", "Overheads, GPU names, what calling a module does", do("guide"))
    yield SystemCommand("Start", "Train with the settings of the Run panel", do("start"))
    yield SystemCommand("Run a script", "Run your own training program and show it", do("begin", "script"))
    yield SystemCommand("Open logs", "Show logs of other tools, such as TensorBoard", do("begin", "logs"))
    yield SystemCommand("Export", "Write the chart as SVG and CSV", do("export"))
    if is_active:
        yield SystemCommand("Pause or resume", "Pause the run, or resume it", do("pause"))
        yield SystemCommand("Stop", "Finish the step, evaluate, save, end", do("stop"))
        yield SystemCommand("Save", "Write a checkpoint now", do("save"))
        yield SystemCommand("Change", "Learning rate and refresh of the run", do("change"))
