"""The keys of the Lab page, and their order in the footer."""

from __future__ import annotations

from dataclasses import replace

from textual.binding import ActiveBinding, Binding

BINDINGS = (
    Binding("ctrl+s", "measure", "measure", id="lab.measure", tooltip="Run the selected experiment"),
    Binding("ctrl+x", "stop", "stop", id="lab.stop", tooltip="Stop the running experiment; it keeps its rows"),
    Binding("q", "quick", "quick", id="lab.quick", tooltip="Switch between ten seconds and up to a minute"),
    Binding("a", "turn", "result", id="lab.turn", tooltip="Switch between the experiment and its result"),
    Binding("x", "try", "try it", id="lab.try", tooltip="Train with the setting of the verdict and report the gain"),
    Binding(
        "g,f1",
        "app.guide",
        "guide",
        id="lab.guide",
        tooltip="Why GPUs are slow on small jobs; GPU names",
    ),
    Binding("f", "take_job", "job", id="lab.job", tooltip="Measure the job of the Run panel"),
    Binding("e", "export", "export", id="lab.export", tooltip="Write the rows of the result as CSV"),
    Binding("escape", "back", "back", id="lab.back", tooltip="Back to the list, then to the chart"),
    Binding("4", "to_list", "list", id="lab.list", tooltip="The list of experiments", show=False),
    Binding("1", "leave('form')", "train", id="lab.form", tooltip="The settings of the next run", show=False),
    Binding("2", "leave('runs')", "runs", id="lab.runs", tooltip="The list of runs", show=False),
    Binding("3", "leave('machine')", "machine", id="lab.machine", tooltip="This machine", show=False),
    Binding("5", "leave('log')", "log", id="lab.log", tooltip="The log of the open run", show=False),
    Binding("0", "leave('')", "chart", id="lab.chart", tooltip="Back to the chart", show=False),
)
FIRST = (
    *("lab.measure", "lab.stop", "lab.quick", "lab.turn", "lab.try", "lab.guide", "lab.back", "app.help", "app.quit"),
)
"""Keys that come first; then those of the focused list, of the page, of the app."""


def named(active: ActiveBinding, on_result: bool) -> ActiveBinding:
    """Name the turn key after the side it shows."""
    if active.binding.id != "lab.turn" or not on_result:
        return active
    return active._replace(binding=replace(active.binding, description="about"))


def rank(binding: Binding) -> int:
    """The position of a key in the footer and the help."""
    name = binding.id or ""
    if name in FIRST:
        return FIRST.index(name)
    return len(FIRST) + (0 if name.startswith("results.") else 1 if name.startswith("lab.") else 2)
