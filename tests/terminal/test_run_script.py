"""`epochtop run` in a real terminal: the command draws on one of the same size, and outlives ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import is_alive
from tests.support.engines import HANGING_S, wait_until
from tests.support.hooked import read_events, series_of
from tests.support.ui.terminals import APP, Terminal

BAR = """
import os, sys, time
print(sys.stdout.isatty(), *os.get_terminal_size(), flush=True)
for step in range(40):
    sys.stderr.write(f"\\r100%|###| {step + 1}/40 [00:01<00:00, 30.00it/s, loss={1 / (step + 1):.3f}]")
sys.stderr.write("\\n")
print("waits", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
print("went on")
"""
"""Draws a progress bar as tqdm does, then waits for a file."""

LAST_BAR = "100%|###| 40/40 [00:01<00:00, 30.00it/s, loss=0.025]"


@pytest.mark.parametrize("option", [["--plain"], []], ids=["plain", "app"])
def test_a_command_draws_a_bar_and_outlives_its_terminal(option: list[str], home: Path, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with Terminal(*APP, "run", *option, sys.executable, "-c", BAR, str(file), size=(120, 40)) as terminal:
        if not option:
            terminal.wait_for("0.0250")
            terminal.press("5")
        terminal.wait_for("waits", LAST_BAR)
        if option:
            assert terminal.rows()[:3] == ["True 120 40", LAST_BAR, "waits"]
        (run,) = run_paths(home)
        terminal.hang_up()
        terminal.process.wait(HANGING_S)
    assert is_alive(run)
    file.touch()
    wait_until(lambda: not is_alive(run))
    events = read_events(run)
    assert (events[-1]["type"], events[-1]["outcome"]) == ("ScriptEnded", "finished")
    first, *_, waits, last = (run / "output.log").read_text().splitlines()
    assert (first, waits, last) == ("True 120 40", "waits", "went on")
    assert series_of(events)["loss"][-1][1] == 0.025
