"""What tests of the app in a terminal ask again and again."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from epochtop.engine.protocol.commands import Stop
from epochtop.engine.protocol.events import Finished
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.writer import send
from tests.support.engines import Watch, losses
from tests.support.ui.terminals import BACKSPACE, END, ENTER, Terminal

SLOW_TASK = Path(__file__).with_name("slow_task.py")
ENDLESS = (
    *("--task", f"{SLOW_TASK}:make_task", "--epochs", "1000000000", "--threads", "1", "--device", "cpu"),
    *("--refresh-ms", "50", "--executor", "eager"),
)
"""A run that goes on until it is stopped, and takes little processor time."""

Open = Callable[..., Terminal]


def begun(terminal: Terminal, home: Path) -> Watch:
    """Wait for the first loss on the screen, or the last one of a short run; returns a second pair of eyes on the run."""
    terminal.wait_for(lambda shown: step_of(shown) > 0 or "finished:" in shown)
    return Watch(run_paths(home)[0])


def step_of(shown: str) -> int:
    """The step in the status line; 0 where there is none."""
    match = re.search(r"step +([\d,]+) of", shown)
    return int(match[1].replace(",", "")) if match else 0


def goes_on(terminal: Terminal) -> None:
    """Wait until the screen shows a later step."""
    before = step_of(terminal.text)
    terminal.wait_for(lambda shown: step_of(shown) > before)


def ended(terminal: Terminal) -> None:
    """The app has given the terminal back."""
    modes = terminal.modes()
    assert not modes["1049"], "the alternate screen was not left"
    assert not any(modes.get(mouse) for mouse in ("1000", "1002", "1003", "1006", "1015", "2004"))
    assert modes["25"], "the cursor stayed hidden"


def end_of(run: Path) -> Finished:
    """Stop a run and check that no step of it is missing."""
    send(run, Stop())
    end = Watch(run).end()
    assert isinstance(end, Finished)
    assert len(losses(run)) == end.steps
    return end


def move_to(terminal: Terminal, button: str, key: str = "", first: str = "") -> None:
    """Wait until a button has the focus, which `key` moves there from the `first` one."""
    if key:
        move_to(terminal, first)
        terminal.press(key)
    terminal.wait_for(lambda _: terminal.is_reversed(button))


def type_into(terminal: Terminal, caption: str, text: str) -> None:
    """Type a text into the entry with the focus, right of its padded `caption`; again where keys came before the focus."""
    shown = f"{caption}{text} "
    while shown not in terminal.text:
        terminal.press(END, *[BACKSPACE] * 20, *text)
        with suppress(AssertionError):
            terminal.wait_for(shown, patience_s=RETYPE_S)


RETYPE_S = 2.0
"""Seconds until a text that has not come to an entry is typed again."""


def change_rate(terminal: Terminal, rate: str) -> None:
    """Ask for the live settings and type another learning rate."""
    terminal.press("r")
    terminal.wait_for("Apply")
    type_into(terminal, "Learning rate     ", rate)
    terminal.press(ENTER)
    terminal.wait_without("Apply")
