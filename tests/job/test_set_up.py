"""What a job sets for its whole process before it is built."""

from __future__ import annotations

import os

import pytest
import torch

from epochtop.engine.job.job import _set_up
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.step.window import LossWindow
from tests.support.simulated_device import on_device, simulated_gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.mark.parametrize(("device", "expected"), [(GPU, ":4096:8"), (CPU, None)], ids=["cuda", "cpu"])
def test_deterministic_runs_on_a_gpu_set_the_workspace_of_cublas(
    device: torch.device, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch before 2.10 refuses the first linear layer without it."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda _: None)
    with simulated_gpu():
        _set_up(RunSpec(deterministic=True), device)
    assert os.environ.pop(WORKSPACE, None) == expected


def test_a_workspace_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda _: None)
    with simulated_gpu():
        _set_up(RunSpec(deterministic=True), GPU)
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_default_device_that_a_task_has_set_is_reset() -> None:
    """Else pinned memory would be asked for on the GPU at the first reading."""
    torch.set_default_device("meta")
    try:
        _set_up(RunSpec(), CPU)
        assert torch.empty(0).device == CPU
    finally:
        torch.set_default_device(None)


def test_a_window_is_read_under_any_default_device() -> None:
    with simulated_gpu():
        window = LossWindow(GPU)
        window.record(on_device(torch.tensor(0.5)))
        torch.set_default_device("meta")
        try:
            window.turn(0.0)
            reading = window.drain()
        finally:
            torch.set_default_device(None)
    assert reading is not None
    assert reading.losses.tolist() == [0.5]
