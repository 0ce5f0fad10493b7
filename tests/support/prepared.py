"""Preparations as the loaders of data make them, for tests of models."""

from __future__ import annotations

import torch
from torch import Tensor

from epochtop.engine.data.dataset import Preparation

CIFAR, MNIST, DIGITS = (3, 32, 32), (1, 28, 28), (1, 8, 8)


def images(shape: tuple[int, int, int]) -> Preparation:
    """Of bytes, with the figures of each channel."""
    channels = shape[0]
    return Preparation(
        kind="image",
        loss="cross_entropy",
        image=shape,
        pixel_mean=(0.5, 0.4, 0.3)[:channels],
        pixel_std=(0.25, 0.2, 0.1)[:channels],
    )


def table(*columns: str) -> Preparation:
    return Preparation(kind="table", loss="cross_entropy", columns=columns)


DIGITS_TABLE = Preparation(
    kind="table", loss="cross_entropy", image=DIGITS, columns=tuple(f"p{at}" for at in range(64))
)
TEXT = Preparation(kind="text", loss="next_character", vocabulary="abcde")


def pixels(rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Random bytes."""
    return torch.randint(0, 256, (rows, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def codes(rows: int, length: int, characters: int) -> Tensor:
    """Random characters."""
    drawn = torch.randint(0, characters, (rows, length), generator=torch.Generator().manual_seed(5))
    return drawn.to(torch.uint8)
