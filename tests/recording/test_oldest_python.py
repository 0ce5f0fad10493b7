"""Recording works in the oldest Python that it supports, without any package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import Failed, ScriptEnded
from epochtop.engine.runs.reader import read_record
from tests.recording.scripts import ROOT, old_python, recorded, run, series

CODE = """
    import sys, time, epochtop
    with epochtop.Run("old", config={"lr": 0.1}) as run:
        for step in range(200):
            run.log(loss=step / 4, a={"b": step}, text="x")
        run.log(loss=float("nan"), step=500)
        run.summary["best"] = 1
        assert run.setting("lr", 0.1) == 0.1
        path = run.path
        time.sleep(0.7)
    with epochtop.Run(resume=run.id) as again:
        again.log(loss=7)
    epochtop.init("second")
    epochtop.log(x=1)
    raise ValueError("the end")
"""


def test_it_records_in_the_oldest_python(home: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("there is no Python 3.9 or 3.10 on PATH")
    status, _, errors = run(CODE, home, python=python)
    assert status == 1
    assert errors.startswith("epochtop: text is ignored because it is a str\nTraceback")
    runs = {path.name.partition("-")[0]: path for path in home.iterdir()}
    values = series(runs["old"])
    assert values["loss"][:200] == [(step, step / 4) for step in range(200)]
    assert values["loss"][-1] == (501, 7.0)
    assert values["a/b"] == [(step, float(step)) for step in range(200)]
    assert read_record(runs["old"]).versions["python"].startswith(("3.9", "3.10"))
    assert isinstance(recorded(runs["old"])[-1], ScriptEnded)
    last = recorded(runs["second"])[-1]
    assert isinstance(last, Failed)
    assert last.message == "ValueError: the end"


def test_its_modules_parse_as_python_3_9() -> None:
    folders = ("recording", "notifications", "configuration")
    inside = [path for folder in folders for path in (ROOT / "epochtop" / folder).rglob("*.py")]
    for path in [ROOT / "epochtop" / "__init__.py", *inside]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
