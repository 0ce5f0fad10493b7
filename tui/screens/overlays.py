"""What can be looked at over the screen while a run goes on: its last evaluation in full, its decision boundary."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

from epochtop.tui.screens.boundary import BoundaryScreen
from epochtop.tui.screens.confusion import ConfusionScreen
from epochtop.tui.state.run import RunState


def metrics(state: RunState) -> ConfusionScreen | None:
    """All metrics and the confusion matrix; None before the first evaluation."""
    if state.evaluated is None or state.started is None:
        return None
    known = state.evaluated
    return ConfusionScreen(state.started.classes, known.confusion, known.metrics, _title(state))


def boundary(state: RunState) -> BoundaryScreen | None:
    """The plane of two features; None for other jobs."""
    return BoundaryScreen(state.mapped) if state.mapped is not None else None


def follow(screen: Screen[Any], state: RunState) -> None:
    """Give a screen of this kind what is newest."""
    if isinstance(screen, ConfusionScreen) and state.evaluated is not None:
        screen.put(state.evaluated.confusion, state.evaluated.metrics, _title(state))
    elif isinstance(screen, BoundaryScreen) and state.mapped is not None:
        screen.show(state.mapped)


def _title(state: RunState) -> str:
    step = state.evaluated.step if state.evaluated else 0
    return f"{state.held_out} rows, before step {step:,}"
