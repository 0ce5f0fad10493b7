"""Screens over the main screen that follow the open run: its last evaluation, its decision boundary, its analysis."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

from epochtop.tui.screens.analysis import AnalysisScreen
from epochtop.tui.screens.boundary import BoundaryScreen
from epochtop.tui.screens.confusion import ConfusionScreen
from epochtop.tui.state.run import RunState


def metrics(state: RunState) -> ConfusionScreen | None:
    """All metrics and the confusion matrix; None before the first evaluation."""
    if state.evaluated is None or state.started is None:
        return None
    evaluation = state.evaluated
    return ConfusionScreen(state.started.classes, evaluation.confusion, evaluation.metrics, _title(state))


def boundary(state: RunState) -> BoundaryScreen | None:
    """The decision boundary; None if the run has none."""
    return BoundaryScreen(state.mapped) if state.mapped is not None else None


def analysis(state: RunState) -> AnalysisScreen | None:
    """The newest analysis of a script; None if there is none."""
    return AnalysisScreen(state.analyzed) if state.analyzed is not None else None


def follow(screen: Screen[Any], state: RunState) -> None:
    """Update a screen of this kind."""
    if isinstance(screen, ConfusionScreen) and state.evaluated is not None:
        screen.put(state.evaluated.confusion, state.evaluated.metrics, _title(state))
    elif isinstance(screen, BoundaryScreen) and state.mapped is not None:
        screen.show(state.mapped)
    elif isinstance(screen, AnalysisScreen) and state.analyzed is not None:
        screen.show(state.analyzed)


def _title(state: RunState) -> str:
    step = state.evaluated.step if state.evaluated else 0
    return f"{state.held_out} rows, before step {step:,}"
