"""cnn and resnet are the published networks, for images of any size from 8×8."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from epochtop.engine.models.build import build_model
from epochtop.engine.protocol.spec import Invalid, RunSpec
from tests.support.prepared import CIFAR, DIGITS, DIGITS_TABLE, MNIST, images, pixels, table


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_cnn_is_the_published_one() -> None:
    """The CIFAR-10 network of REFERENCE section 4, weight by weight; 145,578 parameters."""
    model = build_model(RunSpec(model="cnn", activation="none"), images(CIFAR), 10)
    expected = [
        (32, 3, 5, 5), (32,), (32, 32, 5, 5), (32,), (64, 32, 5, 5), (64,), (64, 1024), (64,), (10, 64), (10,)
    ]  # fmt: skip
    assert [tuple(weight.shape) for weight in model.parameters()] == expected
    assert parameters(model) == 145_578
    weights = list(model.parameters())
    x = pixels(4, CIFAR)
    out = (x / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.25, 0.2, 0.1]).view(3, 1, 1)
    for at in (0, 2, 4):
        out = functional.max_pool2d(functional.conv2d(out, weights[at], weights[at + 1], padding=2), 2)
    for at in (6, 8):
        out = functional.linear(out.flatten(1), weights[at], weights[at + 1])
    torch.testing.assert_close(model(x), out, rtol=1e-4, atol=1e-5)


def test_an_activation_comes_after_each_convolution_and_the_first_linear_layer() -> None:
    model = build_model(RunSpec(model="cnn", activation="tanh"), images(CIFAR), 10)
    kinds = [type(module).__name__ for module in model.modules() if not list(module.children())]
    block = ["Conv2d", "Tanh", "MaxPool2d"]
    assert kinds == ["Pixels", *block, *block, *block, "Flatten", "Linear", "Tanh", "Linear"]


# 5×5 convolutions and linear layers by hand: channels in and out, then what three halvings leave of the image.
@pytest.mark.parametrize(
    ("shape", "width", "flat"),
    [(CIFAR, 32, 4 * 4 * 64), (MNIST, 32, 3 * 3 * 64), (DIGITS, 32, 64), ((3, 9, 17), 32, 2 * 64), (MNIST, 8, 9 * 16)],
)
def test_width_and_image_size_give_the_cnns_parameters(shape: tuple[int, int, int], width: int, flat: int) -> None:
    model = build_model(RunSpec(model="cnn", width=width), images(shape), 7)
    convolutions = 25 * width * (shape[0] + width + 2 * width) + 4 * width
    assert parameters(model) == convolutions + (flat + 1) * 2 * width + (2 * width + 1) * 7
    assert model(pixels(3, shape)).shape == (3, 7)


def test_the_resnet_is_resnet_20() -> None:
    """He et al. 2015 give 0.27 million; with projections it is 272,474."""
    assert parameters(build_model(RunSpec(model="resnet", width=16, layers=3), images(CIFAR), 10)) == 272_474


@pytest.mark.parametrize("shape", [CIFAR, MNIST, DIGITS, (2, 11, 64)])
@pytest.mark.parametrize("activation", ["relu", "none", "silu"])
def test_the_resnet_takes_any_size(shape: tuple[int, int, int], activation: str) -> None:
    model = build_model(RunSpec(model="resnet", width=4, layers=1, activation=activation), images(shape), 6)
    assert model(pixels(2, shape)).shape == (2, 6)


def test_the_resnets_stages_halve_the_image() -> None:
    model = build_model(RunSpec(model="resnet", width=4, layers=2), images(CIFAR), 10)
    seen = []
    for block in model.get_submodule("blocks").children():
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[1:])))
    model(pixels(2, CIFAR))
    assert seen == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2


@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_a_table_of_images_is_one_too(model: str) -> None:
    """Digits are scaled as a table: no bytes, 64 columns."""
    built = build_model(RunSpec(model=model, width=4, dataset="digits"), DIGITS_TABLE, 10)
    row = torch.rand(2, 64)
    assert built(row).shape == (2, 10)
    assert built[0](row)[1, 0, 3, 5] == row[1, 3 * 8 + 5]


@pytest.mark.parametrize("model", ["cnn", "resnet"])
@pytest.mark.parametrize("autocast", [False, True])
def test_every_weight_gets_a_gradient(model: str, autocast: bool) -> None:
    built = build_model(RunSpec(model=model, width=4, dropout=0.2), images(MNIST), 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = built(pixels(4, MNIST))
        loss = functional.cross_entropy(output, torch.tensor([0, 1, 2, 3]))
    assert output.dtype == (torch.bfloat16 if autocast else torch.float32)
    for weight, gradient in zip(built.parameters(), torch.autograd.grad(loss, list(built.parameters())), strict=True):
        assert gradient.dtype == weight.dtype == torch.float32
        assert gradient.isfinite().all()
        assert gradient.shape == weight.shape


@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_rows_that_are_not_images_are_refused(model: str) -> None:
    with pytest.raises(Invalid, match="iris") as error:
        build_model(RunSpec(model=model), table("a", "b", "c", "d"), 3)
    assert error.value.field == "model"
    assert "mlp" in error.value.message
    assert "mnist" in error.value.message


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 32, 5)])
def test_images_that_are_too_small_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(Invalid, match=rf"8×8.*{shape[1]}×{shape[2]}.*mlp"):
        build_model(RunSpec(model="cnn"), images(shape), 3)


def test_a_channel_of_one_value_stays_finite() -> None:
    preparation = images(MNIST)
    black = type(preparation)(kind="image", loss="cross_entropy", image=MNIST, pixel_mean=(0.0,), pixel_std=(0.0,))
    assert (
        build_model(RunSpec(model="cnn", width=4), black, 2)(torch.zeros(2, *MNIST, dtype=torch.uint8)).isfinite().all()
    )
