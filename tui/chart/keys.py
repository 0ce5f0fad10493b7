"""The keys of the chart: their actions, names and descriptions. Never imports a widget."""

from __future__ import annotations

from textual.binding import Binding, BindingType


def _key(
    key: str, action: str, description: str, tooltip: str, name: str, *, show: bool = True, display: str | None = None
) -> Binding:
    return Binding(key, action, description, show, display, tooltip=tooltip, id=f"chart.{name}")


KEYS: tuple[BindingType, ...] = (
    _key("l", "toggle_log", "log", "Logarithmic or linear loss axis", "log"),
    _key("m", "cycle_smoothing", "smooth", "Exponential smoothing: off, 0.6, 0.9, 0.97", "smooth"),
    _key(
        "x",
        "cycle_unit",
        "x axis",
        "X axis in steps, epochs, seconds, time of day, or a series that counts, such as tokens; learning rates in a range test",
        "unit",
    ),
    _key("X", "toggle_log_x", "log x", "Logarithmic or linear x axis", "log_x", show=False),
    _key(
        "o",
        "toggle_outliers",
        "outliers",
        "Fit the axis to all values, or to those from the 1st to the 99th percentile",
        "outliers",
        show=False,
    ),
    _key(
        "B",
        "toggle_band",
        "band",
        "Band of a group of runs: mean and standard deviation, or lowest to highest",
        "band",
        show=False,
    ),
    _key("w", "toggle_whole", "whole", "Show the whole run, or follow its last tenth", "whole"),
    _key(
        "left_square_bracket",
        "zoom(0.5)",
        "zoom",
        "Show half the range, around the cursor or the end",
        "zoom_in",
        display="[ ]",
    ),
    _key("right_square_bracket", "zoom(2.0)", "zoom out", "Show twice the range", "zoom_out", show=False),
    _key("c", "toggle_cursor", "cursor", "Read single steps with the arrow keys", "cursor"),
    _key("n", "step_family(1)", "next", "Draw the next series", "next", display="n p"),
    _key("p", "step_family(-1)", "previous", "Draw the previous series", "previous", show=False),
    _key("slash", "pick_family", "series", "Choose the series to draw, by typing", "series", display="/"),
    _key("left", "move(-1)", "left", "Move the cursor, or pan", "left", show=False),
    _key("right", "move(1)", "right", "Move the cursor, or pan", "right", show=False),
    _key("shift+left", "move(-10)", "far left", "Move the cursor by ten cells", "far_left", show=False),
    _key("shift+right", "move(10)", "far right", "Move the cursor by ten cells", "far_right", show=False),
    _key("comma", "pan(-1)", "pan left", "Show earlier steps", "pan_left", show=False),
    _key("full_stop", "pan(1)", "pan right", "Show later steps", "pan_right", show=False),
)
