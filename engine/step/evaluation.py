"""Loss and metrics over held-out rows: enqueued on the device, copied to the host with the next window.

Must never read a value back: the loop reads one flat tensor per evaluation.
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

MAX_ROWS = 8192
MAX_VALUES = 1 << 20
"""Rows and input values of one evaluation batch at most, so that activations stay small."""


class EvaluationInterruptedError(Exception):
    """An evaluation ended between two batches and has no figures."""


BeforeBatch = Callable[[int], None]
"""Called with the number of batches that are evaluated already; may raise EvaluationInterruptedError."""


def uninterrupted(_batches: int) -> None:
    """Interrupts nothing."""


class TaskMetrics:
    """The metrics of a task: functions of (output, labels) to a mean over the rows, 0-d."""

    def __init__(self, functions: Mapping[str, Callable[[Any, Any], Tensor]]) -> None:
        self._functions = dict(functions)

    @property
    def main(self) -> str:
        """Name of the first metric; empty if there is none."""
        return next(iter(self._functions), "")

    def empty(self, device: torch.device) -> tuple[Tensor, ...]:
        """Sums over no rows: one per metric, and the number of rows."""
        return (torch.zeros(len(self._functions) + 1, device=device),)

    def add(self, state: tuple[Tensor, ...], output: Any, labels: Any) -> None:
        """Add a batch."""
        rows = len(output)
        values = [function(output, labels).float() * rows for function in self._functions.values()]
        count = torch.full((), float(rows), device=state[0].device)
        state[0].add_(torch.stack([*values, count]))

    def flat(self, state: tuple[Tensor, ...]) -> Tensor:
        """All sums in one tensor (n,), for one copy to the host."""
        return state[0]

    def read(self, values: Tensor, loss: float | None) -> Scores:
        """The metrics, from the host's copy of :meth:`flat`."""
        *sums, rows = values.tolist()
        return Scores(
            {name: _finite(total / rows) for name, total in zip(self._functions, sums, strict=True)}, confusion=None
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class EvalBatches:
    """Held-out rows in batches on the device: resident tensors, or arrays or a Dataset that are copied every time."""

    source: Any
    rows: int
    device: torch.device
    size: int
    """Rows per batch."""
    resident: bool

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if self.resident:
            x, y = self.source
            yield from zip(torch.split(x, self.size), torch.split(y, self.size), strict=True)
        elif isinstance(self.source, Rows):
            for first in range(0, self.rows, self.size):
                batch = slice(first, first + self.size)
                arrays = (self.source.x[batch], self.source.y[batch])
                yield tuple(move(torch.from_numpy(np.ascontiguousarray(array)), self.device) for array in arrays)
        else:
            for x, y in DataLoader(self.source, batch_size=self.size, generator=torch.Generator()):
                yield move(x, self.device), move(y, self.device)


def eval_batches(
    examples: Any, device: torch.device, resident: bool, batch_rows: int, careful: bool = False
) -> EvalBatches:
    """`examples` (Rows or a Dataset) for evaluation on `device`; `resident` moves Rows there once.

    `careful` makes batches no larger than training batches: the memory per row is unknown for a task's model.
    """
    if not isinstance(examples, Rows):
        return EvalBatches(examples, len(examples), device, max(1, batch_rows), resident=False)
    values = max(1, int(np.prod(examples.x.shape[1:], dtype=np.int64)))
    size = max(1, batch_rows) if careful else min(MAX_ROWS, max(batch_rows, MAX_VALUES // values, 1))
    source: Any = examples
    if resident:
        source = (torch.from_numpy(examples.x).to(device), torch.from_numpy(examples.y).to(device))
    return EvalBatches(source, len(examples), device, size, resident)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model with one loss and one set of metrics, in one precision."""

    criterion: Criterion
    metrics: Metrics | TaskMetrics
    device: torch.device
    autocast: torch.dtype | None = None

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        batches: EvalBatches,
        weights: dict[str, Tensor] | None = None,
        before_batch: BeforeBatch = uninterrupted,
    ) -> Tensor:
        """Mean loss and metrics over all rows as a flat tensor on the device; enqueued, not read.

        `weights` replace the model's weights, for example by their moving average. Raises EvaluationInterruptedError if
        `before_batch` does.
        """
        total = torch.zeros((), device=self.device)
        state = self.metrics.empty(self.device)
        training = model.training
        model.eval()
        try:
            with nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast):
                for number, (x, y) in enumerate(batches):
                    before_batch(number)
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
        return torch.cat(((total / len(batches)).type(flat.dtype).reshape(1), flat))

    def read(self, values: Tensor) -> tuple[float | None, Scores]:
        """Loss and scores from the host's copy of the result of :meth:`evaluate`; None for a loss that is not finite."""
        loss = _finite(float(values[0]))
        return loss, self.metrics.read(values[1:], loss)
