"""The app's keys: their actions, names and descriptions. The first ones that fit are in the footer."""

from __future__ import annotations

from textual.binding import Binding

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
