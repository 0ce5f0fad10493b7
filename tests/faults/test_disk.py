"""Disk × operation × place × moment: no loss is lost while the run trains, nothing partial is left, and the run can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.disk import mounts
from tests.faults.disk.rows import IN_CI, OPERATIONS, STEPS, TABLE, Row
from tests.faults.selection import EVERYTHING, Note
from tests.support.engines import losses
from tests.support.executors import asked, train

SOURCE = Path(__file__).parent / "disk/faults.c"
HANGING_S = 1200
ROWS = TABLE if EVERYTHING else IN_CI
MOUNTS = mounts.TABLE if EVERYTHING else mounts.IN_CI
PARTS = (*OPERATIONS, mounts.PART)
"""Rows that one process takes, which saves starting it. The whole campaign has one process for each part."""
Facts = dict[tuple[str, ...], dict[str, Any]]

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads a library on Linux"),
    pytest.mark.xdist_group("disk"),
    pytest.mark.timeout(HANGING_S),  # the first test of a part waits for all of its rows
]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Facts]:
    """Takes the rows of a part, once; tells what happened in each."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("disk")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "EPOCHTOP_FAULT": "", "OMP_NUM_THREADS": "1"}

    @cache
    def inject(*parts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.faults.disk", str(tmp_path_factory.mktemp("rows")), *parts],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def facts_of(part: str) -> Facts:
        done = inject(part) if EVERYTHING else inject(*PARTS)
        assert done.returncode == 0, done.stderr[-3000:]
        printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {tuple(one["row"]): one for one in printed}

    return facts_of


def row_of(row: Row | mounts.Mount, part: str) -> pytest.ParameterSet:  # type: ignore[name-defined]
    """A row, for the worker that takes its part."""
    return pytest.param(row, marks=pytest.mark.xdist_group(part) if EVERYTHING else (), id=" × ".join(row))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The losses of the run on a disk that works."""
    home = tmp_path_factory.mktemp("undisturbed")
    fields: dict[str, Any] = {"epochs": STEPS, "seed": 1, "eval_every": 0, "save_every": 0}
    return losses(train(asked("eager", **fields), home)).tobytes()


@pytest.mark.parametrize("row", [row_of(row, row.operation) for row in ROWS])
def test_a_failing_disk_costs_no_loss(row: Row, facts: Callable[[str], Facts], undisturbed: bytes, note: Note) -> None:
    outcome = facts(row.operation)[row]
    assert "raised" not in outcome, outcome["raised"]
    note("a call failed" if outcome["hits"] else "no call to fail")
    assert outcome["hits"] or row.place == "output.log" or row not in IN_CI, "nothing has failed"
    assert "broken" not in outcome, outcome["broken"]
    if "refused" in outcome:  # the run could not be created: nothing is left of it
        assert outcome["left"] == []
        note("refused")
        return
    note(outcome["state"])
    note("resumed" if outcome.get("resumed") else "not resumed")
    assert outcome["finite"]
    assert outcome["warnings"] == 0
    assert not [name for name in outcome["left"] if name.endswith(".part") or ".tmp" in name], outcome["left"]
    if row.moment != "to the end" or row.error == "slow":
        assert (outcome["state"], outcome["steps"]) == ("finished", STEPS)
    else:
        assert outcome["state"] in ("finished", "unsaved", "died")
    recorded = bytes.fromhex(outcome["losses"])
    assert recorded == undisturbed[: len(recorded)]
    if outcome["state"] == "finished" or outcome.get("resumed"):
        assert np.frombuffer(recorded, "<f4").size == STEPS


@pytest.mark.parametrize("row", [row_of(row, mounts.PART) for row in MOUNTS])
def test_a_file_system_that_fails_costs_no_loss(
    row: mounts.Mount, facts: Callable[[str], Facts], undisturbed: bytes, note: Note
) -> None:
    outcomes = facts(mounts.PART)
    if row not in outcomes:
        pytest.skip("only root may mount")
    outcome = outcomes[row]
    assert "raised" not in outcome, outcome["raised"]
    assert outcome["hits"]
    assert "broken" not in outcome, outcome["broken"]
    if row.moment in ("start", "resume"):
        assert outcome["refused"]
        assert outcome["left"] == []
        note("refused")
        return
    note(outcome["state"])
    assert outcome["finite"]
    assert (outcome["warnings"], outcome["beneath"]) == (0, ["other"] if row.fault == "moved" else [])
    assert not [name for name in outcome["left"] if name.endswith(".part") or ".tmp" in name], outcome["left"]
    if row.moment == "for a while":
        assert (outcome["state"], outcome["steps"]) == ("finished", STEPS)
    else:
        assert outcome["state"] == "unsaved"
        assert outcome["resumed"]
    if row.fault in ("removed", "moved") and row.moment == "to the end":
        assert (outcome["listed"], outcome["state_without"]) == ([], "died")
    assert bytes.fromhex(outcome["losses"]) == undisturbed
