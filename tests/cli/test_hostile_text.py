"""Foreign text on the command line: terminals get plain text, programs and files get the original."""

from __future__ import annotations

import io
import json
import sys
from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.process import commands, torchrun
from epochtop.engine.protocol.events import Concluded, Failed, Losses, Measured, encode
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.requests import LayerFact, ModelSummary
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.paths import EVENTS, OUTPUT
from epochtop.engine.terminal import output
from epochtop.engine.terminal.plain import is_plain, masked, plain_json, plain_line, plain_text
from epochtop.tui.cli.main import run
from epochtop.tui.cli.model_summary import summary_lines
from epochtop.tui.cli.train import Bar, Lines, Quiet
from epochtop.tui.client.foreground import exit_status
from epochtop.tui.state.lines import MessageLine
from tests.support.lab_runs import prepared, write_experiment
from tests.support.runs import CREATED, started, write_run
from tests.support.ui.hostile import ESCAPES, EVERYTHING, HOSTILE, MARKUP, unsafe_characters

CELL = "night \x1b]52;c;cm0=\x07 \u202erun\u202c \u200b[/INST]"
FOLDER = "iris-\x1b]0;owned\x07\u202e7f3a"
Captured = pytest.CaptureFixture[str]


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal from now on."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def a_hostile_run(home: Path) -> Path:
    failed = Failed(
        time=CREATED + 3, step=0, message=EVERYTHING, advice=EVERYTHING, traceback=f"Traceback:\n  {EVERYTHING}"
    )
    losses = Losses(first_step=0, seconds=0.1, values=array("f", [0.5]).tobytes(), reads=1, waited=0.0)
    path = write_run(home, FOLDER, [started(10), losses, failed], name="night run", task=f"{ESCAPES[0]}.py:make")
    (path / OUTPUT).write_text(EVERYTHING, encoding="utf-8")
    return path


# --- the functions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ESCAPES)
def test_no_unsafe_character_is_left(text: str) -> None:
    for clean in (plain_text(text), plain_line(text), masked(text), plain_json(text)):
        assert unsafe_characters(clean) == set()
        assert clean
    assert not is_plain(text)
    assert len(masked(text)) == len(text)


@given(st.text())
def test_any_text_becomes_plain(text: str) -> None:
    assert unsafe_characters(plain_text(text)) == unsafe_characters(masked(text)) == set()
    assert not {"\n", "\t"} & set(plain_line(text))
    assert plain_text(plain_text(text)) == plain_text(text)
    assert json.loads(plain_json(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b", "\\x9b"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\udcff"),
        ("\r", "\\r"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        *((text, text) for text in MARKUP),
        ("é ü 漢字 नमस्ते 🎉 ≤ ±", "é ü 漢字 नमस्ते 🎉 ≤ ±"),
    ],
)
def test_escapes_are_visible_and_the_rest_stays(text: str, expected: str) -> None:
    assert plain_text(text) == expected


def test_a_line_has_no_line_breaks() -> None:
    assert plain_line("two\nlines\tand a tab") == "two\\nlines\\tand a tab"


# --- the streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_text_for_people_is_plain_in_a_pipe_too(text: str, capsys: Captured) -> None:
    output.write(text)
    output.write_error(text)
    assert capsys.readouterr() == (plain_text(text), plain_text(text))


def test_only_our_colors_stay_in_a_row(capsys: Captured) -> None:
    output.write_colored("\x1b[31mred\x1b[0m \x1b[2J \x1b]0;title\x07 \u202e\n")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m \\x1b[2J \\x1b]0;title\\x07 \\u202e\n"


def test_an_output_log_keeps_the_original(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    output.write_log(EVERYTHING)
    assert capsys.readouterr().err == EVERYTHING
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    output.write_log(EVERYTHING)
    assert capsys.readouterr().err == plain_text(EVERYTHING)


def test_an_unexpected_error_is_plain_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # restored at the end
    output.plain_tracebacks()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sys.excepthook(ValueError, ValueError(EVERYTHING), None)
    err = capsys.readouterr().err
    assert plain_text(EVERYTHING) in err
    assert unsafe_characters(err) == set()


def test_progress_overwrites_one_line(capsys: Captured) -> None:
    output.show_progress("half\x1b[2J\nway")
    output.clear_progress()
    assert capsys.readouterr().err == "\rhalf\\x1b[2J\\nway\x1b[K\r\x1b[K"


# --- the commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("runs",), ("stop", "last"), ("attach", "last")])
def test_a_command_about_a_hostile_run_is_plain(arguments: tuple[str, ...], home: Path, capsys: Captured) -> None:
    a_hostile_run(home)
    run(list(arguments))
    out, err = capsys.readouterr()
    assert out + err
    assert unsafe_characters(out + err) == set()


def test_the_list_of_runs_shows_every_word(home: Path, capsys: Captured) -> None:
    a_hostile_run(home)
    assert run(["runs"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2  # a heading and one run: no name can add a row
    assert plain_line(FOLDER) in out
    assert "[rank0]: boom" in out


def test_json_keeps_the_original(home: Path, capsys: Captured) -> None:
    a_hostile_run(home)
    assert run(["runs", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)[0]["note"] == EVERYTHING
    assert "\u202e" in out


def test_json_on_a_terminal_is_plain_and_the_same_data(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch)
    a_hostile_run(home)
    assert run(["runs", "--json"]) == 0
    out = capsys.readouterr().out
    assert unsafe_characters(out) == set()
    assert json.loads(out)[0]["note"] == EVERYTHING


def a_hostile_result(home: Path) -> Path:
    end = Concluded(
        time=CREATED + 51, seconds=41.2, outcome="finished",
        verdict=Verdict(finding=EVERYTHING, evidence=(EVERYTHING,), next_step=EVERYTHING, uncertainty=EVERYTHING),
    )  # fmt: skip
    return write_experiment(home, "reads-7f3a", [prepared(), Measured(values={"kind": CELL, CELL: 1}), end])


def test_the_list_of_results_is_plain(home: Path, capsys: Captured) -> None:
    a_hostile_result(home)
    assert run(["lab", "--results"]) == 0
    out = capsys.readouterr().out
    assert unsafe_characters(out) == set()
    assert "[rank0]: boom" in out


def test_exported_rows_keep_the_original(home: Path, capsys: Captured, tmp_path: Path) -> None:
    a_hostile_result(home)
    assert run(["export", "reads-7f3a", "--format", "csv"]) == 0
    assert CELL in capsys.readouterr().out
    file = tmp_path / "rows.csv"
    assert run(["export", "reads-7f3a", "--format", "csv", "--output", str(file)]) == 0
    assert CELL in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_on_a_terminal_are_plain(form: str, home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_terminal(monkeypatch)
    a_hostile_result(home)
    assert run(["export", "reads-7f3a", "--format", form]) == 0
    out = capsys.readouterr().out
    assert "night" in out
    assert unsafe_characters(out) == set()


def test_a_damaged_log_is_reported_in_plain_text(home: Path, capsys: Captured) -> None:
    path = a_hostile_run(home)
    with open(path / EVENTS, "ab") as log:
        log.write('{"type": "\x9b31m\u202e"}\n'.encode())
    assert run(["export", "last", "--format", "csv"]) == 0
    assert unsafe_characters(capsys.readouterr().err) == set()


@pytest.mark.parametrize("text", HOSTILE)
def test_errors_are_plain(text: str, capsys: Captured) -> None:
    def refuse() -> int:
        raise Invalid("", text)

    assert exit_status(refuse) == 2
    assert capsys.readouterr().err == f"epochtop: {plain_text(text)}\n"


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text])
def test_an_engine_command_complains_in_plain_text(text: str, capsys: Captured) -> None:
    assert commands.main(["predict", f"no such run {text}", f"no such file {text}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("epochtop: ")
    assert unsafe_characters(err) == set()


def test_training_without_a_screen_ends_in_plain_text(home: Path, capsys: Captured) -> None:
    torchrun._print_end(a_hostile_run(home))
    err = capsys.readouterr().err
    assert unsafe_characters(err) == set()
    assert all(text in err for text in MARKUP)
    assert torchrun.main([EVERYTHING]) == 2
    assert unsafe_characters(capsys.readouterr().err) == set()


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_of_a_training_are_plain(text: str, capsys: Captured) -> None:
    Lines().show(MessageLine(text, "warning"))
    Quiet().show(MessageLine(text, "warning"))
    assert capsys.readouterr() == (f"{plain_text(text)}\n", f"{plain_text(text)}\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_above_the_bar_are_plain(text: str) -> None:
    bar, written = Bar(), io.StringIO()
    bar.bar.console.file = written
    bar.bar.console.width = 500
    bar.show(MessageLine(text))
    assert written.getvalue() == f"{plain_text(text)}\n"


def test_a_model_summary_is_plain_and_aligned() -> None:
    layers = tuple(
        LayerFact(name=text, kind=text, output=(1,), parameters=1, output_bytes=4) for text in (*HOSTILE, "short")
    )
    summary = ModelSummary(layers=layers, parameters=1, trained=1, activation_bytes=4, rows=1)
    lines = summary_lines(summary)
    assert unsafe_characters("\n".join(lines)) == set()
    assert len({len(line) for line in lines[:-2]}) == 1


def test_hostile_text_survives_the_log() -> None:
    """Files keep the original: an event holds what the engine wrote."""
    event = Failed(time=1.0, step=0, message=EVERYTHING)
    assert msgspec.json.decode(encode(event))["message"] == EVERYTHING
