"""What config.toml sets, what overrides it, and what a wrong file leaves."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import platformdirs
import pytest

from epochtop.configuration import is_present, load, path
from epochtop.configuration.keys import KEYS
from epochtop.engine.runs import paths
from epochtop.recording import directory
from tests.recording.scripts import old_python, only_run, run

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "notifications.md"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which does not exist yet."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("EPOCHTOP_CONFIG", str(path))
    return path


def test_the_path_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert path() == str(platformdirs.user_config_path("epochtop", appauthor=False) / "config.toml")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", "/Users/ada")
    assert path() == "/Users/ada/Library/Application Support/epochtop/config.toml"


def test_without_a_file_everything_is_a_default() -> None:
    configuration = load.load()
    assert set(configuration.sources.values()) == {"default", "environment"}
    assert configuration.sources["home"] == "environment"  # set for every test
    assert configuration.problems == []
    assert not is_present()


def test_flags_go_before_the_environment_and_that_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('theme = "nord"\nrefresh_s = 2\n[notifications]\nbell = false\nevents = ["failed"]\n')
    configuration = load.load()
    assert (configuration["theme"], configuration.sources["theme"]) == ("nord", "file")
    assert (configuration["refresh_s"], configuration["notifications.bell"]) == (2.0, False)
    assert configuration["notifications.events"] == ("failed",)
    monkeypatch.setenv("TEXTUAL_THEME", "gruvbox")
    assert (load.load()["theme"], load.load().sources["theme"]) == ("gruvbox", "environment")
    flagged = load.load({"theme": "dracula"})
    assert (flagged["theme"], flagged.sources["theme"]) == ("dracula", "flag")
    assert flagged.problems == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("refresh = 1", "there is no key refresh; did you mean refresh_s?"),
        ("[notifcations]\nbell = true", "there is no key notifcations; did you mean notifications?"),
        ("[notifications]\nevnts = []", "there is no key notifications.evnts; did you mean notifications.events?"),
        ("bell = true", "there is no key bell; did you mean notifications.bell?"),
        ("zzzz = 1", "there is no key zzzz"),
        ('refresh_s = "fast"', 'refresh_s is "fast", but must be a number from 0.1 to 10'),
        ("refresh_s = true", "refresh_s is true, but must be a number from 0.1 to 10"),
        ("refresh_s = nan", "refresh_s is nan, but must be a number from 0.1 to 10"),
        ("refresh_s = 11", "refresh_s is 11, but must be a number from 0.1 to 10"),
        ("theme = 1", "theme is 1, but must be a text in quotes"),
        ("notifications = 1", "there is no key notifications; did you mean notifications?"),
        ("[notifications]\nbell = 1", "notifications.bell is 1, but must be true or false"),
        (
            '[notifications]\nevents = ["died"]',
            'notifications.events is [\'died\'], but must be a list with any of "finished", "stopped", "failed", "diverged", "stalled"',
        ),
        (
            '[notifications]\ncommand = "mail"',
            'notifications.command is "mail", but must be a list of texts, such as ["first", "second"]',
        ),
        (
            '[notifications]\nwebhook = "file:///secret"',
            'notifications.webhook is (hidden), but must be a URL, such as "https://ntfy.sh/my-topic"',
        ),
    ],
)
def test_a_mistake_is_reported_and_a_default_takes_its_place(text: str, problem: str, file: Path) -> None:
    file.write_text(text)
    configuration = load.load()
    assert configuration.problems == [f"config.toml: {problem}"]
    assert configuration.values == {key.name: key.default for key in KEYS} | {"home": os.environ["EPOCHTOP_HOME"]}


def test_a_file_that_cannot_be_read_is_reported(file: Path) -> None:
    assert load.load().problems == [f"EPOCHTOP_CONFIG: there is no file {file}"]
    file.mkdir()
    assert load.load().problems == [f"{file}: is a folder; defaults are used"]
    file.rmdir()
    file.write_bytes(b"\xff")
    assert load.load().problems == ["config.toml: the file is not UTF-8; defaults are used"]
    file.write_bytes(b"a=" + b"[" * 100_000)
    (problem,) = load.load().problems
    assert problem.endswith("; defaults are used")
    file.write_text("theme = 'nord'\na = \n")
    (problem,) = load.load().problems
    assert problem.startswith("config.toml: ")
    assert "line 2" in problem


def test_the_home_folder_is_that_of_the_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f'home = "{tmp_path}/elsewhere"\n')
    assert directory.home() == str(paths.home()) == os.environ["EPOCHTOP_HOME"]
    monkeypatch.delenv("EPOCHTOP_HOME")
    assert directory.home() == str(paths.home()) == f"{tmp_path}/elsewhere"


def test_folders_of_the_file_are_always_in_the_run_list(file: Path, tmp_path: Path, home: Path) -> None:
    from epochtop.engine.runs.opened.folders import OpenedLogs

    log = tmp_path / "logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step,train_loss\n0,1,0.5\n")
    assert OpenedLogs(home).list() == []
    file.write_text(f'folders = ["{tmp_path}/logs"]\n')
    assert len(OpenedLogs(home).list()) == 1


def test_a_broken_file_does_not_prevent_a_script_in_the_oldest_python(file: Path, home: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("there is no Python 3.9 or 3.10 on PATH")
    file.write_text("[notifications\n")
    code = "import epochtop\nwith epochtop.Run('x') as run: run.log(loss=1.0)"
    assert run(code, home, python=python)[:2] == (0, "")
    assert only_run(home)


def test_the_documentation_names_every_key() -> None:
    """Name, default and environment variable of every row, in order."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| `([^`]+)` \| ([^|]*) \|", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE
    )
    from epochtop.tui.cli.configuration.show import toml

    assert rows == [(key.name, toml(key.default), f"`${key.variable}`" if key.variable else "") for key in KEYS]
