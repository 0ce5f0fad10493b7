"""A table on standard input is kept in a private file, so that the run can be resumed."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.tui.cli import standard_input

TABLE = b"a,kind\n1,x\n2,y\n"


def _piped(monkeypatch: pytest.MonkeyPatch, content: bytes, is_terminal: bool = False) -> None:
    stdin = SimpleNamespace(isatty=lambda: is_terminal, buffer=io.BytesIO(content))
    monkeypatch.setattr(standard_input.sys, "stdin", stdin)


def test_standard_input_becomes_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for _ in range(2):
        _piped(monkeypatch, TABLE)
        kept.append(standard_input.with_kept_input(RunSpec(dataset="csv:-", target="kind"), tmp_path).dataset)
    assert kept[0] == kept[1]
    path = Path(kept[0].removeprefix("csv:"))
    assert path.read_bytes() == TABLE
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_datasets_leave_standard_input_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_input.sys, "stdin", None)
    spec = RunSpec(dataset="csv:table.csv", target="kind")
    assert standard_input.with_kept_input(spec, tmp_path) is spec


def test_standard_input_without_a_table_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, is_terminal, message in ((b"", False, "is empty"), (TABLE, True, "pipe a table into it")):
        _piped(monkeypatch, content, is_terminal)
        with pytest.raises(Invalid, match=message):
            standard_input.with_kept_input(RunSpec(dataset="csv:-", target="kind"), tmp_path)
