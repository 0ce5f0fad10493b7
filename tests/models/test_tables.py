"""The mlp is the Sequential that everybody writes, weight for weight and draw for draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epochtop.engine.models.build import build_model, parameter_count
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.prepared import DIGITS_TABLE, MNIST, images, pixels, table


def same(model: nn.Module, expected: nn.Module) -> None:
    """Same names, same weights, bit for bit."""
    ours, theirs = model.state_dict(), expected.state_dict()
    assert [*ours] == [*theirs]
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_initial_weights_are_those_of_a_plain_sequential(checkpointed: bool) -> None:
    torch.manual_seed(7)
    expected = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    drawn = torch.get_rng_state()
    torch.manual_seed(7)
    model = build_model(RunSpec(hidden=(10, 6), checkpoint_activations=checkpointed), table("a", "b", "c", "d"), 3)
    assert torch.equal(torch.get_rng_state(), drawn)
    same(model, expected)
    assert [type(layer) for layer in model.children()] == [type(layer) for layer in expected]


def test_without_dropout_it_is_a_plain_sequential() -> None:
    assert type(build_model(RunSpec(), table("a"), 3)) is nn.Sequential


def test_dropout_and_activation_come_after_each_hidden_layer() -> None:
    model = build_model(RunSpec(hidden=(5, 6), activation="gelu", dropout=0.25), table("a", "b"), 1)
    piece = ["Linear", "GELU", "Dropout"]
    assert [type(layer).__name__ for layer in model.children()] == [*piece, *piece, "Linear"]
    assert {layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)} == {0.25}


def test_no_activation_is_a_linear_model() -> None:
    model = build_model(RunSpec(hidden=(5,), activation="none"), table("a", "b"), 1)
    assert [type(layer) for layer in model.children()] == [nn.Linear, nn.Linear]


def test_images_are_flattened() -> None:
    model = build_model(RunSpec(hidden=(9,)), images(MNIST), 10)
    assert [type(layer).__name__ for layer in model.children()] == ["Pixels", "Flatten", "Sequential"]
    assert model(pixels(3, MNIST)).shape == (3, 10)
    x = pixels(1, MNIST)
    torch.testing.assert_close(model[0](x), (x / 255 - 0.5) / 0.25)


def test_a_table_of_images_stays_a_table() -> None:
    model = build_model(RunSpec(), DIGITS_TABLE, 10)
    assert type(model) is nn.Sequential
    assert model(torch.rand(2, 64)).shape == (2, 10)


def test_the_shape_of_a_row_counts_where_columns_have_no_names() -> None:
    assert build_model(RunSpec(), table(), 2, shape=(6,))(torch.rand(2, 6)).shape == (2, 2)
    with pytest.raises(Invalid, match="at least one column"):
        build_model(RunSpec(), table(), 2)


def test_parameters_of_the_iris_network() -> None:
    """4·10 + 10 + 10·3 + 3."""
    assert parameter_count(4, (10,), 3) == 83
