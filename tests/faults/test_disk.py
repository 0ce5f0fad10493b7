"""Disk × operation × place × moment: no loss is lost while the run trains, nothing partial is left, and the run can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.disk import mounts
from tests.faults.disk.rows import IN_CI, STEPS, TABLE, Row
from tests.faults.selection import EVERYTHING
from tests.support.engines import losses
from tests.support.executors import asked, train

SOURCE = Path(__file__).parent / "disk/faults.c"
ROWS = TABLE if EVERYTHING else IN_CI
MOUNTS = mounts.TABLE if EVERYTHING else mounts.IN_CI
Facts = dict[tuple[str, ...], dict[str, Any]]

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads a library on Linux"),
    pytest.mark.xdist_group("disk"),  # one fixture trains in every row, once instead of per worker
]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What happened in every row."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("disk")
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "EPOCHTOP_FAULT": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.disk", str(folder)],
        env=environment, capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {tuple(one["row"]): one for one in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The losses of the run on a disk that works."""
    home = tmp_path_factory.mktemp("undisturbed")
    fields: dict[str, Any] = {"epochs": STEPS, "seed": 1, "eval_every": 0, "save_every": 0}
    return losses(train(asked("eager", **fields), home)).tobytes()


@pytest.mark.parametrize("row", ROWS, ids=" × ".join)
def test_a_failing_disk_costs_no_loss(row: Row, facts: Facts, undisturbed: bytes) -> None:
    told = facts[row]
    assert "raised" not in told, told["raised"]
    assert told["hits"] or row.place == "output.log" or row not in IN_CI, "nothing has failed"
    assert "broken" not in told, told["broken"]
    if "refused" in told:  # the run could not be created: nothing is left of it
        assert told["left"] == []
        return
    assert told["finite"]
    assert told["warnings"] == 0
    assert not [name for name in told["left"] if name.endswith(".part") or ".tmp" in name], told["left"]
    if row.moment != "to the end" or row.error == "slow":
        assert (told["state"], told["steps"]) == ("finished", STEPS)
    else:
        assert told["state"] in ("finished", "unsaved", "died")
    recorded = bytes.fromhex(told["losses"])
    assert recorded == undisturbed[: len(recorded)]
    if told["state"] == "finished" or told.get("resumed"):
        assert np.frombuffer(recorded, "<f4").size == STEPS


@pytest.mark.parametrize("row", MOUNTS, ids=" × ".join)
def test_a_file_system_that_fails_costs_no_loss(row: mounts.Mount, facts: Facts, undisturbed: bytes) -> None:
    if row not in facts:
        pytest.skip("only root may mount")
    told = facts[row]
    assert "raised" not in told, told["raised"]
    assert told["hits"]
    assert "broken" not in told, told["broken"]
    if row.moment in ("start", "resume"):
        assert told["refused"]
        assert told["left"] == []
        return
    assert told["finite"]
    assert (told["warnings"], told["beneath"]) == (0, ["other"] if row.fault == "moved" else [])
    assert not [name for name in told["left"] if name.endswith(".part") or ".tmp" in name], told["left"]
    if row.moment == "for a while":
        assert (told["state"], told["steps"]) == ("finished", STEPS)
    else:
        assert told["state"] == "unsaved"
        assert told["resumed"]
    if row.fault in ("removed", "moved") and row.moment == "to the end":
        assert (told["listed"], told["state_without"]) == ([], "died")
    assert bytes.fromhex(told["losses"]) == undisturbed
