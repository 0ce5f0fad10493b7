"""On a GPU, metrics are counted without waiting and equal those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from epochtop.engine.step.metrics import Metrics
from tests.gpu.waits import waiting_forbidden

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.xdist_group("gpu"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

ROWS = 1000
CASES = {
    "cross_entropy": (Metrics("cross_entropy", 8), torch.randn(ROWS, 8), torch.arange(ROWS) % 8),
    "ignored labels": (
        Metrics("cross_entropy", 8, ignore_index=-100),
        torch.randn(ROWS, 8),
        torch.where(torch.arange(ROWS) % 4 == 3, -100, torch.arange(ROWS) % 8),
    ),
    "many classes": (Metrics("cross_entropy", 200), torch.randn(ROWS, 200), torch.arange(ROWS) % 200),
    "binary_cross_entropy": (Metrics("binary_cross_entropy", 1), torch.randn(ROWS, 1), torch.arange(ROWS) % 2.0),
    "mean_squared_error": (Metrics("mean_squared_error", 1), torch.randn(ROWS, 1), torch.randn(ROWS)),
    "next_character": (Metrics("next_character", 9), torch.randn(ROWS, 3, 9), torch.randint(9, (ROWS, 3))),
}


@pytest.fixture(params=[False, True], ids=["any order", "deterministic"])
def deterministic(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deterministic and other algorithms."""
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


def counted(metrics: Metrics, output: Tensor, labels: Tensor) -> Tensor:
    """The state after batches of 300, 300, 300 and 100 rows."""
    state = metrics.empty(output.device)
    for some, right in zip(output.split(300), labels.split(300), strict=True):
        metrics.add(state, some, right, len(some))
    return metrics.flat(state)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("deterministic")
def test_counting_never_waits_for_the_device(name: str) -> None:
    metrics, output, labels = CASES[name]
    there = output.cuda(), labels.cuda()
    counted(metrics, *there)  # the first time loads kernels and reserves memory
    with waiting_forbidden():
        values = counted(metrics, *there)
    expected = metrics.read(counted(metrics, output, labels), 1.0)
    scores = metrics.read(values.cpu(), 1.0)
    assert scores.values == pytest.approx(expected.values, rel=1e-6)
    assert scores.confusion == expected.confusion
