"""Devices that are not here, by mocks: Apple's generator is part of a checkpoint, and what a device lacks is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device import generators
from epochtop.engine.execution.choice import make
from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.job.plan import _check_rules
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step.batches import DataShard, StreamedBatches
from epochtop.engine.step.evaluation import eval_batches


def test_the_generator_of_an_apple_gpu_is_saved_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout would draw other numbers after a resume."""
    kept = torch.arange(4, dtype=torch.uint8)
    restored: list[Any] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: kept)
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    mps = torch.device("mps")
    states = generators.states(mps)
    assert states["rng.mps"] is kept
    generators.restore(states, mps)
    assert restored == [kept]
    generators.restore(states, torch.device("cpu"))
    assert len(restored) == 1


def test_tf32_is_refused_on_an_amd_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.3")
    workload: Any = SimpleNamespace(train=range(100))
    with pytest.raises(Invalid, match="tf32 needs an NVIDIA GPU"):
        _check_rules(RunSpec(precision="tf32", device="cuda"), workload, torch.device("cuda", 0))


MPS = torch.device("mps")


def test_one_process_trains_on_an_apple_gpu() -> None:
    workload: Any = SimpleNamespace(train=range(100))
    with pytest.raises(Invalid, match="mps trains with 1 process"):
        _check_rules(RunSpec(processes=2, device="auto"), workload, MPS)


@pytest.mark.parametrize(
    ("executor", "reason"),
    [("graph", "programs in C run on the CPU, not on mps"), ("compile", "it supports the CPU and CUDA, not mps")],
)
def test_steps_on_an_apple_gpu_are_eager(executor: str, reason: str) -> None:
    job = replace(prepare_job(RunSpec(device="cpu", threads=1)), device=MPS)
    with pytest.raises(Unsupported, match=reason):
        make(job, executor)


def test_rows_on_an_apple_gpu_have_types_that_it_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no float64, which rows of a table may be stored in."""
    move = Tensor.to

    def to(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if arguments and arguments[0] == MPS:
            if tensor.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
                )
            return tensor
        return move(tensor, *arguments, **options)

    monkeypatch.setattr(Tensor, "to", to)
    rows = Rows(np.arange(12.0).reshape(6, 2), np.arange(6.0))
    streamed = StreamedBatches(rows, 6, 0, DataShard(), MPS)
    batches = [streamed(), *(batch[:2] for resident in (True, False) for batch in eval_batches(rows, MPS, resident, 6))]
    assert len(batches) == 3
    for x, y in batches:
        assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
        assert sorted(x.flatten().tolist()) == list(range(12))
