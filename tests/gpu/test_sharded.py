"""On GPUs, sharded weights take the steps of unsharded ones, over NCCL; with one GPU, one rank takes the same code path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support import sharded
from tests.support.sharded import CASES, DDP, FSDP, RESUMED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.xdist_group("gpu"),
]


@pytest.fixture(scope="module", params=[1, 2])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files written by all ranks for every case."""
    if request.param > torch.cuda.device_count():
        pytest.skip(f"needs {request.param} GPUs")
    folder = tmp_path_factory.mktemp("ranks")
    sharded.train_all(request.param, "cuda", folder)
    return folder


def names(case: str) -> list[str]:
    """Files to compare with that of unsharded weights."""
    return [FSDP, *(f"{first} then {FSDP}" for first in (DDP, FSDP) if case in RESUMED)]


@pytest.mark.parametrize("case", CASES)
def test_sharded_weights_take_the_steps_of_unsharded_ones(case: str, trained: Path) -> None:
    """Approximately: sums on a GPU may vary in order, and bf16 and fp16 have few bits."""
    expected = load_file(trained / f"{case} {DDP}.safetensors")
    tolerance = 3e-2 if case in ("bf16", "fp16", "muon") else 1e-3
    for name in names(case):
        actual = load_file(trained / f"{case} {name}.safetensors")
        assert actual.keys() == expected.keys()
        torch.testing.assert_close(actual["losses"], expected["losses"], rtol=tolerance, atol=tolerance)
