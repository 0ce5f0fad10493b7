"""The table of layers says what the built model has, and making it costs nothing."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
import torch
from torch import Tensor, nn

from epochtop.engine.data.dataset import Preparation
from epochtop.engine.models.build import build_model
from epochtop.engine.models.summary import memory_bytes, perceptron, scaled, summary_of
from epochtop.engine.models.trace import measure
from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.requests import ModelSummary
from epochtop.engine.protocol.spec import RunSpec
from epochtop.tui.cli.model_summary import summary_lines
from tests.support.prepared import CIFAR, DIGITS_TABLE, MNIST, TEXT, codes, images, pixels, table

FOUR = table("a", "b", "c", "d")
CASES: dict[str, tuple[RunSpec, Preparation, Tensor]] = {
    "mlp": (RunSpec(hidden=(8, 9)), FOUR, torch.rand(6, 4)),
    "mlp of pixels": (RunSpec(hidden=(8,), dropout=0.1), images(MNIST), pixels(6, MNIST)),
    "cnn": (RunSpec(model="cnn"), images(CIFAR), pixels(6, CIFAR)),
    "cnn of a table": (RunSpec(model="cnn", width=4), DIGITS_TABLE, torch.rand(6, 64)),
    "resnet": (RunSpec(model="resnet", width=4, checkpoint_activations=True), images(MNIST), pixels(6, MNIST)),
    "transformer": (
        RunSpec(model="transformer", dataset="text:a", width=8, heads=2, context=9, dropout=0.1),
        TEXT,
        codes(6, 9, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_shapes_and_parameters_are_those_of_the_built_model(case: str) -> None:
    spec, preparation, x = CASES[case]
    summary = summary_of(spec, preparation, 5, len(x))
    model = build_model(spec, preparation, 5).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():

        def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
            seen[name] = tuple(output.shape)

        module.register_forward_hook(note)
    model(x)
    assert summary.parameters == summary.trained == sum(weight.numel() for weight in model.parameters())
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    for layer in summary.layers:
        module = model.get_submodule(layer.name)
        assert layer.kind == type(module).__name__
        assert layer.output == seen[layer.name]
        assert layer.parameters == sum(weight.numel() for weight in module.parameters(recurse=False))
        assert layer.output_bytes == 4 * torch.Size(layer.output).numel()


@pytest.mark.parametrize("case", CASES)
def test_no_random_number_is_drawn(case: str) -> None:
    spec, preparation, x = CASES[case]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    summary_of(spec, preparation, 5, len(x))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("case", CASES)
def test_a_built_model_is_left_as_it_was(case: str) -> None:
    spec, preparation, x = CASES[case]
    model = build_model(spec, preparation, 5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert measure(model, x, len(x)) == summary_of(spec, preparation, 5, len(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("hidden", "activation", "dropout", "recomputed"),
    product([(), (8,), (8, 9), (4, 4, 4, 4), (7, 8, 9, 10, 11)], ["relu", "gelu", "none"], [0.0, 0.1], [False, True]),
)
def test_the_perceptrons_formula_is_what_the_pass_finds(
    hidden: tuple[int, ...], activation: str, dropout: float, recomputed: bool
) -> None:
    spec = RunSpec(hidden=hidden, activation=activation, dropout=dropout, checkpoint_activations=recomputed)  # type: ignore[arg-type]
    assert summary_of(spec, FOUR, 3, 16) == measure(build_model(spec, FOUR, 3), torch.rand(16, 4), 16)
    assert summary_of(spec, images(MNIST), 3, 16) == measure(build_model(spec, images(MNIST), 3), pixels(16, MNIST), 16)


def test_absurd_sizes_are_answered_without_building_them() -> None:
    spec = RunSpec(hidden=(10**12, 10**12))
    summary = perceptron(spec, 4, 3, 100)
    assert summary.parameters == 10**12 * 4 + 10**12 + 10**24 + 10**12 + 3 * 10**12 + 3
    assert memory_bytes(spec, summary) > 8 * 10**24


def test_a_wide_network_for_images_is_answered_too() -> None:
    assert summary_of(RunSpec(model="resnet", width=65536), images(CIFAR), 10, 64).parameters > 10**12


def test_a_larger_batch_keeps_more_for_each_row() -> None:
    for spec, preparation, _ in CASES.values():
        small, large = (summary_of(spec, preparation, 5, rows) for rows in (8, 32))
        if spec.model == "mlp":
            assert scaled(small, 32) == large
        assert scaled(large, 8).layers == small.layers


class Odd(nn.Module):
    """Looks at contents, shares a weight, freezes one, never calls one, and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.same = self.one
        self.frozen = nn.Linear(4, 2).requires_grad_(False)
        self.idle = nn.Linear(3, 3)
        self.own = nn.Parameter(torch.zeros(4))
        self.count = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.sum().item() < 0:
            x = -x
        return {"out": self.frozen(self.count(self.one(x)) + self.own + torch.rand(1))}


def test_a_model_that_looks_at_numbers_is_tried_on_its_rows() -> None:
    model = Odd()
    weights, x = [*model.parameters()], torch.rand(6, 4)
    state, running = torch.get_rng_state(), model.count.running_mean
    assert running is not None
    before = running.clone()
    summary = measure(model, x, len(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(running, before)
    assert all(now is kept for now, kept in zip(model.parameters(), weights, strict=True))
    layers = {layer.name: layer for layer in summary.layers}
    assert [*layers] == ["model", "one", "frozen", "idle", "count"]
    assert layers["model"].parameters == 4
    assert layers["model"].output == (6, 2)
    assert layers["idle"].output is None
    assert summary.parameters == 20 + 10 + 12 + 4 + 8
    assert summary.parameters - summary.trained == 10


def test_it_crosses_the_protocol() -> None:
    summary = summary_of(*CASES["cnn"][:2], 5, 6)
    assert msgspec.json.decode(encode(summary), type=ModelSummary) == summary


def test_it_is_shown_as_a_table() -> None:
    lines = summary_lines(perceptron(RunSpec(hidden=(10,)), 4, 3, 120))
    assert lines == (
        "layer  kind    output    parameters  output size",
        "────────────────────────────────────────────────",
        "0      Linear  120 × 10          50      4.7 KiB",
        "1      ReLU    120 × 10           0      4.7 KiB",
        "2      Linear  120 × 3           33      1.4 KiB",
        "83 parameters (332 B in float32)",
        "9.4 KiB kept for the backward pass of 120 rows",
    )


def test_unknown_shapes_and_frozen_weights_are_shown() -> None:
    lines = summary_lines(measure(Odd(), torch.rand(6, 4), 6))
    assert any(line.startswith("idle") and line.endswith("—") for line in lines)
    assert any("10 of them frozen" in line for line in lines)
