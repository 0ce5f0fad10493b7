"""The keys of the table, and which of them fit into the footer."""

from __future__ import annotations

from dataclasses import replace

from textual.binding import Binding, BindingsMap

WIDE = 118
"""Columns of the terminal from which on the footer shows all keys."""


def _key(key: str, action: str, description: str, tooltip: str, name: str, *, wide: bool = False) -> Binding:
    return Binding(key, action, description, id=f"runs_table.{name}", tooltip=tooltip, show=not wide)


KEYS = (
    _key("enter", "open", "open", "Open the run and return to the chart", "open"),
    _key("space", "mark", "select", "Select the run, or all runs of the group", "select"),
    _key("o", "draw", "draw", "Draw the selected runs on one chart", "draw"),
    _key("v", "compare", "diff", "Compare settings, git and versions of the selected runs", "diff"),
    _key("slash", "filter", "filter", "Show only runs that match, such as lr>=0.001 state=finished", "filter"),
    _key("s", "sort", "sort", "Sort by the column at the cursor; again reverses the order", "sort"),
    _key("g", "group", "group", "Group by the column at the cursor: mean and spread; again ungroups", "group"),
    _key("c", "columns", "columns", "Choose the columns", "columns"),
    _key("e", "edit", "edit", "Change name, tags and notes of the run", "edit", wide=True),
    _key("h", "hide", "hide", "Hide the selected runs, or show them again", "hide", wide=True),
    _key("H", "show_hidden", "hidden", "Show or leave out hidden runs", "hidden", wide=True),
    _key("delete,d", "delete", "delete", "Delete the selected runs, after a question", "delete", wide=True),
    _key("escape,2", "leave", "back", "Return to the chart", "back", wide=True),
    Binding("A", "mark_all", "select all", id="runs_table.all", tooltip="Select all runs shown, or none", show=False),
    Binding("left", "column(-1)", "left", id="runs_table.left", tooltip="Go to the column before", show=False),
    Binding("right", "column(1)", "right", id="runs_table.right", tooltip="Go to the next column", show=False),
    Binding("question_mark", "app.help", "help", id="runs_table.help", tooltip="Show or hide all keys"),
    Binding("ctrl+q", "app.quit", "quit", id="runs_table.quit", tooltip="Quit; a run can continue", show=False),
)

_WIDE_ONLY = {f"runs_table.{name}" for name in ("edit", "hide", "hidden", "delete", "back")}
"""Keys that only a wide footer shows."""


def fit(bindings: BindingsMap, width: int) -> None:
    """Show in the footer the keys that fit into a terminal of `width` columns."""
    for keys in bindings.key_to_bindings.values():
        keys[:] = [replace(key, show=width >= WIDE) if key.id in _WIDE_ONLY else key for key in keys]
