"""Commands execute the task of another user's run only after a question that names the owner."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs import ownership
from epochtop.engine.runs.ownership import Risk
from epochtop.tui.cli import main
from epochtop.tui.cli.engine import ask_to_trust
from tests.support.fakes.owners import OTHER, as_root, give_away
from tests.support.runs import events_of, write_run

TASK = "/home/eve/train.py:make_task"


class Terminal(io.StringIO):
    """A standard input at which a user answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(home: Path) -> Path:
    return write_run(home, "train-own-1a2b", events_of("stopped"), task=TASK)


@pytest.fixture
def of_eve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run belongs to another user."""
    monkeypatch.setattr(ownership, "code_risks", lambda run: [Risk(run, "belongs to eve", "eve")])


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    """What the user types; returns what the user sees."""
    seen = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(text))
    monkeypatch.setattr("sys.stderr", seen)
    return seen


@pytest.mark.usefixtures("of_eve")
@pytest.mark.parametrize("text", ["y\n", "yes\n"])
def test_a_yes_executes_the_task(text: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = answer(monkeypatch, text)
    assert ask_to_trust(run, "") == "eve"
    assert seen.getvalue() == f"{run.name} belongs to eve. Execute its task {TASK} as you? [y/N] "


@pytest.mark.usefixtures("of_eve")
@pytest.mark.parametrize("text", ["n\n", "\n", "", "eve\n"])
def test_every_other_answer_does_not(text: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, text)
    with pytest.raises(Invalid, match="the task of eve was not executed"):
        ask_to_trust(run, "")


@pytest.mark.usefixtures("of_eve")
def test_without_a_terminal_only_the_flag_with_the_owners_name_helps(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    for trusted_owner in ("", "adam"):
        with pytest.raises(Invalid, match=r"belongs to eve .* add --trust eve"):
            ask_to_trust(run, trusted_owner)
    assert ask_to_trust(run, "eve") == "eve"


def test_the_users_own_run_needs_no_question(run: Path) -> None:
    assert ask_to_trust(run, "") == ""


@as_root
@pytest.mark.parametrize(
    "arguments", [["resume", "last"], ["predict", "last", "rows.csv"], ["export", "last", "--format", "onnx"]]
)
def test_every_command_that_executes_a_task_refuses_it(
    arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_away(run)
    assert main.run(arguments) == 2
    assert f"belongs to {OTHER.pw_name}" in capsys.readouterr().err
