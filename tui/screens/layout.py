"""The three layouts of a screen, chosen by the terminal's size. Classes on the screen; the CSS does the rest.

:func:`regions` repeats the sizes of `app.tcss`, for the first frame: that is drawn before the CSS is read.
"""

from __future__ import annotations

from textual.geometry import Region, Size

SMALLEST = (60, 15)
"""Below either: only a notice."""
COMPACT = (100, 28)
"""Below either: one region, and one other under it."""
WIDE = (160, 45)
"""From both: everything at once."""
MACHINE_ROWS = 8
"""Height of the machine panel, with its border, until the machine is known."""


def size_classes(size: Size) -> dict[str, bool]:
    """Which of the classes `-tiny`, `-compact` and `-wide` a screen of this size has.

    For `update_classes`: each change of a screen's classes matches the styles of all its widgets again.
    """
    tiny = size.width < SMALLEST[0] or size.height < SMALLEST[1]
    return {
        "-tiny": tiny,
        "-compact": not tiny and (size.width < COMPACT[0] or size.height < COMPACT[1]),
        "-wide": size.width >= WIDE[0] and size.height >= WIDE[1],
    }


def regions(size: Size) -> dict[str, Region]:
    """Where the bordered regions of the main screen are, by id, before anything is known about runs and machine.

    Empty for a screen that is too small.
    """
    classes = size_classes(size)
    if classes["-tiny"]:
        return {}
    width, compact, wide = size.width, classes["-compact"], classes["-wide"]
    top, height = (2, size.height - 4) if compact else (1, size.height - 3)
    right = 0 if compact else 62 if wide else 39
    runs, log = (8 if compact else 12 if wide else 9), (12 if wide else 0)
    left, chart = width - right, height - runs - log
    boxes = {"chart": Region(0, top, left, chart), "runs": Region(0, top + chart, left, runs)}
    if wide:
        boxes["log"] = Region(0, top + chart + runs, left, log)
    if not compact:
        machine = height - 29 if wide else min(MACHINE_ROWS, height // 2)
        boxes["machine"] = Region(left, top, right, machine)
        boxes["form"] = Region(left, top + machine, right, height - machine)
    return boxes
