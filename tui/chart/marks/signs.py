"""Roles and markers of curves. They differ by more than color. Never imports a widget."""

from __future__ import annotations

from epochtop.tui.cells.rows import FAINT, QUIET, SERIES, TEXT, role_of

TRAIN, TEST, *OVERLAYS = (role_of(place) for place in range(SERIES))
OVERLAY_MARKERS = ("•", "×", "+", "◦")
"""Markers of the overlays."""
AXIS, CURSOR, RAW = QUIET, TEXT, FAINT
MARKERS = ("▪", "▫", "◆", "◇")
"""Markers of the series drawn with the main one."""
FILL = "░"
"""The band of the open run's group."""
OVERLAY_FILLS = ("·", ":", "'", ",")
"""The bands of other groups."""
