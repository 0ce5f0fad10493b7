"""Terminal × moment: in a terminal that goes away, stalls, shrinks or can do little, `train` trains on until it is stopped.

The app in such terminals is tested in :mod:`tests.terminal`, hostile text in :mod:`tests.tui.app` and :mod:`tests.cli`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Finished
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.writer import send
from tests.faults.selection import EVERYTHING
from tests.support.engines import Watch, losses, wait_until
from tests.support.ui.terminals import APP, Terminal

COMMAND = (
    *APP, "train", "--threads", "1", "--device", "cpu", "--executor", "eager", "--epochs", "1000000000", "--refresh-ms", "20",
)  # fmt: skip
WINDOWS = 25
"""Windows for which a run must train on with its terminal as it is: at least half a second."""
COLOR = re.compile(rb"\x1b\[(\d+;)*(3[0-8]|4[0-8]|9[0-7])[;m]")


def nothing(terminal: Terminal) -> None:
    """The terminal is poor from its beginning."""


def shrink(terminal: Terminal) -> None:
    for size in ((1, 1), (500, 2), (7, 300), (120, 40)):
        terminal.resize(*size)


class Fault(NamedTuple):
    """What is wrong with a terminal."""

    environment: dict[str, str]
    begin: Callable[[Terminal], None] = nothing
    end: Callable[[Terminal], None] = nothing


FAULTS = {
    "gone": Fault({}, Terminal.hang_up),
    "stalled": Fault({}, Terminal.stall, Terminal.go_on),
    "resized": Fault({}, shrink),
    "not UTF-8": Fault({"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}),
    "without colors": Fault({"NO_COLOR": "1"}),
    "dumb": Fault({"TERM": "dumb"}),
}


@pytest.mark.parametrize("name", FAULTS if EVERYTHING else ["gone"])
def test_training_continues_in_any_terminal(name: str, home: Path) -> None:
    fault = FAULTS[name]
    with Terminal(*COMMAND, environment=fault.environment) as terminal:
        wait_until(lambda: run_paths(home) or terminal.process.poll() is not None)
        watch = Watch(run_paths(home)[0])
        watch.windows(1)
        fault.begin(terminal)
        watch.windows(WINDOWS)
        send(watch.run, Stop())
        end = watch.end()
        fault.end(terminal)
        status = terminal.wait()
        output = bytes(terminal.output)
    assert isinstance(end, Finished)
    assert end.outcome == "stopped"
    assert len(losses(watch.run)) == end.steps
    assert b"Traceback" not in output
    if name == "gone":
        assert status != 0
        return
    assert status == 0
    assert b"stopped" in output
    assert b"\\u" not in output
    assert name != "without colors" or not COLOR.search(output)
