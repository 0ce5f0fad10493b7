"""The whole app as somebody at a terminal has it: real keys, real engines, a real pseudo-terminal."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import Changed, Finished, Paused, Resumed, Saved, Switched
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import is_alive, read_record
from tests.support.engines import HANGING_S, events, finished, losses
from tests.support.ui import commands
from tests.support.ui.apps import ENDLESS, Open, begun, change_rate, end_of, ended, goes_on, move_to, step_of, type_into
from tests.support.ui.slow_task import HURRY
from tests.support.ui.terminals import (
    APP,
    BACKSPACE,
    CTRL_Q,
    CTRL_S,
    CTRL_X,
    DELETE,
    ENTER,
    ESCAPE,
    HOME,
    TAB,
    Terminal,
)

pytestmark = pytest.mark.xdist_group("app")  # these tests mostly wait; the other workers compute meanwhile

# --- the main job ------------------------------------------------------------------------------------------


def test_the_default_run_from_the_command_to_the_verdict(app: Open, home: Path) -> None:
    terminal = app("--start")
    watch = begun(terminal, home)
    terminal.wait_for("finished:")
    end = finished(watch.run)
    assert (end.steps, len(losses(watch.run))) == (20_000, 20_000)
    terminal.wait_for(f"loss {end.final_loss:.4f} · test {end.test_loss:.4f} · accuracy {end.test_metric:.4f}")
    terminal.wait_for(lambda shown: "finished ✓" in shown.splitlines()[0])
    terminal.wait_for(f"✓  {watch.run.name}", "20,000 steps on")
    terminal.wait_for(lambda shown: "⠒" in shown or "⠤" in shown)  # the curve
    assert any(isinstance(event, Switched) and event.executor == "graph" for event in events(watch.run))
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
    ended(terminal)
    assert "Traceback" not in terminal.output.decode()


def test_it_is_seen_where_errors_go_into_a_file(home: Path, tmp_path: Path) -> None:
    command = f"exec {shlex.join(APP)} 2>{shlex.quote(str(tmp_path / 'errors.txt'))}"
    with Terminal("sh", "-c", command, environment={"EPOCHTOP_HOME": str(home)}) as terminal:
        terminal.wait_for("steps on")
        terminal.press(CTRL_Q)
        assert terminal.wait() == 0
    assert (tmp_path / "errors.txt").read_text() == ""


def test_start_pause_change_resume_save_and_stop_by_keys(app: Open, home: Path) -> None:
    terminal = app(*ENDLESS)
    terminal.wait_for("steps on")
    terminal.press(CTRL_S)
    watch = begun(terminal, home)

    terminal.press(" ")
    terminal.wait_for("paused ‖")
    paused = watch.until(Paused)
    change_rate(terminal, "0.5")
    first = watch.until(Changed)
    assert len(losses(watch.run)) == paused.step == first.step
    terminal.wait_for(lambda shown: step_of(shown) == paused.step)

    terminal.press(" ")
    terminal.wait_for("running ●")
    assert watch.until(Resumed).step == paused.step
    goes_on(terminal)
    change_rate(terminal, "0.02")
    second = watch.until(Changed, lambda event: event.step > first.step)
    assert (first.field, first.value, second.value) == ("learning_rate", 0.5, 0.02)
    assert str(os.getpid()) not in first.by
    assert str(terminal.process.pid) in first.by

    terminal.press("5")
    terminal.wait_for(f"learning_rate is 0.02 from step {second.step:,}")
    watch.catch_up()
    before = len(watch.seen)
    terminal.press("s")
    saved = watch.until(Saved, lambda event: event.kind == "last", start=before)
    terminal.wait_for(f"saved checkpoint 'last' of step {saved.step:,}")
    terminal.press(CTRL_X)
    terminal.wait_for("stopped:")
    end = finished(watch.run)
    assert (end.outcome, end.steps) == ("stopped", len(losses(watch.run)))
    terminal.wait_for(f"stopped: {end.steps:,} steps")
    last = [event for event in events(watch.run) if isinstance(event, Saved) and event.kind == "last"][-1]
    assert last.step == end.steps


def test_a_rate_that_is_out_of_bounds_is_explained_and_not_sent(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.press("r")
    terminal.wait_for("Apply")
    type_into(terminal, "Learning rate     ", "-1")
    terminal.press(ENTER)
    terminal.wait_for("'-1' is not a number above 0 and up to")
    terminal.press(ESCAPE)
    terminal.wait_without("Apply")
    end_of(watch.run)
    assert not any(isinstance(event, Changed) for event in events(watch.run))


def test_what_arrives_in_one_packet_of_a_slow_line_keeps_its_order(app: Open) -> None:
    terminal = app()
    terminal.wait_for("steps on")
    terminal.press("1")
    terminal.wait_for("^s start ^q quit")  # the focus is in a field
    terminal.press("".join((HOME, DELETE * 4, "wines", BACKSPACE)))
    terminal.wait_for("Dataset        wine ")
    terminal.wait_for("142 rows")


# --- leaving and coming back -------------------------------------------------------------------------------


def test_a_run_left_running_finishes_and_comes_back_whole(app: Open, home: Path, folder: Path) -> None:
    terminal = app("--start", *ENDLESS, "--epochs", "6000", "--learning-rate", "1e-5")  # two batches in each
    watch = begun(terminal, home)
    terminal.press(CTRL_Q)
    move_to(terminal, "Leave it running")
    terminal.press(ENTER)
    assert terminal.wait() == 0
    ended(terminal)
    assert is_alive(watch.run)
    (folder / HURRY).touch()
    end = watch.end()
    assert isinstance(end, Finished)
    assert (end.outcome, len(losses(watch.run))) == ("finished", 12_000)

    again = app("attach", "last")
    again.wait_for("finished: 12,000 steps", f"loss {end.final_loss:.4f}")
    again.wait_for(lambda text: bool(re.search(r"step +0 .*12,000", text) or re.search(r"step +0 ", text)))
    again.press(CTRL_Q)  # nothing to ask: the run is over
    assert again.wait() == 0


def test_stopping_at_the_question_evaluates_and_saves(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.press(CTRL_Q)
    move_to(terminal, "Stop it", TAB, first="Leave it running")
    terminal.press(ENTER)
    assert terminal.wait() == 0
    end = watch.end()
    assert isinstance(end, Finished)
    assert end.outcome == "stopped"
    assert end.test_loss is not None
    assert any(isinstance(event, Saved) and event.step == end.steps for event in events(watch.run))


def test_the_question_can_be_canceled_and_asking_twice_leaves(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    for key in (ESCAPE, ""):
        terminal.press(CTRL_Q)
        terminal.wait_for("Cancel")
        terminal.press(key)
        if not key:
            terminal.click_on("Cancel")
        terminal.wait_without("Cancel")
        goes_on(terminal)
    terminal.press(CTRL_Q)
    terminal.wait_for("Cancel")
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
    watch.windows(2)
    end_of(watch.run)


def test_leaving_while_a_run_begins_asks_what_becomes_of_it(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    terminal.wait_for("· torch 2")  # and now it begins
    terminal.press(CTRL_Q)
    terminal.wait_for("Leave it running", "Stop it")
    terminal.click_on("Stop it")
    assert terminal.wait() == 0
    (run,) = run_paths(home)
    assert end_of(run).outcome == "stopped"


def test_an_app_opened_next_to_a_live_run_shows_it(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.kill(signal.SIGTERM)
    terminal.wait()
    again = app()
    goes_on(again)
    end = end_of(watch.run)
    again.wait_for(f"stopped: {end.steps:,} steps")


# --- deaths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hang up", "SIGTERM", "SIGKILL"])
def test_a_run_outlives_its_app(app: Open, home: Path, how: str) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    if how == "hang up":
        terminal.hang_up()
    else:
        terminal.kill(signal.Signals[how])
    status = terminal.wait()
    assert status == {"hang up": 129, "SIGTERM": 143, "SIGKILL": -9}[how]
    if how == "SIGTERM":
        ended(terminal)
    watch.windows(3)
    assert is_alive(watch.run)
    assert end_of(watch.run).outcome == "stopped"


def test_a_failed_read_of_a_closed_terminal_is_a_hang_up(home: Path) -> None:
    """The reading thread may notice first. Here no SIGHUP comes at all, and the kernel's EIO is planted."""
    program = """if True:
        import errno, os, sys
        read = os.read
        def read_or_fail(descriptor, size):
            data = read(descriptor, size)
            if not data and descriptor == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return data
        os.read = read_or_fail
        from epochtop.tui.__main__ import main
        main()
    """
    command = f"trap '' HUP; setsid --wait {shlex.join((sys.executable, '-P', '-c', program))}; exit $?"
    with Terminal("sh", "-c", command, environment={"EPOCHTOP_HOME": str(home)}) as terminal:
        terminal.wait_for("steps on")
        terminal.hang_up()
        assert terminal.wait() == 129


def test_an_engine_killed_from_outside_is_shown_as_died_with_its_signal_and_last_words(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    (watch.run / "output.log").write_text("a library printed this\n")
    os.kill(read_record(watch.run).pid, signal.SIGKILL)
    terminal.wait_for("the engine died after step", "killed by SIGKILL")
    terminal.wait_for(lambda shown: "died ✗" in shown.splitlines()[0])
    watch.catch_up()
    terminal.wait_for(f"after step {len(losses(watch.run)):,}:")
    terminal.press("5")
    terminal.wait_for("output.log | a library printed this")
    terminal.wait_for(f"✗  {watch.run.name}  ")
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0


def test_app_and_engine_killed_together_leave_a_run_that_is_listed_as_died(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    watch.windows(2)
    watch.catch_up()
    terminal.kill(signal.SIGKILL)
    os.kill(read_record(watch.run).pid, signal.SIGKILL)
    terminal.wait()
    while is_alive(watch.run):
        time.sleep(0.01)
    seen = len(watch.seen)
    assert events(watch.run)[:seen] == watch.seen
    assert len(losses(watch.run)) > 0
    listed = commands.run("runs", timeout=HANGING_S).stdout
    assert re.search(rf"{watch.run.name} .*died", listed)
    again = app("attach", watch.run.name)
    again.wait_for("the engine died after step")


# --- several viewers ---------------------------------------------------------------------------------------


def test_two_viewers_of_one_run_see_each_others_commands_and_the_same_end(app: Open, home: Path) -> None:
    one = app("--start", *ENDLESS)
    watch = begun(one, home)
    two = app("attach", watch.run.name)
    goes_on(two)
    two.press(" ")
    one.wait_for("paused ‖")
    two.wait_for("paused ‖")
    one.press(" ")
    two.wait_for("running ●")
    one.wait_for("running ●")
    two.press(CTRL_X)
    verdicts = [terminal.wait_for("stopped:").splitlines()[-2].strip() for terminal in (one, two)]
    assert verdicts[0] == verdicts[1]
    assert f"{finished(watch.run).steps:,} steps" in verdicts[0]


def test_a_terminal_that_stalls_slows_neither_run_nor_app(app: Open, home: Path) -> None:
    terminal = app("--start", "--threads", "1")
    watch = begun(terminal, home)
    terminal.stall()
    end = watch.end()
    assert isinstance(end, Finished)
    assert end.steps == 20_000
    terminal.go_on()
    terminal.wait_for("finished: 20,000 steps")
    terminal.press("5")
    terminal.wait_for("Log")
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
