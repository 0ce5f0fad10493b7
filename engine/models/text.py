"""A transformer that reads characters and says which one follows, at every place of a row."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochtop.engine.models.layers import ACTIVATIONS, Recomputed, dropout_layers
from epochtop.engine.protocol.spec import RunSpec

SPREAD = 0.02
"""Standard deviation of fresh weights, as GPT-2 has it."""


def transformer(spec: RunSpec, characters: int) -> nn.Sequential:
    """Codes (rows, up to `context`) to logits (rows, as many, `characters`); a place sees those before it only.

    Pre-norm blocks; Radford et al. 2019 (GPT-2) for the layout and the initial weights.
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
    _initialize(model, spec.layers)
    return model


class Embedding(nn.Module):
    """Character plus place: codes (rows, length) of any integer type to (rows, length, width)."""

    def __init__(self, characters: int, context: int, width: int, dropout: float) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, width)
        self.place = nn.Parameter(torch.empty(context, width))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, codes: Tensor) -> Tensor:
        """Raises ValueError for rows longer than the context."""
        length, context = codes.shape[1], len(self.place)
        if length > context:
            raise ValueError(f"the rows have {length} characters, the transformer was built for a context of {context}")
        embedded: Tensor = self.dropout(self.character(codes.int()) + self.place[:length])
        return embedded


class Attention(nn.Module):
    """Causal self-attention with several heads: (rows, length, width) to the same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        split = self.queries_keys_values(x).view(rows, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, dropout_p=self.share if self.training else 0.0
        )
        out: Tensor = self.project(seen.transpose(1, 2).reshape(rows, length, width))
        return out


class Block(nn.Module):
    """Attention, then two linear layers of which the inner is four times as wide; each adds to its input."""

    def __init__(self, width: int, heads: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.activation = ACTIVATIONS[activation]() if activation != "none" else nn.Identity()
        self.project = nn.Linear(4 * width, width)
        self.dropout = nn.Sequential(*dropout_layers(dropout))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        out: Tensor = x + self.dropout(self.project(self.activation(self.widen(self.norm2(x)))))
        return out


def _initialize(model: nn.Module, layers: int) -> None:
    """Small normal weights, no biases; what adds to the stream is smaller the more blocks do."""
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif "norm" in name:
            nn.init.ones_(weight)
        else:
            residual = "project" in name
            nn.init.normal_(weight, std=SPREAD / (2 * layers) ** 0.5 if residual else SPREAD)
