"""Networks for documents, which are rows of codes of words; code 0 fills short rows. Never reads data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from epochtop.engine.data.text.words import CODES
from epochtop.engine.models.layers import Recomputed, dropout_layers
from epochtop.engine.models.networks.text import Block, Embedding, initialize
from epochtop.engine.protocol.spec import RunSpec


class MeanEmbedding(nn.Module):
    """The mean of the embeddings of a document's codes: codes (rows, length) to (rows, width); zeros without codes.

    Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification" (fastText).
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.codes = nn.EmbeddingBag(CODES, width, mode="mean", padding_idx=0)
        self.dropout = nn.Sequential(*dropout_layers(dropout))

    def forward(self, codes: Tensor) -> Tensor:
        """From codes of any integer type."""
        embedded: Tensor = self.dropout(self._mean(codes) if torch.compiler.is_compiling() else self.codes(codes.int()))
        return embedded

    def _mean(self, codes: Tensor) -> Tensor:
        """The same in operators that compilers and ONNX know well; EmbeddingBag would become a loop over rows."""
        used = (codes != 0).unsqueeze(-1).to(self.codes.weight.dtype)
        total = (functional.embedding(codes.long(), self.codes.weight) * used).sum(1)
        return total / used.sum(1).clamp(min=1)


class DocumentEncoder(nn.Module):
    """A transformer encoder over the words of a document: codes (rows, length) to (rows, outputs).

    Every word sees all others; the mean of the words decides, without those that only fill the row.
    """

    def __init__(self, spec: RunSpec, length: int, outputs: int) -> None:
        super().__init__()
        blocks = [
            Block(spec.width, spec.heads, spec.dropout, spec.activation, causal=False) for _ in range(spec.layers)
        ]
        self.embedding = Embedding(CODES, length, spec.width, spec.dropout)
        self.blocks = Recomputed(*blocks, active=spec.checkpoint_activations, draws=spec.dropout > 0)
        self.norm = nn.LayerNorm(spec.width)
        self.head = nn.Linear(spec.width, outputs)
        initialize(self, spec.layers)

    def forward(self, codes: Tensor) -> Tensor:
        """From codes of any integer type."""
        words = self.norm(self.blocks(self.embedding(codes)))
        used = (codes != 0).unsqueeze(-1).to(words.dtype)
        mean = (words * used).sum(1) / used.sum(1).clamp(min=1)
        outputs: Tensor = self.head(mean)
        return outputs
