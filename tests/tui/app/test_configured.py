"""What config.toml changes in the app."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochtop.configuration.load import Configuration
from epochtop.tui.app.app import EpochtopApp
from epochtop.tui.app.launch import run_app
from tests.support.ui.screens import furnished


@pytest.mark.parametrize(
    ("theme", "shown", "problems"), [("nord", "nord", 0), ("", "textual-dark", 0), ("nrod", "textual-dark", 1)]
)
async def test_the_theme_is_used_and_an_unknown_one_is_reported(
    theme: str, shown: str, problems: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    configuration = Configuration("config.toml")
    configuration.values |= {"theme": theme, "refresh_s": 1.0}
    app = EpochtopApp(home, live=False, host="box", configuration=configuration)
    messages = list[str]()  # the notifications themselves expire
    monkeypatch.setattr(app, "notify", lambda message, **_: messages.append(message))
    async with app.run_test(size=(120, 40)) as pilot:
        await furnished(pilot)
        assert app.theme == shown
        assert app.pulses_per_picture == 20
        assert len(messages) == problems
        assert all('theme is "nrod", but must be one of' in message for message in messages)


def test_a_home_that_cannot_be_written_is_named_before_the_app_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("EPOCHTOP_HOME", str(file / "runs"))
    assert run_app() == 2
    error = f"epochtop: cannot write runs to {file / 'runs'}: Not a directory; set EPOCHTOP_HOME to a folder you can write to"
    assert capsys.readouterr().err == f"{error}\n"
