"""Sizes, lists, forms and help of the app in a real pseudo-terminal."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest

from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.reader import read_record
from tests.support.engines import losses, wait_until
from tests.support.runs import events_of, losses_like_iris, started, windows, write_run
from tests.support.runs import finished as summary_of
from tests.support.ui.apps import ENDLESS, Open, begun, end_of, ended, goes_on, move_to, type_into
from tests.support.ui.terminals import (
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
    ENTER_SCREEN,
    ESCAPE,
    HOME,
    RIGHT,
    Terminal,
)

pytestmark = pytest.mark.xdist_group("regions")  # these tests mostly wait; the other workers compute meanwhile

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
    words = ("iris-mlp-7f3a · finished ✓", "accuracy 0.9667", "^s start", "^q quit", "20,000", "train", "iris-mlp-11c0")
    shown = terminal.wait_for("finished: 20,000 steps", *words)
    rows = shown.splitlines()
    assert len(rows) == size[1]
    assert max(map(len, rows)) <= size[0]
    assert ("1 Train" in shown) == (size == (80, 24))
    assert ("Log ─" in shown) == (size == (200, 60))
    if size == (80, 24):
        terminal.click_on("1 Train")
        terminal.wait_for("Batch size")
        terminal.click_on("3 Machine")
        terminal.wait_for("CPUs")
        terminal.click_on("5 Log")
        terminal.wait_for("saved checkpoint")


@pytest.mark.usefixtures("two_runs")
def test_a_window_that_is_too_small_says_so_and_recovers(app: Open) -> None:
    terminal = app(size=(58, 14))
    terminal.wait_for("epochtop needs 60 × 15 characters")
    terminal.resize(60, 15)
    terminal.wait_for("1 Train")
    terminal.wait_without("epochtop needs")


def test_a_window_can_be_resized_while_the_run_continues(app: Open, home: Path) -> None:
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
    terminal.wait_for("finished: 20,000 steps", "╭─ Loss", "⠒")
    assert b"\\u" not in terminal.output


@pytest.mark.usefixtures("two_runs")
def test_no_color_shows_everything_in_grays(app: Open) -> None:
    terminal = app("attach", "last", NO_COLOR="1")
    terminal.wait_for("finished: 20,000 steps")
    terminal.wait_for("iris-mlp-11c0")
    for color in terminal.colors() - {"default"}:
        assert color[:2] == color[2:4] == color[4:], f"{color} is not a gray"


def test_suspending_gives_the_shell_back_and_fg_returns(home: Path, folder: Path) -> None:
    command = " ".join((*APP, *ENDLESS, "--start"))
    with Terminal("sh", "-i", folder=folder, environment={"PS1": "shell> ", "ENV": ""}) as terminal:
        terminal.wait_for("shell>")
        terminal.press(command + "\n")
        watch = begun(terminal, home)
        before = terminal.output.count(b"\x1b[?1049l")
        terminal.press(CTRL_Z)
        terminal.wait_for(lambda _: terminal.output.count(b"\x1b[?1049l") > before)
        terminal.wait_for(
            lambda _: b"shell> " in terminal.output.rpartition(b"\x1b[?1049l")[2]
        )  # it reads the next line
        watch.windows(2)  # the engine is not a child of the shell's job
        terminal.press("echo in the $((40 + 2)) shell\n")
        terminal.wait_for("in the 42 shell")
        terminal.press("fg\n")
        goes_on(terminal)
        terminal.press(CTRL_X)
        terminal.wait_for("stopped:")
        terminal.press(CTRL_Q)
        terminal.wait_for(lambda _: not terminal.modes()["1049"])


def test_an_app_that_was_stopped_from_outside_restores_the_terminal(app: Open, two_runs: tuple[Path, Path]) -> None:
    terminal = app("attach", two_runs[0].name)
    terminal.wait_for("finished: 20,000 steps")
    assert terminal.echoes is False
    for times in (1, 2):
        terminal.kill(signal.SIGSTOP)
        terminal.kill(signal.SIGCONT)
        wait_until(lambda times=times: terminal.output.count(ENTER_SCREEN) == times + 1)
        terminal.wait_for("finished: 20,000 steps")
    terminal.press("?")
    terminal.wait_for("^z suspend")  # one thread reads the keys, so that none is lost
    terminal.press(CTRL_Q)
    assert terminal.wait() == 0
    ended(terminal)
    assert terminal.echoes


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
    terminal.wait_for(lambda text: bool(re.search(rf"{older.name} .* ▪ *│", text)))
    terminal.wait_for(lambda text: sum(older.name in row for row in text.splitlines()) == 2)  # also in the legend
    terminal.press("o")
    terminal.wait_for(lambda text: sum(older.name in row for row in text.splitlines()) == 1)

    terminal.press("n")
    terminal.wait_for(f"New name of {older.name}")
    type_into(terminal, "Name              ", "short and wide")
    terminal.press(ENTER)
    terminal.wait_for("✓  short and wide")
    assert read_record(older).spec.name == "short and wide"
    terminal.press("f")
    terminal.wait_for("copied to the Run panel")
    terminal.wait_for("Name           short and wide")

    terminal.press("d")
    terminal.wait_for("cannot be undone")
    move_to(terminal, "Keep")
    terminal.press(ENTER)
    terminal.wait_without("cannot be undone")
    assert older.exists()
    terminal.press("d")
    terminal.wait_for("cannot be undone")
    move_to(terminal, "Delete", RIGHT, first="Keep")
    terminal.press(ENTER)
    terminal.wait_without("✓  short and wide")
    wait_until(lambda: not older.exists())
    assert newer.exists()


def test_a_running_run_is_not_deleted(app: Open, home: Path) -> None:
    terminal = app("--start", *ENDLESS)
    watch = begun(terminal, home)
    terminal.wait_for(f"●  {watch.run.name}")
    terminal.press("2")
    terminal.wait_for("n rename")
    terminal.press("d")
    terminal.wait_for("cannot be undone")
    move_to(terminal, "Delete", RIGHT, first="Keep")
    terminal.press(ENTER)
    terminal.wait_for("still running; stop it")
    terminal.press("d")
    terminal.wait_for("cannot be undone")
    terminal.press(CTRL_Q)  # one question is not an answer to another
    terminal.wait_for("Leave it running")
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


@pytest.mark.parametrize("width", [80, 100])
def test_ids_that_do_not_fit_can_still_be_distinguished(app: Open, home: Path, width: int) -> None:
    for tail in ("11c0", "7f3a"):
        write_run(home, f"breast-cancer-mlp-{tail}", events_of("stopped"))
    terminal = app(size=(width, 30))
    terminal.wait_for("…11c0")
    terminal.wait_for("…7f3a")


# --- the form ----------------------------------------------------------------------------------------------


def test_a_wrong_value_is_explained_next_to_its_field_and_nothing_starts(app: Open, home: Path) -> None:
    terminal = app()
    terminal.wait_for("20,000 steps on")
    terminal.click_on("Hidden         10")
    terminal.wait_for("^s start ^q quit")  # the focus is in a field
    terminal.press(END, *"x")
    terminal.wait_for("'10x' is not whole numbers")
    terminal.wait_without("20,000 steps on")  # it would be told of other settings
    terminal.press(CTRL_S)
    terminal.wait_for("not started")
    assert not run_paths(home)
    terminal.press(BACKSPACE)
    terminal.wait_without("is not whole numbers")
    terminal.wait_for("20,000 steps on")


def test_a_table_of_ones_own_is_typed_into_the_form_and_trained(app: Open, home: Path, folder: Path) -> None:
    rows = "\n".join(f"{row},{row % 7},{'ab'[row % 2]}" for row in range(40))
    (folder / "mine.csv").write_text("first,second,kind\n" + rows + "\n")
    terminal = app("--epochs", "200", "--threads", "1")
    terminal.wait_for("200 steps on")
    terminal.press("1")
    terminal.wait_for("^s start ^q quit")
    terminal.press(HOME, DELETE * 4, *"csv:mine.csv")
    terminal.wait_for("kind")  # the last of the columns in the message, whose lines break where the path makes them
    terminal.press(ENTER)
    terminal.wait_for(lambda _: terminal.has_cursor_after("Target         "))
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
    for words in ("^s start", "space pause", "^x stop", "r rate", "s save", "e export", "^z suspend", "^q quit"):
        terminal.wait_for(words)
    terminal.press("?")
    terminal.wait_without("^z suspend")
    terminal.press(CTRL_P)
    terminal.wait_for("Search for commands")
    terminal.press(*"export")
    terminal.wait_for("Write the chart as SVG and CSV")
    terminal.press(ESCAPE)
    terminal.wait_without("Search for commands")
