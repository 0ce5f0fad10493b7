"""`epochtop config` and `epochtop notify --test`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epochtop.tui.cli.main import run
from tests.support.fakes.webhook import webhook


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("EPOCHTOP_CONFIG", str(path))
    return path


def test_values_are_shown_with_their_origin(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('refresh_s = 2\n[notifications]\nwebhook = "https://ntfy.sh/secret"\n')
    monkeypatch.setenv("TEXTUAL_THEME", "nord")
    assert run(["config", "--theme", "gruvbox"]) == 0
    path, blank, *rows = capsys.readouterr().out.splitlines()
    assert (path, blank) == (str(file), "")
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells["theme"] == ['"gruvbox"', "flag"]
    assert cells["refresh_s"] == ["2", "file"]
    assert cells["home"] == [f'"{home}"', "$EPOCHTOP_HOME"]
    assert cells["notifications.webhook"] == ['"(hidden)"', "file"]
    assert cells["notifications.bell"] == ["true", "default"]


def test_a_mistake_gives_exit_status_1(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("refesh_s = 2\n")
    assert run(["config"]) == 1
    assert capsys.readouterr().err == "epochtop: config.toml: there is no key refesh_s; did you mean refresh_s?\n"
    assert run(["config", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["path"], facts["exists"]) == (str(file), True)
    assert facts["values"]["refresh_s"] == {"value": 0.35, "from": "default"}
    assert facts["problems"] == ["config.toml: there is no key refesh_s; did you mean refresh_s?"]


def test_every_route_is_tried(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with webhook() as server:
        file.write_text(f'[notifications]\nwebhook = "{server.url()}"\ncommand = ["true"]\n')
        assert run(["notify", "--test"]) == 0
        assert capsys.readouterr().out == "webhook: sent\ncommand: sent\n"
        file.write_text(f'[notifications]\nwebhook = "{server.url("503")}"\ncommand = ["true"]\n')
        assert run(["notify", "--test"]) == 1
        assert capsys.readouterr().out == "webhook: failed: HTTP status 503\ncommand: sent\n"
        assert [json.loads(request.body)["text"] for request in server.received] == ["this is a test message"] * 2


def test_without_a_route_there_is_nothing_to_test(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("")
    assert run(["notify", "--test"]) == 1
    assert capsys.readouterr().out.startswith("no route is configured; set notifications.webhook")
    assert run(["notify"]) == 2
