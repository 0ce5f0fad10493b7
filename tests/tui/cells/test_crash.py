"""The traceback of an app that crashes sends no escape sequence of a quoted text to the terminal."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.app import App

from epochtop.engine.terminal.plain import is_plain
from epochtop.tui.cells.plain import PlainApp

HOSTILE = "\x1b]52;c;ZXZpbA==\x07 \x9b2J \u202edet\u200b [/INST] [bold]"


class PicturedError(RuntimeError):
    """Has its own picture, which quotes the text again."""

    def __rich__(self) -> Text:
        return Text(f"own picture: {self}")


@pytest.mark.parametrize("error", [RuntimeError, PicturedError])
def test_a_crash_prints_plain_text(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    class Crashing(PlainApp):
        def on_mount(self) -> None:
            quoted = HOSTILE
            raise error(quoted)

    app = Crashing()
    app.run(headless=True)
    printed = capsys.readouterr().err
    assert app.return_code == 1
    assert "]52;c;ZXZpbA==" in printed
    assert "[/INST] [bold]" in printed
    assert is_plain(printed)


def test_textual_alone_would_print_the_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    class Crashing(App[int]):
        def on_mount(self) -> None:
            raise RuntimeError(HOSTILE)

    Crashing().run(headless=True)
    assert not is_plain(capsys.readouterr().err)
