"""The keys of the Lab page, and in which order its footer shows them."""

from __future__ import annotations

from dataclasses import replace

from textual.binding import ActiveBinding, Binding

BINDINGS = (
    Binding("ctrl+s", "measure", "measure", id="lab.measure", tooltip="Measure the experiment under the cursor"),
    Binding("ctrl+x", "stop", "stop", id="lab.stop", tooltip="End the measurement; its rows so far are kept"),
    Binding("q", "quick", "quick", id="lab.quick", tooltip="Measure in ten seconds, or thoroughly again"),
    Binding("a", "turn", "result", id="lab.turn", tooltip="What the experiment is, or its result"),
    Binding("x", "try", "try it", id="lab.try", tooltip="Train with the setting of the verdict, and see what it gains"),
    Binding(
        "g,f1",
        "app.guide",
        "guide",
        id="lab.guide",
        tooltip="What makes GPUs slow on small jobs; reading a GPU's name",
    ),
    Binding("f", "take_job", "job", id="lab.job", tooltip="Measure the job that the Run panel says"),
    Binding("e", "export", "export", id="lab.export", tooltip="Write the rows of the result as CSV"),
    Binding("escape", "back", "back", id="lab.back", tooltip="Back to the list, then to the chart"),
    Binding("4", "to_list", "list", id="lab.list", tooltip="The list of experiments", show=False),
    Binding("1", "leave('form')", "train", id="lab.form", tooltip="The settings of the next run", show=False),
    Binding("2", "leave('runs')", "runs", id="lab.runs", tooltip="The list of runs", show=False),
    Binding("3", "leave('machine')", "machine", id="lab.machine", tooltip="This machine", show=False),
    Binding("5", "leave('log')", "log", id="lab.log", tooltip="What happened, line by line", show=False),
    Binding("0", "leave('')", "chart", id="lab.chart", tooltip="Back to the chart", show=False),
)
FIRST = (
    *("lab.measure", "lab.stop", "lab.quick", "lab.turn", "lab.try", "lab.guide", "lab.back", "app.help", "app.quit"),
)
"""The focused list's keys follow, then the others, and last those of the app."""


def named(active: ActiveBinding, on_result: bool) -> ActiveBinding:
    """The key that turns says where it leads."""
    if active.binding.id != "lab.turn" or not on_result:
        return active
    return active._replace(binding=replace(active.binding, description="about"))


def rank(binding: Binding) -> int:
    """The place of a key in the footer and the help."""
    name = binding.id or ""
    if name in FIRST:
        return FIRST.index(name)
    return len(FIRST) + (0 if name.startswith("kept.") else 1 if name.startswith("lab.") else 2)
