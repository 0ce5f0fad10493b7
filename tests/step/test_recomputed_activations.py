"""Recomputing activations changes only memory and time."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model
from epochtop.engine.protocol.spec import RunSpec
from tests.support.prepared import MNIST, TEXT, codes, images, pixels, table
from tests.support.processes.allocations import allocated

CASES: dict[str, tuple[RunSpec, Preparation, Tensor]] = {
    "mlp of 2": (RunSpec(hidden=(8, 9)), table("a", "b", "c"), torch.rand(6, 3)),
    "mlp of 5": (RunSpec(hidden=(8, 9, 7, 6, 5), activation="gelu"), table("a", "b", "c"), torch.rand(6, 3)),
    "mlp with dropout": (RunSpec(hidden=(64,) * 4, dropout=0.5), table("a", "b", "c"), torch.rand(6, 3)),
    "cnn": (RunSpec(model="cnn", width=4, dropout=0.3), images(MNIST), pixels(6, MNIST)),
    "resnet": (RunSpec(model="resnet", width=4, layers=2), images(MNIST), pixels(6, MNIST)),
    "transformer": (
        RunSpec(model="transformer", dataset="text:a", width=8, heads=2, layers=3, context=9),
        TEXT,
        codes(6, 9, 5),
    ),
    "transformer with dropout": (
        RunSpec(model="transformer", dataset="text:a", width=8, heads=2, layers=3, context=9, dropout=0.4),
        TEXT,
        codes(6, 9, 5),
    ),
}


def pair(case: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two models with the same weights: one keeps its activations, the other recomputes them."""
    spec, preparation, x = CASES[case]
    again = msgspec.structs.replace(spec, checkpoint_activations=True)
    models = []
    for asked in (spec, again):
        torch.manual_seed(3)
        models.append(build_model(asked, preparation, 5))
    return models[0], models[1], x


def step(model: nn.Module, x: Tensor, autocast: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    torch.manual_seed(11)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(x).flatten(0, -2)
        loss = functional.cross_entropy(output, torch.arange(len(output)) % 5)
    return loss, torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_statistics_are_the_same(case: str, autocast: bool) -> None:
    keeps, recomputes, x = pair(case)
    for _ in range(2):
        (loss, gradients), (loss_again, gradients_again) = step(keeps, x, autocast), step(recomputes, x, autocast)
        assert torch.equal(loss, loss_again)
        for one, other in zip(gradients, gradients_again, strict=True):
            assert torch.equal(one, other)
    for (name, buffer), (name_again, buffer_again) in zip(
        keeps.state_dict().items(), recomputes.state_dict().items(), strict=True
    ):
        assert name == name_again
        assert torch.equal(buffer, buffer_again), name


@pytest.mark.parametrize("case", [case for case in CASES if case != "mlp of 2"])
def test_less_memory_is_used_between_the_passes(case: str) -> None:
    keeps, recomputes, x = pair(case)
    assert allocated(lambda: recomputes(x)).left < allocated(lambda: keeps(x)).left


@pytest.mark.parametrize("case", CASES)
def test_a_copy_computes_the_same(case: str) -> None:
    """The moving average of the weights is such a copy."""
    _, recomputes, x = pair(case)
    other = copy.deepcopy(recomputes).eval()
    assert torch.equal(other(x), recomputes.eval()(x))
