"""`find-lr` and `find-batch` as commands, and the search for a batch against memory that the test knows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_commands import epochtop
from tests.job.test_oom_advice import task
from tests.support.engines import finished

ROW_BYTES = 2 * 2**20
MEASURE = """
import json, sys
from epochtop.engine.job.batch_size_finder import find
from epochtop.engine.job.workload import load_workload
from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.spec import RunSpec
spec = RunSpec(task=sys.argv[1], device="cpu", threads=1)
print(encode(find(spec, load_workload(spec), 0.5, available=int(sys.argv[2]))).decode())
"""
HUNGRY = """\
import torch
from torch import nn
from epochtop import Task

class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        kept = (x[:, :1] * torch.ones(2**19)).sin()  # sin keeps its input: 2 MiB a row; the output is 2 MiB more
        return self.layer(x) + kept.mean(1, keepdim=True)

def make():
    x = torch.randn(170, 4)
    x.requires_grad_(False)
    return Task(model=Hungry(), train=(x, (x[:, 0] > 0).long()))
"""


def test_find_lr_says_which_rate_and_leaves_the_run(home: Path) -> None:
    done = epochtop("find-lr", "--json", "--dataset", "wine", "--device", "cpu", "--threads", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    end = finished(home / result["run"])
    assert end.suggestion is not None
    assert result["learning_rate"] == end.suggestion.learning_rate
    assert end.steps <= 250
    words = epochtop("find-lr", "--dataset", "wine", "--device", "cpu", "--threads", "1", "--max-steps", "120")
    assert "--learning-rate " in words.stdout
    assert "120 steps in" in words.stdout or "steps in" in words.stdout


def test_find_lr_without_a_fall_has_a_status_of_its_own() -> None:
    done = epochtop("find-lr", "--json", "--learning-rate", "1e-9", "--threads", "1", "--max-steps", "60")
    assert done.returncode == 3
    assert json.loads(done.stdout)["learning_rate"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("find-batch", "--margin", "1.5"), "margin"),
        (("find-batch", "--dataset", "nonsense"), "dataset"),
        (("find-lr", "--learning-rate", "0"), "learning_rate"),
        (("find-lr", "--device", "cuda:9"), "device"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = epochtop(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_find_batch_names_the_largest_power_of_two_that_its_model_takes(tmp_path: Path) -> None:
    done = epochtop("find-batch", "--json", "--task", task(tmp_path, 48), "--device", "cpu", "--threads", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["batch_size"] == 32
    assert dict(result["tries"])[64] is None
    assert result["needed_bytes"] <= result["budget_bytes"]


def test_what_fits_on_the_host_is_measured_and_stays_within_the_margin(tmp_path: Path) -> None:
    """A row keeps 2 MiB and gives 2 MiB; the forward or the backward pass may hold one more copy at its peak."""
    file = tmp_path / "hungry.py"
    file.write_text(HUNGRY)
    available = 600 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, f"{file}:make", str(available)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 1.8 * ROW_BYTES < result["row_bytes"] < 3.3 * ROW_BYTES
    size = result["batch_size"]
    assert size & (size - 1) == 0
    assert size * result["row_bytes"] <= available // 2
    assert dict(result["tries"])[size] <= available // 2
    assert 2 * size * result["row_bytes"] > available // 2 * 0.8  # twice as many rows would not have fitted
