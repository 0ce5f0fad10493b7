"""The bell and the notification of the terminal, when a run ends while the app is open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epochtop.configuration.load import Configuration
from epochtop.engine.protocol.events import encode
from epochtop.engine.runs.index import RunSummary
from epochtop.engine.runs.paths import EVENTS
from epochtop.engine.terminal.desktop import desktop_notification
from epochtop.tui.app import alerts
from epochtop.tui.app.alerts import Alerts
from tests.support.engines import wait_until
from tests.support.runs import engine_alive, finished, losses_like_iris, started, windows, write_run
from tests.support.ui.apps import step_of
from tests.support.ui.terminals import CTRL_Q, Terminal

PLAIN = {"TERM": "xterm-256color"}
TITLE, TEXT = "epochtop: a finished", "all steps"
OSC_9 = "\x1b]9;epochtop: a finished: all steps\a"
OSC_777 = "\x1b]777;notify;epochtop: a finished;all steps\a"


# --- sequences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (PLAIN, OSC_9 + OSC_777),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, OSC_9),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, OSC_9),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, OSC_777),
        ({"TERM": "xterm-kitty"}, OSC_777),
        ({"TERM": "foot"}, OSC_777),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, OSC_777),
        ({"TERM": "linux"}, ""),
        ({"TERM": "dumb"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_the_sequence_suits_the_terminal(environment: dict[str, str], expected: str) -> None:
    assert desktop_notification(TITLE, TEXT, "auto", environment) == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [("osc9", OSC_9), ("osc777", OSC_777), ("both", OSC_9 + OSC_777), ("off", "")]
)
def test_the_user_can_choose(kind: str, expected: str) -> None:
    assert desktop_notification(TITLE, TEXT, kind, {"TERM": "xterm-kitty"}) == expected


def test_tmux_and_screen_pass_it_on() -> None:
    tmux = {"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "TMUX": "/tmp/tmux-0/default,1,0"}
    assert desktop_notification(TITLE, TEXT, "osc9", tmux) == f"\x1bPtmux;\x1b{OSC_9}\x1b\\"
    screen = {"TERM": "screen.xterm-256color", "STY": "1.pts-0.box"}
    assert desktop_notification(TITLE, TEXT, "osc9", screen) == f"\x1bP{OSC_9}\x1b\\"


def test_foreign_text_cannot_leave_the_sequence() -> None:
    hostile = "a\a\x1b]52;c;eA==\x07;\x9b31m\nb\u202e" + "x" * 2000
    for kind in ("osc9", "osc777"):
        sequence = desktop_notification(hostile, hostile, kind, PLAIN)
        inner = sequence.removeprefix("\x1b]").removesuffix("\a")
        assert inner.isprintable()
        assert len(sequence) < 400
        assert inner.count(";") == (3 if kind == "osc777" else inner.count(";"))


# --- when ----------------------------------------------------------------------------------------------------


class Screen:
    """In place of the app: what is written to its driver."""

    is_headless = is_web = False

    def __init__(self) -> None:
        self._driver = self
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(alerts, "_is_terminal", lambda: True)
    monkeypatch.setattr(alerts.os, "environ", {"TERM": "xterm-kitty"})
    return Screen()


def alerts_on(screen: Any, **values: object) -> Alerts:
    configuration = Configuration("")
    configuration.values |= {f"notifications.{name}": value for name, value in values.items()}
    return Alerts(screen, configuration)


def listed(*states: str) -> list[RunSummary]:
    return [RunSummary(id=f"run-{n}", state=state, created=0.0, note="why") for n, state in enumerate(states)]  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["finished", "failed", "diverged", "died", "unsaved"])
def test_a_run_that_ends_is_reported_once(state: str, screen: Screen) -> None:
    watch = alerts_on(screen)
    for states in (["running"], [state], [state]):
        watch.look_at_list(listed(*states))
    assert screen.written == [f"\x1b]777;notify;epochtop: run-0 {state};why\a\a"]


def test_runs_that_had_ended_before_and_stopped_ones_are_not_reported(screen: Screen) -> None:
    watch = alerts_on(screen)
    watch.look_at_list(listed("finished", "running"))
    watch.look_at_list(listed("finished", "stopped"))
    assert screen.written == []


def test_many_runs_that_end_at_once_are_counted(screen: Screen) -> None:
    watch = alerts_on(screen, bell=False)
    watch.look_at_list(listed(*["running"] * 9))
    watch.look_at_list(listed(*["finished"] * 9))
    (written,) = screen.written
    assert written.count("\a") == 3
    assert "epochtop: 7 more runs have ended" in written


def test_a_list_that_was_read_before_the_end_does_not_ring_again(screen: Screen) -> None:
    watch = alerts_on(screen)
    session: Any = SimpleNamespace(
        catching_up=False,
        run=Path("/home/runs/run-0"),
        name="run-0",
        state=SimpleNamespace(state="running", verdict=lambda: ""),
    )
    watch.look_at_open(session, Path("/home/runs"))
    session.state.state = "finished"
    watch.look_at_open(session, Path("/home/runs"))
    watch.look_at_list(listed("running"))
    watch.look_at_list(listed("finished"))
    assert len(screen.written) == 1


def test_everything_can_be_off(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    for values in ({"bell": False, "desktop": "off"}, {"events": ()}):
        watch = alerts_on(screen, **values)
        watch.look_at_list(listed("running"))
        watch.look_at_list(listed("finished"))
    monkeypatch.setattr(alerts, "_is_terminal", lambda: False)
    watch = alerts_on(screen)
    watch.look_at_list(listed("running"))
    watch.look_at_list(listed("finished"))
    assert screen.written == []


# --- on a terminal -------------------------------------------------------------------------------------------


def test_the_app_rings_when_its_run_ends_and_keeps_its_frames_whole(app: Any, home: Path) -> None:
    values = losses_like_iris(600)
    run = write_run(home, "iris-mlp-0001", [started(), *windows(values)])
    with engine_alive(run):
        terminal: Terminal = app("attach", run.name, TERM="xterm-kitty")
        terminal.wait_for(lambda shown: step_of(shown) == 600)
        assert b"]777;" not in terminal.output
        with open(run / EVENTS, "ab") as log:
            log.write(encode(finished("finished", values)) + b"\n")
        terminal.wait_for("finished")
        wait_until(lambda: b"]777;" in terminal.output)
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
    sent = terminal.output.decode()
    assert sent.count("\x1b]777;notify;epochtop: iris-mlp-0001 finished;") == 1
    before, _, after = sent.partition("\x1b]777;")
    assert before.count("\x1b[?2026h") == before.count("\x1b[?2026l"), "inside a frame"
    assert after.partition("\a")[2].startswith("\a"), "the bell"
