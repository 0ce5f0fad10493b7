"""Generators of devices that are not here, by mocks: Apple's is part of a checkpoint, and tf32 is NVIDIA's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epochtop.engine.device import generators
from epochtop.engine.job.plan import _check_rules
from epochtop.engine.protocol.spec import Invalid, RunSpec


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
