"""The estimated memory of a step compared with torch's on the CPU, and the memory that options add."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model
from epochtop.engine.models.summary import held_bytes, memory_bytes, perceptron, summary_of, working_bytes
from epochtop.engine.protocol.spec import RunSpec
from tests.support.prepared import CIFAR, TEXT, codes, images, pixels, table
from tests.support.processes.allocations import allocated

CASES: dict[str, tuple[RunSpec, Preparation, Tensor]] = {
    "mlp": (RunSpec(hidden=(512,) * 6), table(*map(str, range(64))), torch.rand(2048, 64)),
    "cnn": (RunSpec(model="cnn"), images(CIFAR), pixels(64, CIFAR)),
    "resnet": (RunSpec(model="resnet", width=16), images(CIFAR), pixels(32, CIFAR)),
    "resnet recomputed": (
        RunSpec(model="resnet", width=16, checkpoint_activations=True),
        images(CIFAR),
        pixels(32, CIFAR),
    ),
    "transformer": (
        RunSpec(model="transformer", dataset="text:a", layers=4, context=128),
        TEXT,
        codes(16, 128, 60),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_near_the_memory_of_a_step(case: str) -> None:
    """Measures gradients and activations; weights and optimizer state exist before."""
    spec, preparation, x = CASES[case]
    model = build_model(spec, preparation, 60)
    weights = list(model.parameters())

    def step() -> object:
        batch = x.clone()
        output = model(batch).flatten(0, -2)
        return torch.autograd.grad(functional.cross_entropy(output, torch.arange(len(output)) % 60), weights)

    summary = summary_of(spec, preparation, 60, len(x))
    estimate = working_bytes(spec, summary) + 4 * summary.parameters
    assert 0.9 * allocated(step).peak < estimate < 1.4 * allocated(step).peak


# Tensors of the parameters' size: weights and gradients, then those of the options.
COPIES = {
    "sgd": (RunSpec(), 2),
    "momentum": (RunSpec(momentum=0.9), 3),
    "adam: two moments and a work space": (RunSpec(optimizer="adam"), 5),
    "accumulated gradients": (RunSpec(accumulate=2, batch_size=10), 3),
    "averaged weights": (RunSpec(ema=0.99), 3),
    "half precision copies": (RunSpec(precision="bf16"), 2.5),
}


@pytest.mark.parametrize("case", COPIES)
def test_optimizer_and_options_add_their_copies(case: str) -> None:
    spec, copies = COPIES[case]
    summary = perceptron(spec, 1000, 1000, 1)
    assert memory_bytes(spec, summary) - working_bytes(spec, summary) == copies * 4 * summary.parameters


# Memory at the peak, in tensors of the parameters' size: see how a step and a checkpoint are taken.
HELD = {
    "sgd: weights, gradients, best": (RunSpec(), 3),
    "adam: weights, two moments, copies of these three, best": (RunSpec(optimizer="adam"), 7),
    "momentum: weights, velocity, copies of these two, best": (RunSpec(momentum=0.9), 5),
    "averaged weights: both, copies of both, best": (RunSpec(ema=0.99), 5),
}


@pytest.mark.parametrize("case", HELD)
def test_a_run_needs_copies_for_its_checkpoints_too(case: str) -> None:
    spec, copies = HELD[case]
    summary = perceptron(spec, 1000, 1000, 1)
    least = copies * 4 * summary.parameters
    assert least <= held_bytes(spec, summary) <= least + working_bytes(spec, summary)


def test_sharded_weights_are_divided_except_the_largest_layer() -> None:
    """A layer is complete while it is computed, and so are the next layer and its gradients."""
    spec = RunSpec(shard=True, processes=4, optimizer="adam", hidden=(2000,))
    summary = perceptron(spec, 1000, 10, 1)
    largest = 1000 * 2000 + 2000
    needed = memory_bytes(spec, summary) - working_bytes(spec, summary)
    assert needed == 5 * 4 * summary.parameters // 4 + 3 * 4 * largest


@pytest.mark.parametrize("option", [{"accumulate": 2, "batch_size": 10}, {"precision": "bf16"}])
def test_what_sharding_does_not_divide(option: dict[str, object]) -> None:
    """Gradients that are accumulated before they are exchanged, and 16-bit copies for the backward pass."""
    spec = RunSpec(shard=True, processes=4, **option)  # type: ignore[arg-type]
    plain = RunSpec(shard=True, processes=4)
    summary = perceptron(spec, 1000, 1000, 1)
    more = memory_bytes(spec, summary) - working_bytes(spec, summary)
    less = memory_bytes(plain, summary) - working_bytes(plain, summary)
    assert more - less == (2 if "precision" in option else 4) * summary.parameters


def test_half_precision_needs_less_for_activations() -> None:
    full, half = RunSpec(), RunSpec(precision="bf16")
    summary = perceptron(full, 10, 3, 1000)
    assert working_bytes(half, summary) < working_bytes(full, summary)
