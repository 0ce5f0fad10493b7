"""Loss and metrics over held-out rows: enqueued on the device, brought to the host with the next window.

Must never read a value back; what is read is one flat tensor an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from epochtop.engine.data.dataset import Rows
from epochtop.engine.step.batches import move
from epochtop.engine.step.metrics import Metrics, Scores
from epochtop.engine.step.step import Criterion

MOST_ROWS = 8192
MOST_VALUES = 1 << 20
"""Rows are evaluated in pieces of at most so many rows and input values, so that activations stay small."""


class TaskMetrics:
    """A task's own metrics: callables of (output, labels) to a mean over the rows, 0-d."""

    def __init__(self, functions: Mapping[str, Callable[[Any, Any], Tensor]]) -> None:
        self._functions = dict(functions)

    @property
    def main(self) -> str:
        """The first one; empty if there is none."""
        return next(iter(self._functions), "")

    def empty(self, device: torch.device) -> tuple[Tensor, ...]:
        """Sums over rows, and how many there were."""
        return (torch.zeros(len(self._functions) + 1, device=device),)

    def add(self, state: tuple[Tensor, ...], output: Any, labels: Any) -> None:
        """Take in a batch."""
        rows = len(output)
        values = [function(output, labels).float() * rows for function in self._functions.values()]
        count = torch.full((), float(rows), device=state[0].device)
        state[0].add_(torch.stack([*values, count]))

    def flat(self, state: tuple[Tensor, ...]) -> Tensor:
        """For one copy to the host."""
        return state[0]

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The figures, from the host's copy."""
        *sums, rows = values.tolist()
        return Scores(
            {name: _finite(total / rows) for name, total in zip(self._functions, sums, strict=True)}, confusion=None
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class EvalBatches:
    """Held-out rows in pieces on the device: tensors that lie there, or arrays and a Dataset that travel each time."""

    source: Any
    rows: int
    device: torch.device
    size: int
    """Rows a piece."""
    resident: bool

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if self.resident:
            x, y = self.source
            yield from zip(torch.split(x, self.size), torch.split(y, self.size), strict=True)
        elif isinstance(self.source, Rows):
            for first in range(0, self.rows, self.size):
                piece = slice(first, first + self.size)
                arrays = (self.source.x[piece], self.source.y[piece])
                yield tuple(move(torch.from_numpy(np.ascontiguousarray(array)), self.device) for array in arrays)
        else:
            for x, y in DataLoader(self.source, batch_size=self.size, generator=torch.Generator()):
                yield move(x, self.device), move(y, self.device)


def eval_batches(
    examples: Any, device: torch.device, resident: bool, batch_rows: int, careful: bool = False
) -> EvalBatches:
    """`examples` (Rows or a Dataset) to evaluate on `device`; `resident` moves Rows there once.

    `careful` takes no more rows at once than a training batch has: what a row needs in the model is not known.
    """
    if not isinstance(examples, Rows):
        return EvalBatches(examples, len(examples), device, max(1, batch_rows), resident=False)
    values = max(1, int(np.prod(examples.x.shape[1:], dtype=np.int64)))
    size = max(1, batch_rows) if careful else min(MOST_ROWS, max(batch_rows, MOST_VALUES // values, 1))
    source: Any = examples
    if resident:
        source = (torch.from_numpy(examples.x).to(device), torch.from_numpy(examples.y).to(device))
    return EvalBatches(source, len(examples), device, size, resident)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model: which loss, which metrics, in which precision."""

    criterion: Criterion
    metrics: Metrics | TaskMetrics
    device: torch.device
    autocast: torch.dtype | None = None

    @torch.no_grad()
    def evaluate(self, model: nn.Module, rows: EvalBatches, weights: dict[str, Tensor] | None = None) -> Tensor:
        """Mean loss and metrics over all rows as a flat tensor on the device; enqueued, not read.

        `weights` are used in place of the model's own (a moving average of them).
        """
        total = torch.zeros((), device=self.device)
        state = self.metrics.empty(self.device)
        training = model.training
        model.eval()
        try:
            with nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast):
                for x, y in rows:
                    output = (
                        model(x)
                        if weights is None
                        else torch.func.functional_call(model, weights, (x,), tie_weights=False)
                    )
                    total += self.criterion(output, y) * len(y)
                    self.metrics.add(state, output, y)
        finally:
            model.train(training)
        flat = self.metrics.flat(state)
        return torch.cat(((total / len(rows)).type(flat.dtype).reshape(1), flat))

    def read(self, values: Tensor) -> tuple[float | None, Scores]:
        """Loss and scores from the host's copy of what :meth:`evaluate` gave; None for what is not finite."""
        loss = _finite(float(values[0]))
        return loss, self.metrics.read(values[1:], loss)
