"""`make gpu-check` as far as it needs no GPU: an interruption or a broken device costs no result."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import matrix
from tests.support.engines import HANGING_S

CHECK = Path(matrix.__file__).with_name("check.sh")
PYTHON = """#!/bin/sh
# stands in for Python: says which torch there is, fails in one part, and stays in another
case "$*" in
-) printf 'cpu\\nno-gpu-torch-0\\n' ;;
*--singles*) echo "race: FAIL the weights changed"; exit 1 ;;
*tests.gpu.matrix*) echo "80 ok, 3 no time left" ;;
*test_sharded*) echo "a partial line"; exec sleep 1000 ;;
*) echo "done with it" ;;
esac
"""


def test_an_interrupted_check_leaves_its_table_and_its_log(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o700)
    command = ["bash", str(CHECK), str(tmp_path / "logs")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHON": str(python)}
    ) as check:
        patience = time.monotonic() + HANGING_S
        while not any("a partial line" in log.read_text() for log in (tmp_path / "logs").glob("*.txt")):
            assert time.monotonic() < patience
            assert check.poll() is None
            time.sleep(0.02)
        check.send_signal(signal.SIGTERM)
        output, _ = check.communicate(timeout=HANGING_S)
    (log,) = (tmp_path / "logs").glob("*.txt")
    written = log.read_text()
    for text in (output, written):
        rows = text.partition("part  ")[2].splitlines()[1:]
        results = {row[:18].strip(): row[19:31].strip() for row in rows}
        assert results["train-auto"] == "passed"
        assert results["singles"] == "FAILED"
        assert results["matrix"] == "in part"  # a failure stops no other part
        assert results["sharded"] == "interrupted"
    assert "race: FAIL the weights changed" in written
    assert "a partial line" in written


def test_the_first_jobs_of_the_matrix_have_every_pair(tmp_path: Path) -> None:
    """Time may run out: then each optimizer has met each precision and model, and each precision each model."""
    quarter = len(matrix.PRECISIONS) * len(matrix.OPTIMIZERS)
    names = [name.split() for name, _ in islice(matrix.jobs("cpu", tmp_path), len(matrix.OPTIONS), None)]
    assert len({tuple(name) for name in names}) == len(names) == quarter * len(matrix.MODELS)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        every = {(name[one], name[other]) for name in names}
        assert {(name[one], name[other]) for name in names[:quarter]} == every


def test_another_process_continues_after_a_failure_that_breaks_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    started: list[Any] = []
    checks = [("first", lambda: "ok"), ("second", broken), ("third", lambda: "ok, not reached")]
    monkeypatch.setattr(matrix, "jobs", lambda *_: iter(checks))
    monkeypatch.setattr(matrix, "_usable", lambda _: False)
    monkeypatch.setattr(matrix.subprocess, "run", lambda command, **_: started.append(command))
    assert matrix.main(["--device", "cpu", "--seconds", "60"]) == 1
    output = capsys.readouterr().out
    assert "second: FAIL RuntimeError: CUDA error: an illegal memory access" in output
    assert "not reached" not in output
    (command,) = started
    assert command[command.index("--skip") + 1] == "2"
    assert matrix.main(["--device", "cpu", "--skip", "2"]) == 0
    assert "third: ok" in capsys.readouterr().out
