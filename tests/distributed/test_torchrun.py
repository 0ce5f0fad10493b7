"""Ranks that torchrun starts: their flags and variables, and a restart after a death."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from epochtop.engine.process.torchrun import Launch, launch_in, read_flags, spec_of
from epochtop.engine.protocol.events import Continued, Failed, Finished, Saved
from epochtop.engine.protocol.fields import spec_from
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.runs.index import run_paths
from tests.support.engines import HANGING_S, Engine, Watch, events, losses

pytestmark = pytest.mark.xdist_group("processes")  # each test starts two or three processes; one test at a time


def torchrun(*arguments: str, restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes started by torchrun, as from a user's shell."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "epochtop.engine", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


COMMON_FLAGS = ("--device=cpu", "--threads", "1", "--seed=3", "--refresh-ms=20", "--save-every=0.1")


def test_torchrun_restarts_a_killed_process_and_the_run_continues(slow_task: str, home: Path, folder: Path) -> None:
    flags = ("--task", slow_task, "--batch-size=50", "--epochs=40")
    fields = {"task": slow_task, "batch_size": "50", "epochs": "40", "processes": "2"}
    spec = spec_from(fields | {"device": "cpu", "threads": "1", "seed": "3"})
    with Engine() as engine:
        straight = engine.train(spec, home / "straight")
        assert engine.wait() == 0
    (folder / "slow").touch()
    with torchrun(*flags, *COMMON_FLAGS, restarts=1) as launched:
        assert launched.stdout is not None
        run = home / launched.stdout.readline().strip()
        watch = Watch(run)
        watch.until(Saved)
        watch.windows(1)
        rank_1 = next(
            child
            for child in psutil.Process(launched.pid).children()
            if child.environ().get("RANK") == "1" and "epochtop.engine" in child.cmdline()
        )
        rank_1.kill()
        failed = watch.until(Failed)
        (folder / "slow").unlink()
        printed, complaints = launched.communicate(timeout=HANGING_S)
        assert launched.returncode == 0, complaints
    assert failed.message.startswith("rank 1 ended without reporting an error")
    assert "rank 1 ended without reporting an error" in complaints
    assert printed.splitlines()[0] == run.name
    assert f"{run.name} finished: steps 320" in printed
    assert [path.name for path in run_paths(home)] == [run.name]
    kinds = [type(event) for event in events(run)]
    assert kinds.index(Failed) < kinds.index(Continued) < kinds.index(Finished)
    np.testing.assert_array_equal(losses(run), losses(straight))


def test_a_wrong_request_under_torchrun_is_explained_and_leaves_no_run(home: Path) -> None:
    with torchrun("--epochs", "none") as launched:
        _, complaints = launched.communicate(timeout=HANGING_S)
    assert launched.returncode != 0
    assert "epochs: 'none' is not a whole number" in complaints
    assert not run_paths(home)


TORCHRUNS = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "night", "MASTER_PORT": "1"}


def test_torchrun_s_variables_are_read() -> None:
    assert launch_in({}) == Launch()
    again = TORCHRUNS | {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert launch_in(again) == Launch(rank=3, world_size=4, local_rank=1, restarts=2, key="night")
    with pytest.raises(Invalid, match="WORLD_SIZE"):
        launch_in({"RANK": "0"})


def test_flags_are_the_fields() -> None:
    line = "--batch-size 50 --hidden 16 8 --nesterov --momentum=0.9 --no-deterministic --optimizer sgd"
    assert spec_of(read_flags(line.split()), Launch()) == RunSpec(
        batch_size=50, hidden=(16, 8), nesterov=True, momentum=0.9
    )
    assert spec_of({}, launch_in(TORCHRUNS)).processes == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("epochs=3", "is not a flag"),
        ("--epoch 3", "there is no field 'epoch'"),
        ("--epochs 3 4", "takes one value"),
        ("--epochs", "needs a whole number"),
        ("--processes 3", "torchrun started 2, not 3"),
    ],
)
def test_a_wrong_flag_is_explained(line: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        spec_of(read_flags(line.split()), launch_in(TORCHRUNS))
