"""The whole app as somebody at a terminal has it: real keys, real engines, a real pseudo-terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.protocol import Changed, Finished, Paused, Resumed, Saved, Stop
from engine.rundir import is_alive, read_record, send
from engine.runs import run_paths
from tests.engines import HANGING_S, Watch, events, finished, losses
from tests.made_runs import events_of, losses_like_iris, started, windows, write_run
from tests.made_runs import finished as summary_of
from tests.terminals import (
    APP,
    BACKSPACE,
    CTRL_P,
    CTRL_Q,
    CTRL_S,
    CTRL_X,
    CTRL_Z,
    DELETE,
    DOWN,
    END,
    ENTER,
    ESCAPE,
    HOME,
    RIGHT,
    TAB,
    Terminal,
)

ENDLESS = ("--epochs", "1000000000", "--threads", "1", "--device", "cpu", "--refresh-ms", "50")
"""An Iris run that goes on until it is stopped."""

Open = Callable[..., Terminal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder the app is started in."""
    made = tmp_path / "here"
    made.mkdir()
    return made


@pytest.fixture
def app(folder: Path) -> Iterator[Open]:
    """Starts the app in a terminal of its own; ended afterwards."""
    with ExitStack() as stack:

        def start(*arguments: str, size: tuple[int, int] = (120, 40), **environment: str) -> Terminal:
            return stack.enter_context(Terminal(*APP, *arguments, size=size, folder=folder, environment=environment))

        yield start


def begun(terminal: Terminal, home: Path) -> Watch:
    """Wait for the first loss on the screen; returns a second pair of eyes on the run."""
    terminal.wait_for(lambda shown: step_of(shown) > 0)
    return Watch(run_paths(home)[0])


def step_of(shown: str) -> int:
    """The step in the status line; 0 where there is none."""
    found = re.search(r"step +([\d,]+) of", shown)
    return int(found[1].replace(",", "")) if found else 0


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


# --- the main job ------------------------------------------------------------------------------------------


def test_the_default_run_from_the_command_to_the_verdict(app: Open, home: Path) -> None:
    terminal = app("--start")
    watch = begun(terminal, home)
    shown = terminal.wait_for("finished:")
    end = finished(watch.run)
    assert (end.steps, len(losses(watch.run))) == (20_000, 20_000)
    assert f"loss {end.final_loss:.4f} · test {end.test_loss:.4f} · accuracy {end.test_metric:.4f}" in shown
    assert "finished ✓" in shown.splitlines()[0]
    shown = terminal.wait_for(f"✓  {watch.run.name}")
    assert "20,000 steps on cpu" in shown
    assert any("⠒" in row or "⠤" in row for row in shown.splitlines()), "no curve"
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
    ended(terminal)
    assert "Traceback" not in terminal.output.decode()


def test_start_pause_change_resume_save_and_stop_by_keys(app: Open, home: Path) -> None:
    terminal = app(*ENDLESS)
    terminal.wait_for("steps on cpu")
    terminal.press(CTRL_S)
    watch = begun(terminal, home)

    terminal.press(" ")
    terminal.wait_for("paused ‖")
    paused = watch.until(Paused)
    change_rate(terminal, "0.5")
    first = watch.until(Changed)
    assert len(losses(watch.run)) == paused.step == first.step
    assert f"step {paused.step:,} of" in re.sub(" +", " ", terminal.text)

    terminal.press(" ")
    terminal.wait_for("running ●")
    assert watch.until(Resumed).step == paused.step
    goes_on(terminal)
    change_rate(terminal, "0.02")
    second = watch.until(Changed, lambda event: event.step > first.step)
    assert (first.field, first.value, second.value) == ("learning_rate", 0.5, 0.02)
    assert str(os.getpid()) not in first.by
    assert str(terminal.process.pid) in first.by

    terminal.press("4")
    terminal.wait_for(f"learning_rate is 0.02 from step {second.step:,}")
    terminal.press("s")
    saved = watch.until(Saved)
    terminal.wait_for(f"saved checkpoint 'last' of step {saved.step:,}")
    terminal.press(CTRL_X)
    shown = terminal.wait_for("stopped:")
    end = finished(watch.run)
    assert (end.outcome, end.steps) == ("stopped", len(losses(watch.run)))
    assert f"stopped: {end.steps:,} steps" in shown
    last = [event for event in events(watch.run) if isinstance(event, Saved) and event.kind == "last"][-1]
    assert last.step == end.steps


def change_rate(terminal: Terminal, rate: str) -> None:
    """Ask for the live settings and type another learning rate."""
    terminal.press("r")
    terminal.wait_for("Apply")
    while f"Learning rate     {rate}" not in terminal.text:
        terminal.press(END, *[BACKSPACE] * 12, *rate)
        time.sleep(0.3)
    terminal.press(ENTER)
    terminal.wait_without("Apply")


def test_a_rate_that_is_out_of_bounds_is_explained_and_not_sent(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.press("r")
    terminal.wait_for("Apply")
    time.sleep(0.3)
    terminal.press(END, *[BACKSPACE] * 12, "-", "1", ENTER)
    terminal.wait_for("'-1' is not a number above 0 to 1,000,000")
    terminal.press(ESCAPE)
    terminal.wait_without("Apply")
    end_of(watch.run)
    assert not any(isinstance(event, Changed) for event in events(watch.run))


def test_what_arrives_in_one_packet_of_a_slow_line_keeps_its_order(app: Open) -> None:
    terminal = app(*ENDLESS)
    terminal.wait_for("steps on cpu")
    terminal.press("1")
    terminal.wait_for("^s start ^q quit")  # the focus is in a field
    terminal.press("".join((HOME, DELETE * 4, "wines", BACKSPACE)))
    terminal.wait_for("Dataset        wine ")
    terminal.wait_for("1,000,000,000 steps on cpu · 142")


# --- leaving and coming back -------------------------------------------------------------------------------


def test_a_run_left_running_finishes_and_comes_back_whole(app: Open, home: Path) -> None:
    terminal = app("--start", "--threads", "1", "--epochs", "12000")
    watch = begun(terminal, home)
    terminal.press(CTRL_Q)
    terminal.wait_for("Leave it running")
    terminal.press(ENTER)
    assert terminal.wait() == 0
    ended(terminal)
    end = watch.end()
    assert isinstance(end, Finished)
    assert (end.outcome, len(losses(watch.run))) == ("finished", 12_000)

    again = app("attach", "last")
    shown = again.wait_for("finished: 12,000 steps")
    assert f"loss {end.final_loss:.4f}" in shown
    shown = again.wait_for(lambda text: bool(re.search(r"step +0 .*12,000", text) or re.search(r"step +0 ", text)))
    again.press(CTRL_Q)  # nothing to ask: the run is over
    assert again.wait() == 0


def test_stopping_at_the_question_evaluates_and_saves(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.press(CTRL_Q)
    terminal.wait_for("Stop it")
    terminal.press(TAB)
    terminal.press(ENTER)
    assert terminal.wait() == 0
    end = watch.end()
    assert isinstance(end, Finished)
    assert end.outcome == "stopped"
    assert end.test_loss is not None
    assert any(isinstance(event, Saved) and event.step == end.steps for event in events(watch.run))


@pytest.mark.parametrize("how", ["escape", "button", "twice"])
def test_the_question_can_be_cancelled(app: Open, home: Path, how: str) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.press(CTRL_Q)
    terminal.wait_for("Cancel")
    if how == "escape":
        terminal.press(ESCAPE)
    elif how == "button":
        terminal.click_on("Cancel")
    else:
        terminal.press(CTRL_Q)  # asked again, it leaves
        assert terminal.wait() == 0
        watch.windows(2)
        end_of(watch.run)
        return
    terminal.wait_without("Cancel")
    goes_on(terminal)
    end_of(watch.run)


def test_an_app_opened_beside_a_run_that_goes_on_shows_it(app: Open, home: Path) -> None:
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


def test_an_engine_killed_from_outside_is_shown_as_died_with_its_signal_and_last_words(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    (watch.run / "output.log").write_text("a library printed this\n")
    os.kill(read_record(watch.run).pid, signal.SIGKILL)
    shown = terminal.wait_for("the engine died after step")
    assert "killed by SIGKILL" in shown
    assert "died ✗" in shown.splitlines()[0]
    watch.catch_up()
    assert f"after step {len(losses(watch.run)):,}:" in shown
    terminal.press("4")
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
    listed = subprocess.run([*APP, "runs"], capture_output=True, text=True, check=True, timeout=HANGING_S).stdout
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
    terminal.press("4")
    terminal.wait_for("Log")
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0


# --- sizes, colors, encodings ------------------------------------------------------------------------------


@pytest.fixture
def two_runs(home: Path) -> tuple[Path, Path]:
    """A finished run and a shorter one before it."""
    values = losses_like_iris(2_000, scale=1.2, seed=2)
    older = write_run(
        home, "iris-mlp-11c0", [started(2_000), *windows(values), summary_of("finished", values)], age_s=600
    )
    newer = write_run(home, "iris-mlp-7f3a", events_of("finished"))
    os.utime(older / "lock", (1, 1))
    return newer, older


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_every_size_shows_the_run_its_verdict_and_the_keys(app: Open, size: tuple[int, int]) -> None:
    terminal = app("attach", "last", size=size)
    shown = terminal.wait_for("finished: 20,000 steps")
    shown = terminal.wait_for("^q quit")
    shown = terminal.wait_for("iris-mlp-11c0")
    rows = shown.splitlines()
    assert len(rows) == size[1]
    assert max(map(len, rows)) <= size[0]
    for words in ("iris-mlp-7f3a · finished ✓", "accuracy 0.9667", "^s start", "20,000", "train"):
        assert words in shown
    assert ("1 Train" in shown) == (size == (80, 24))
    assert ("Log ─" in shown) == (size == (200, 60))
    if size == (80, 24):
        terminal.click_on("1 Train")
        terminal.wait_for("Batch size")
        terminal.click_on("3 Machine")
        terminal.wait_for("CPUs")
        terminal.click_on("4 Log")
        terminal.wait_for("saved checkpoint")


@pytest.mark.usefixtures("two_runs")
def test_a_window_that_is_too_small_says_so_and_recovers(app: Open) -> None:
    terminal = app(size=(58, 14))
    terminal.wait_for("epochtop needs 60 × 15 characters")
    terminal.resize(60, 15)
    terminal.wait_for("1 Train")
    terminal.wait_without("epochtop needs")


def test_a_window_can_be_resized_while_the_run_goes_on(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    for size, mark in (((80, 24), "1 Train"), ((58, 14), "needs"), ((200, 60), "Log ─"), ((120, 40), "Machine ─")):
        terminal.resize(*size)
        terminal.wait_for(mark)
        if size != (58, 14):
            goes_on(terminal)
            terminal.wait_for(lambda shown, size=size: len(shown.splitlines()[0]) > size[0] - 10)  # type: ignore[misc]
    for width in range(60, 200, 7):  # as a window that is dragged
        terminal.resize(width, 15 + width // 5)
    goes_on(terminal)
    end_of(watch.run)
    terminal.wait_for("stopped:")


@pytest.mark.usefixtures("two_runs")
def test_a_locale_without_utf8_has_its_box_characters_all_the_same(app: Open) -> None:
    terminal = app("attach", "last", LANG="C", LC_ALL="C", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    shown = terminal.wait_for("finished: 20,000 steps")
    assert "╭─ Loss" in shown
    assert "⠒" in shown
    assert b"\\u" not in terminal.output


@pytest.mark.usefixtures("two_runs")
def test_no_color_shows_everything_in_grays(app: Open) -> None:
    terminal = app("attach", "last", NO_COLOR="1")
    terminal.wait_for("finished: 20,000 steps")
    terminal.wait_for("iris-mlp-11c0")
    for color in terminal.colors() - {"default"}:
        assert color[:2] == color[2:4] == color[4:], f"{color} is no gray"


def test_suspending_gives_the_shell_back_and_fg_returns(home: Path, folder: Path) -> None:
    command = " ".join((*APP, *ENDLESS, "--start"))
    with Terminal("sh", "-i", folder=folder, environment={"PS1": "shell> ", "ENV": ""}) as terminal:
        terminal.wait_for("shell>")
        terminal.press(command + "\n")
        watch = begun(terminal, home)
        before = terminal.output.count(b"\x1b[?1049l")
        terminal.press(CTRL_Z)
        terminal.wait_for(lambda _: terminal.output.count(b"\x1b[?1049l") > before)
        time.sleep(0.5)
        watch.windows(2)  # the engine is no child of the shell's job
        terminal.press("echo in the $((40 + 2)) shell\n")
        terminal.wait_for("in the 42 shell")
        terminal.press("fg\n")
        goes_on(terminal)
        terminal.press(CTRL_X)
        terminal.wait_for("stopped:")
        terminal.press(CTRL_Q)
        terminal.wait_for(lambda _: not terminal.modes()["1049"])


# --- the list of runs --------------------------------------------------------------------------------------


def test_runs_are_overlaid_renamed_loaded_and_deleted_from_the_list(app: Open, two_runs: tuple[Path, Path]) -> None:
    newer, older = two_runs
    terminal = app("attach", newer.name)
    terminal.wait_for("finished: 20,000 steps")
    terminal.wait_for(older.name)
    terminal.press("2")
    terminal.wait_for("o overlay")
    terminal.press(DOWN)
    terminal.press("o")
    shown = terminal.wait_for(lambda text: bool(re.search(rf"{older.name} .* ▪ +│", text)))
    assert sum(older.name in row for row in shown.splitlines()) == 2, "the overlay is named in the legend"
    terminal.press("o")
    terminal.wait_for(lambda text: sum(older.name in row for row in text.splitlines()) == 1)

    terminal.press("n")
    terminal.wait_for(f"A name for {older.name}")
    time.sleep(0.3)
    terminal.press(*"short and wide")
    terminal.wait_for("Name              short and wide")
    terminal.press(ENTER)
    terminal.wait_for("✓  short and wide")
    assert read_record(older).spec.name == "short and wide"
    terminal.press("f")
    terminal.wait_for("the Run panel has the settings of")
    terminal.wait_for("Name           short and wide")

    terminal.press("d")
    terminal.wait_for("cannot be brought back")
    terminal.press(ENTER)  # the first answer keeps it
    terminal.wait_without("cannot be brought back")
    assert older.exists()
    terminal.press("d")
    terminal.wait_for("cannot be brought back")
    time.sleep(0.3)
    terminal.press(RIGHT)
    time.sleep(0.3)
    terminal.press(ENTER)
    terminal.wait_without("✓  short and wide")
    assert not older.exists()
    assert newer.exists()


def test_a_running_run_is_not_deleted(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.wait_for(f"●  {watch.run.name}")
    terminal.press("2")
    terminal.wait_for("del delete")
    terminal.press("d")
    terminal.wait_for("cannot be brought back")
    time.sleep(0.3)
    terminal.press(RIGHT)
    time.sleep(0.3)
    terminal.press(ENTER)
    terminal.wait_for("still running; stop it")
    end_of(watch.run)


def test_what_the_chart_shows_is_written_into_the_folder_of_the_app(
    app: Open, two_runs: tuple[Path, Path], folder: Path
) -> None:
    terminal = app("attach", two_runs[0].name)
    terminal.wait_for("finished: 20,000 steps")
    terminal.press("e")
    terminal.wait_for("exported")
    terminal.press("e")
    names = [f"iris-mlp-7f3a{tail}" for tail in (".csv", ".svg", "-2.csv", "-2.svg")]
    terminal.wait_for(lambda _: sorted(path.name for path in folder.iterdir()) == sorted(names))
    assert ElementTree.parse(folder / "iris-mlp-7f3a.svg").getroot().tag.endswith("svg")
    header, *rows = (folder / "iris-mlp-7f3a.csv").read_text().splitlines()
    assert "step" in header
    assert len(rows) > 50


# --- the form ----------------------------------------------------------------------------------------------


def test_a_wrong_value_is_explained_beside_its_field_and_nothing_starts(app: Open, home: Path) -> None:
    terminal = app()
    terminal.wait_for("20,000 steps on cpu")
    terminal.click_on("Hidden         10")
    time.sleep(0.3)
    terminal.press(END, *"x")
    terminal.wait_for("'10x' is not whole numbers")
    terminal.wait_without("20,000 steps on cpu")  # it would be told of other settings
    terminal.press(CTRL_S)
    terminal.wait_for("not started")
    assert not run_paths(home)
    terminal.press(BACKSPACE)
    terminal.wait_without("is not whole numbers")
    terminal.wait_for("20,000 steps on cpu")


def test_a_table_of_ones_own_is_typed_into_the_form_and_trained(app: Open, home: Path, folder: Path) -> None:
    rows = "\n".join(f"{row},{row % 7},{'ab'[row % 2]}" for row in range(40))
    (folder / "mine.csv").write_text("first,second,kind\n" + rows + "\n")
    terminal = app("--epochs", "200", "--threads", "1")
    terminal.wait_for("200 steps on cpu")
    terminal.press("1")
    terminal.wait_for("^s start ^q quit")
    terminal.press(HOME, DELETE * 4, *"csv:mine.csv")
    terminal.wait_for("first, second, kind")
    terminal.press(ENTER)
    time.sleep(0.3)
    terminal.press(*"kind")
    terminal.wait_for("32 rows")
    terminal.press(CTRL_S)
    terminal.wait_for("finished: 200 steps")
    (run,) = run_paths(home)
    assert run.name.startswith("mine-")
    assert len(losses(run)) == 200


# --- help --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_runs")
def test_help_and_palette_list_what_can_be_done(app: Open) -> None:
    terminal = app("attach", "last")
    terminal.wait_for("finished: 20,000 steps")
    terminal.wait_for("^q quit")
    terminal.press("?")
    shown = terminal.wait_for("Write what the")
    for words in ("^s start", "space pause", "^x stop", "r rate", "s save", "e export", "^z suspend", "^q quit"):
        assert words in shown
    terminal.press("?")
    terminal.wait_without("^z suspend")
    terminal.press(CTRL_P)
    terminal.wait_for("Search for commands")
    terminal.press(*"export")
    terminal.wait_for("Write what the chart shows as SVG and CSV")
    terminal.press(ESCAPE)
    terminal.wait_without("Search for commands")
