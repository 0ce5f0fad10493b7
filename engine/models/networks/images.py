"""Networks for images from 8×8 pixels: a small CNN and a small residual network. Never reads data."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from epochtop.engine.models.layers import ACTIVATIONS, Recomputed, activation_layers, dropout_layers
from epochtop.engine.protocol.spec import RunSpec

SMALLEST = 8
"""Least height and width of an image in pixels: three halvings must leave one."""

Shape = tuple[int, int, int]
"""Channels, height, width."""


def cnn(spec: RunSpec, image: Shape, outputs: int) -> nn.Sequential:
    """Three 5×5 convolutions with max pooling, then two linear layers; maps (rows, *image) to (rows, outputs).

    With 32 channels and no activation it is the CIFAR-10 network of many tutorials. The first two convolutions have
    `width` channels; the third one and the first linear layer have twice as many.
    """
    width, (channels, height, image_width) = spec.width, image
    sizes = ((channels, width), (width, width), (width, 2 * width))
    blocks = [_convolution(spec, before, after) for before, after in sizes]
    flat = 2 * width * (height // 8) * (image_width // 8)
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            blocks=Recomputed(*blocks, active=spec.checkpoint_activations),
            flatten=nn.Flatten(),
            hidden=nn.Sequential(
                nn.Linear(flat, 2 * width), *activation_layers(spec.activation), *dropout_layers(spec.dropout)
            ),
            head=nn.Linear(2 * width, outputs),
        )
    )


def _convolution(spec: RunSpec, before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 5, padding=2), *activation_layers(spec.activation), nn.MaxPool2d(2))


def resnet(spec: RunSpec, image: Shape, outputs: int) -> nn.Sequential:
    """A residual network for small images, (rows, *image) to (rows, outputs).

    Three stages of `layers` blocks with 1, 2 and 4 × `width` channels. Source: He et al. 2015, "Deep Residual Learning",
    section 4.2, with projections where the size changes; a `width` of 16 and 3 `layers` give its ResNet-20.
    """
    width = spec.width
    blocks: list[nn.Module] = []
    before = width
    for stage, after in enumerate((width, 2 * width, 4 * width)):
        for block in range(spec.layers):
            stride = 2 if stage and not block else 1
            blocks.append(Residual(before, after, stride, spec.activation))
            before = after
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=nn.Sequential(
                nn.Conv2d(image[0], width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                *activation_layers(spec.activation),
            ),
            blocks=Recomputed(*blocks, active=spec.checkpoint_activations),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=nn.Sequential(*dropout_layers(spec.dropout)),
            head=nn.Linear(before, outputs),
        )
    )
    _initialize(model)
    return model


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut around them; `stride` 2 halves the image."""

    def __init__(self, before: int, after: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.activation = ACTIVATIONS[activation]() if activation != "none" else nn.Identity()
        self.around: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.around = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, before, height, width) to (rows, after, height / stride, width / stride)."""
        inner: Tensor = self.activation(self.norm1(self.conv1(x)))
        out: Tensor = self.activation(self.norm2(self.conv2(inner)) + self.around(x))
        return out


def _initialize(model: nn.Module) -> None:
    """Initialize as He et al. 2015: a layer's output has the variance of its input."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
