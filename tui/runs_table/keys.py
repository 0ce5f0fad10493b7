"""The keys of the table, the most important first: the footer shows those that fit."""

from __future__ import annotations

from textual.binding import Binding


def _key(key: str, action: str, description: str, tooltip: str, name: str, *, show: bool = True) -> Binding:
    return Binding(key, action, description, id=f"runs_table.{name}", tooltip=tooltip, show=show)


KEYS = (
    _key("enter", "open", "open", "Open the run; of a group, draw the mean of its runs with a band", "open"),
    _key("space", "mark", "select", "Select the run, or all runs of the group", "select"),
    _key("o", "draw", "draw", "Draw the selected runs or groups on one chart", "draw"),
    _key("slash", "filter", "filter", "Show only runs that match, such as lr>=0.001 state=finished", "filter"),
    _key("s", "sort", "sort", "Sort by the column at the cursor; again reverses the order", "sort"),
    _key("b", "best", "best", "Sort by the best value of a metric, best first; again takes the next metric", "best"),
    _key("g", "group", "group", "Group by the column at the cursor: mean and spread; again ungroups", "group"),
    _key("v", "compare", "diff", "Compare settings, git and versions of the selected runs", "diff"),
    _key("c", "columns", "columns", "Choose the columns", "columns"),
    _key("e", "edit", "edit", "Change name, tags and notes of the run", "edit"),
    _key("h", "hide", "hide", "Hide the selected runs, or show them again", "hide"),
    _key("H", "show_hidden", "hidden", "Show or leave out hidden runs", "hidden"),
    _key("delete,d", "delete", "delete", "Delete the selected runs, after a question", "delete"),
    _key("escape,2", "leave", "back", "Return to the chart", "back"),
    _key("A", "mark_all", "select all", "Select all runs shown, or none", "all", show=False),
    _key("left", "column(-1)", "left", "Go to the column before", "left", show=False),
    _key("right", "column(1)", "right", "Go to the next column", "right", show=False),
    _key(
        "tab",
        "section(1)",
        "section",
        "Go to the first metric, setting or fact among the columns",
        "section",
        show=False,
    ),
    _key(
        "shift+tab",
        "section(-1)",
        "section before",
        "Go back to settings, metrics or facts",
        "section_before",
        show=False,
    ),
    _key(
        "greater_than_sign",
        "limit('>=')",
        "raise limit",
        "Leave out the runs with the lowest value in the column at the cursor",
        "raise",
        show=False,
    ),
    _key(
        "less_than_sign",
        "limit('<=')",
        "lower limit",
        "Leave out the runs with the highest value in the column at the cursor",
        "lower",
        show=False,
    ),
    _key("equals_sign", "limit('=')", "same", "Show only runs with the value at the cursor", "same", show=False),
    _key("question_mark", "app.help", "help", "Show or hide all keys", "help"),
    _key("ctrl+q", "app.quit", "quit", "Quit; a run can continue", "quit", show=False),
)
