"""Networks for series, (rows, time, features): an LSTM, a transformer encoder and a 1-D CNN. Never reads data."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from epochtop.engine.models.layers import Recomputed, activation_layers, dropout_layers
from epochtop.engine.models.networks.text import Block, initialize
from epochtop.engine.protocol.spec import RunSpec

Shape = tuple[int, int]
"""Time steps, features."""


def lstm(spec: RunSpec, series: Shape, outputs: int) -> nn.Sequential:
    """`layers` LSTM layers of `width` units, and a linear layer on the last state; (rows, time, features) to (rows, outputs)."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            lstm=LastState(series[1], spec.width, spec.layers, spec.dropout),
            dropout=nn.Sequential(*dropout_layers(spec.dropout)),
            head=nn.Linear(spec.width, outputs),
        )
    )


class LastState(nn.Module):
    """An LSTM of which only the last layer's state after the last time step is returned, (rows, width)."""

    def __init__(self, features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(features, width, layers, batch_first=True, dropout=between)

    def forward(self, x: Tensor) -> Tensor:
        """From (rows, time, features)."""
        states, _ = self.lstm(x)
        last: Tensor = states[:, -1]
        return last


def encoder(spec: RunSpec, series: Shape, outputs: int) -> nn.Sequential:
    """A transformer encoder: every time step sees all others, and their mean decides; maps to (rows, outputs)."""
    draws = spec.dropout > 0
    blocks = [Block(spec.width, spec.heads, spec.dropout, spec.activation, causal=False) for _ in range(spec.layers)]
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            embedding=Steps(series, spec.width, spec.dropout),
            blocks=Recomputed(*blocks, active=spec.checkpoint_activations, draws=draws),
            norm=nn.LayerNorm(spec.width),
            pool=MeanOverTime(),
            head=nn.Linear(spec.width, outputs),
        )
    )
    initialize(model, spec.layers)
    return model


class Steps(nn.Module):
    """A linear map of the features of each time step, plus an embedding of its place; to (rows, time, width)."""

    def __init__(self, series: Shape, width: int, dropout: float) -> None:
        super().__init__()
        self.step = nn.Linear(series[1], width)
        self.place = nn.Parameter(torch.empty(series[0], width))
        self.dropout = nn.Sequential(*dropout_layers(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """From (rows, time, features)."""
        embedded: Tensor = self.dropout(self.step(x) + self.place)
        return embedded


class MeanOverTime(nn.Module):
    """The mean of all time steps: (rows, time, width) to (rows, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the second dimension."""
        return x.mean(1)


def cnn_over_time(spec: RunSpec, series: Shape, outputs: int) -> nn.Sequential:
    """Three convolutions over 5 time steps with max pooling, and the mean over time; maps to (rows, outputs).

    The first two convolutions have `width` channels, the third one has twice as many. Series may have any length.
    """
    width, (_, features) = spec.width, series
    sizes = ((features, width), (width, width), (width, 2 * width))
    blocks = [_convolution(spec, before, after) for before, after in sizes]
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            channels=TimeLast(),
            blocks=Recomputed(*blocks, active=spec.checkpoint_activations),
            pool=nn.AdaptiveAvgPool1d(1),
            flatten=nn.Flatten(),
            dropout=nn.Sequential(*dropout_layers(spec.dropout)),
            head=nn.Linear(2 * width, outputs),
        )
    )


class TimeLast(nn.Module):
    """Features as channels: (rows, time, features) to (rows, features, time)."""

    def forward(self, x: Tensor) -> Tensor:
        """A view of the rows."""
        return x.transpose(1, 2)


def _convolution(spec: RunSpec, before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(before, after, 5, padding=2), *activation_layers(spec.activation), nn.MaxPool1d(2, ceil_mode=True)
    )
