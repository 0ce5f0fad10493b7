"""The keys of the board and of its grid: their actions, names and descriptions. Never imports a widget."""

from __future__ import annotations

from textual.binding import Binding, BindingType


def _key(
    key: str, action: str, description: str, tooltip: str, name: str, *, show: bool = False, display: str | None = None
) -> Binding:
    return Binding(key, action, description, show, display, tooltip=tooltip, id=f"grid.{name}")


BOARD_KEYS: tuple[BindingType, ...] = (
    Binding("g", "toggle_grid", "grid", id="board.grid", tooltip="Small charts of all series, or one large chart"),
    Binding(
        "f", "screen.fill", "full", id="board.full", tooltip="Charts on the whole screen, or next to the other regions"
    ),
    Binding("escape", "back", "back", id="board.back", tooltip="Back to the grid"),
)
GRID_KEYS: tuple[BindingType, ...] = (
    _key("enter", "enlarge", "enlarge", "Draw the selected chart large; esc returns", "enlarge", show=True),
    _key("slash", "filter", "filter", "Show series by name: loss !val, a|b, /regex/", "filter", show=True, display="/"),
    _key("n,pagedown", "page(1)", "page", "Next page of charts", "next", show=True, display="n p"),
    _key("p,pageup", "page(-1)", "previous page", "Previous page of charts", "previous"),
    _key("G", "next_group", "group", "Show one group of series, or all", "group", show=True),
    _key("up", "select(-1, 0)", "up", "Select the chart above", "up"),
    _key("down", "select(1, 0)", "down", "Select the chart below", "down"),
    _key("left", "select(0, -1)", "left", "Select the chart at the left, or move the cursor", "left"),
    _key("right", "select(0, 1)", "right", "Select the chart at the right, or move the cursor", "right"),
    _key("l", "chart('toggle_log')", "log", "Logarithmic or linear y axes", "log"),
    _key("X", "chart('toggle_log_x')", "log x", "Logarithmic or linear x axis", "log_x"),
    _key("o", "chart('toggle_outliers')", "outliers", "Fit the axes to all values, or without outliers", "outliers"),
    _key("B", "chart('toggle_band')", "band", "Bands of groups: standard deviation, or lowest to highest", "band"),
    _key("m", "chart('cycle_smoothing')", "smooth", "Exponential smoothing: off, 0.6, 0.9, 0.97", "smooth"),
    _key(
        "x",
        "chart('cycle_unit')",
        "x axis",
        "X axis in steps, epochs, seconds, time of day, or a series that counts",
        "unit",
    ),
    _key("w", "chart('toggle_whole')", "whole", "Show the whole run, or follow its last tenth", "whole"),
    _key("left_square_bracket", "chart('zoom', 0.5)", "zoom", "Show half the range", "zoom_in"),
    _key("right_square_bracket", "chart('zoom', 2.0)", "zoom out", "Show twice the range", "zoom_out"),
    _key("comma", "chart('pan', -1)", "pan left", "Show earlier steps", "pan_left"),
    _key("full_stop", "chart('pan', 1)", "pan right", "Show later steps", "pan_right"),
    _key("c", "chart('toggle_cursor')", "cursor", "One cursor through all charts", "cursor"),
)
