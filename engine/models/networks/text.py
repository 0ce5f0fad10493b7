"""A transformer that predicts the next character at every position of a row. Never reads data."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochtop.engine.models.layers import ACTIVATIONS, Recomputed, dropout_layers
from epochtop.engine.protocol.spec import RunSpec

SPREAD = 0.02
"""Standard deviation of the initial weights, as in GPT-2."""


def transformer(spec: RunSpec, characters: int) -> nn.Sequential:
    """A causal transformer from codes (rows, length ≤ `context`) to logits (rows, length, `characters`).

    Pre-norm blocks; layout and initial weights as in Radford et al. 2019 (GPT-2).
    """
    draws = spec.dropout > 0
    blocks = [Block(spec.width, spec.heads, spec.dropout, spec.activation) for _ in range(spec.layers)]
    model = nn.Sequential(
        OrderedDict[str, nn.Module](
            embedding=Embedding(characters, spec.context, spec.width, spec.dropout),
            blocks=Recomputed(*blocks, active=spec.checkpoint_activations, draws=draws),
            norm=nn.LayerNorm(spec.width),
            head=nn.Linear(spec.width, characters, bias=False),
        )
    )
    initialize(model, spec.layers)
    return model


class Embedding(nn.Module):
    """Character embedding plus position embedding: codes (rows, length) of any integer type to (rows, length, width)."""

    def __init__(self, characters: int, context: int, width: int, dropout: float) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.place = nn.Parameter(torch.empty(context, width))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, codes: Tensor) -> Tensor:
        """Raises ValueError for rows longer than the context."""
        length, context = codes.shape[1], len(self.place)
        if length > context:
            raise ValueError(
                f"the rows have {length} characters, more than the transformer's context of {context}; shorten them"
            )
        embedded: Tensor = self.dropout(self.character(codes.int()) + self.place[:length])
        return embedded


class Attention(nn.Module):
    """Multi-head self-attention, if `causal` to earlier places only; input and output are (rows, length, width)."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        split = self.queries_keys_values(x).view(rows, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=self.causal, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.project(attended.transpose(1, 2).reshape(rows, length, width))
        return out


class Block(nn.Module):
    """Attention, then a feed-forward network four times as wide, each with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float, activation: str, causal: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout, causal)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = ACTIVATIONS[activation]() if activation != "none" else nn.Identity()
        self.project = nn.Linear(4 * width, width)
        self.dropout = nn.Sequential(*dropout_layers(dropout))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        out: Tensor = x + self.dropout(self.project(self.activation(self.widen(self.norm2(x)))))
        return out


def initialize(model: nn.Module, layers: int) -> None:
    """Initialize normal weights and zero biases; projections into the residual stream shrink with the number of blocks."""
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif "norm" in name:
            nn.init.ones_(weight)
        else:
            residual = "project" in name
            nn.init.normal_(weight, std=SPREAD / (2 * layers) ** 0.5 if residual else SPREAD)
