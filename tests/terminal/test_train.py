"""`epochtop train` on a terminal: a bar that fits, and Ctrl-C from the keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.engine.runs.index import run_paths
from tests.support.engines import finished, losses
from tests.support.ui.terminals import APP, CTRL_C, Terminal


def bars(shown: str) -> list[str]:
    """The rows with the bar."""
    return [row for row in shown.splitlines() if " of 100,000,000 " in row]


@pytest.mark.parametrize("width", [80, 140])
def test_the_bar_fits_and_ctrl_c_stops_and_saves(home: Path, width: int) -> None:
    command = (*APP, "train", "--threads", "1", "--device", "cpu", "--epochs", "100000000")
    with Terminal(*command, size=(width, 24)) as terminal:
        terminal.wait_for("loss 0.")
        words = ("left", "test 0.", "steps/s") if width > 100 else ("left",)
        shown = terminal.wait_for(*words, lambda text: any(sum(map(row.count, "━╺╸")) >= 12 for row in bars(text)))
        (bar,) = bars(shown)
        assert ("steps/s" in bar) == (width > 100)
        terminal.press(CTRL_C)
        assert terminal.wait() == 0
        (run,) = run_paths(home)
        end = finished(run)
        assert (end.outcome, end.steps) == ("stopped", len(losses(run)))
        assert f"stopped: {end.steps:,} steps" in terminal.text
        assert (run / "checkpoints" / "last.json").exists()
