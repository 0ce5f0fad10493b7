"""Out of memory: the message of the run, and the same steps in smaller batches. The models refuse large batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.job.oom_advice import asked, smaller, was_free
from epochtop.engine.protocol.events import Continued, Failed, Finished, Warned
from epochtop.engine.protocol.requests import Accepted
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import read_record
from tests.support.engines import Engine, Watch, events, finished, losses

CUDA_MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB of which 12.50 MiB is free."
)
SOURCE = """\
import torch
from torch import nn
from epochtop import Task

class Limited(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3000), nn.ReLU(), nn.Linear(3000, 3))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += self.training and not x.is_meta
        if self.training and not x.is_meta and len(x) > {limit} and self.calls > {after}:
            raise {error}
        return self.layers(x)

def make():
    x = torch.randn({rows}, 4)
    return Task(model=Limited(), train=(x, (x[:, 0] > 0).long() + (x[:, 1] > 1).long()))
"""
COMMON = {"device": "cpu", "threads": 1, "eval_every": 0.0, "refresh_ms": 10}


def task(folder: Path, limit: int, after: int = 0, rows: int = 200, error: str = "") -> str:
    """A task whose model runs out of memory for more than `limit` rows, after `after` calls."""
    file = folder / f"limited_{limit}_{after}.py"
    raised = error or f"torch.OutOfMemoryError({CUDA_MESSAGE!r})"
    file.write_text(SOURCE.format(limit=limit, after=after, rows=rows, error=raised))
    return f"{file}:make"


def train(spec: RunSpec, home: Path) -> Path:
    with Engine() as engine:
        run = engine.train(spec, home)
        engine.wait()
    return run


def continued(run: Path) -> list[Continued]:
    return [event for event in events(run) if isinstance(event, Continued)]


def test_the_failure_reports_the_allocation_the_free_memory_and_what_would_help(home: Path, tmp_path: Path) -> None:
    run = train(RunSpec(**COMMON, task=task(tmp_path, 24), batch_size=96, epochs=5), home)  # type: ignore[arg-type]
    end = events(run)[-1]
    assert isinstance(end, Failed)
    assert "out of memory on cpu: an allocation of 2.5 GiB failed, 12.5 MiB were free" in end.message
    assert "limited_24_0.py, line 14" in end.message
    helps = end.advice.split("; ")
    assert [part.split(": about")[0] for part in helps[1:]] == [
        "batch_size 48",
        "batch_size 48 with accumulate 2, the same steps",
        "precision bf16",
    ]
    sizes = [float(part.split("about ")[1].split()[0]) for part in helps[1:]]
    now = float(helps[0].split()[-2])
    assert all(size < now for size in sizes)
    # 96 rows × 3,000 units of a hidden layer, in float32, are 1.1 MiB: half of the batch saves at least half of that
    assert now - sizes[0] > 0.5


@pytest.mark.parametrize("batch_size", [96, 0, 63])
def test_a_retry_takes_the_same_steps_in_smaller_batches(home: Path, tmp_path: Path, batch_size: int) -> None:
    common = COMMON | {"batch_size": batch_size, "epochs": 8, "optimizer": "adam"}
    run = train(RunSpec(**common, task=task(tmp_path, 30), oom_retry=True), home)  # type: ignore[arg-type]
    unsplit = train(RunSpec(**common, task=task(tmp_path, 10_000)), home)  # type: ignore[arg-type]
    assert finished(run).steps == finished(unsplit).steps
    np.testing.assert_allclose(losses(run), losses(unsplit), rtol=1e-4)
    last = continued(run)[-1]
    assert last.batch_size is not None
    assert last.batch_size <= 30
    assert "out of memory with batches of" in last.why
    assert read_record(run).spec.batch_size == batch_size
    assert not [event for event in events(run) if isinstance(event, Warned)]


def test_a_retry_continues_from_the_last_checkpoint_and_a_resume_keeps_its_batch_size(
    home: Path, tmp_path: Path
) -> None:
    """The third process begins with the batch size that fits and does not run out of memory."""
    common = COMMON | {"batch_size": 40, "max_steps": 60_000, "epochs": 60_000, "save_every": 0.05}
    spec = RunSpec(**common, task=task(tmp_path, 24, after=400), oom_retry=True)  # type: ignore[arg-type]
    with Engine() as engine:
        run = engine.train(spec, home)
        Watch(run).until_step(900)
        seen = continued(run)
        engine.kill()
    assert 0 <= seen[0].step <= seen[0].recorded
    assert 300 < seen[0].recorded <= 400  # the last window is rescued
    assert (seen[0].batch_size, seen[0].accumulate) == (20, 2)
    with Engine() as engine:
        assert isinstance(engine.resume(run), Accepted)
        Watch(run).until_step(len(losses(run)) + 600)
        engine.kill()
    assert len(continued(run)) == 2
    assert continued(run)[1].why == ""
    assert np.isfinite(losses(run)).all()


def test_it_ends_at_one_row(home: Path, tmp_path: Path) -> None:
    run = train(RunSpec(**COMMON, task=task(tmp_path, 0, after=3), batch_size=8, epochs=2, oom_retry=True), home)  # type: ignore[arg-type]
    assert [(event.batch_size, event.accumulate) for event in continued(run)] == [(4, 2), (2, 4), (1, 8)]
    assert isinstance(events(run)[-1], Failed)
    assert sum(isinstance(event, Failed) for event in events(run)) == 1


def test_without_the_option_or_for_another_error_nothing_is_retried(home: Path, tmp_path: Path) -> None:
    other = task(tmp_path, 24, error="RuntimeError('no such luck')")
    run = train(RunSpec(**COMMON, task=other, batch_size=96, epochs=5, oom_retry=True), home)  # type: ignore[arg-type]
    assert isinstance(events(run)[-1], Failed)
    assert not continued(run)
    assert not any(isinstance(event, Finished) for event in events(run))


@given(rows=st.integers(2, 5000), size=st.integers(0, 5000), accumulate=st.integers(1, 8))
def test_smaller_batches_make_the_same_steps(rows: int, size: int, accumulate: int) -> None:
    spec: RunSpec | None = RunSpec(batch_size=size, accumulate=accumulate if size else 1)
    assert spec is not None
    step_rows = spec.batch_size * spec.accumulate or rows
    before = [min(step_rows, rows - start) for start in range(0, rows, step_rows)]
    for _ in range(40):
        spec = smaller(spec, rows)
        if spec is None:
            return
        step_rows = spec.batch_size * spec.accumulate
        assert [min(step_rows, rows - start) for start in range(0, rows, step_rows)] == before
    raise AssertionError("it never ends")


def test_torch_s_message_is_parsed() -> None:
    gpu = torch.OutOfMemoryError(CUDA_MESSAGE)
    assert asked(gpu) == 2.5 * 2**30
    assert was_free(gpu, torch.device("cpu")) == 12.5 * 2**20
    assert is_out_of_memory(gpu)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_torch_s_message_for_the_host_is_parsed() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert asked(error.value) == 2**52
