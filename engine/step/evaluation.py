"""Loss and metrics over held-out rows: enqueued on the device, copied to the host with the next window.

Must never read a value back: the loop reads one flat tensor per evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.row_types import as_input, on_device, rows_tensor
from epochtop.engine.device.transfer import Uploads
from epochtop.engine.models.attributes import training_modes
from epochtop.engine.models.checked_rows import batch_of, collation_of
from epochtop.engine.models.nested import mapped
from epochtop.engine.step.batches import RowsWatch
from epochtop.engine.step.losses import LossWeight
from epochtop.engine.step.metrics import EvalMetrics, Scores, finite
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


@dataclass(frozen=True)
class EvalBatches:
    """Held-out rows in batches on the device: resident tensors, or arrays or a Dataset that are copied every time.

    Iterating gives (rows of x, their labels, number of rows); the number comes from here, as nested rows do not show it.
    """

    source: Any
    rows: int
    device: torch.device
    size: int
    """Rows per batch."""
    resident: bool
    copied: bool = False
    """Whether every batch is a copy, because the model changes its input in place."""

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[tuple[Any, Any, int]]:
        counts = (min(self.size, self.rows - first) for first in range(0, self.rows, self.size))
        for batch, count in zip(self._batches(), counts, strict=False):
            watch = RowsWatch(batch if self._shares_memory else ())
            if self.resident or isinstance(self.source, Rows):
                batch = as_input(batch[0]), as_input(batch[1])
            x, y = mapped(batch, Tensor.clone) if self.copied else batch
            yield x, y, count
            watch.check()

    @property
    def _shares_memory(self) -> bool:
        """Whether batches are views of the rows."""
        if self.resident or not isinstance(self.source, Rows):
            return self.resident
        return self.device.type == "cpu" and self.source.x.flags.c_contiguous and self.source.y.flags.c_contiguous

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        """The batches as they are stored; on the CPU, those of Rows share the memory of the rows."""
        upload = Uploads(self.device)
        if self.resident:
            x, y = self.source
            yield from zip(torch.split(x, self.size), torch.split(y, self.size), strict=True)
        elif isinstance(self.source, Rows):
            for first in range(0, self.rows, self.size):
                numbers = slice(first, first + self.size)
                arrays = (self.source.x[numbers], self.source.y[numbers])
                x, y = (upload(rows_tensor(np.ascontiguousarray(array))) for array in arrays)
                yield x, y
        else:
            generator = torch.Generator()
            collate = collation_of(self.source)
            pinned = self.device.type == "cuda"
            for batch in DataLoader(self.source, self.size, collate_fn=collate, generator=generator, pin_memory=pinned):
                x, y = batch_of(batch)
                yield mapped(x, upload), mapped(y, upload)


def eval_batches(
    examples: Any, device: torch.device, resident: bool, batch_rows: int, careful: bool = False, copied: bool = False
) -> EvalBatches:
    """`examples` (Rows or a Dataset) for evaluation on `device`; `resident` moves Rows there once.

    `careful` makes batches no larger than training batches: the memory per row is unknown for a task's model.
    `copied` makes every batch a copy.
    """
    if not isinstance(examples, Rows):
        return EvalBatches(examples, len(examples), device, max(1, batch_rows), resident=False, copied=copied)
    values = max(1, int(np.prod(examples.x.shape[1:], dtype=np.int64)))
    size = max(1, batch_rows) if careful else min(MAX_ROWS, max(batch_rows, MAX_VALUES // values, 1))
    source: Any = examples
    if resident:
        source = (on_device(rows_tensor(examples.x), device), on_device(rows_tensor(examples.y), device))
    return EvalBatches(source, len(examples), device, size, resident, copied)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model with one loss and one set of metrics, in one precision."""

    criterion: Criterion
    metrics: EvalMetrics
    device: torch.device
    autocast: torch.dtype | None = None
    loss_weight: LossWeight | None = None
    """Weight of a batch in the mean loss; None weighs batches by their rows."""
    gradients: bool = False
    """Whether model or loss compute gradients."""

    def evaluate(
        self,
        model: nn.Module,
        batches: EvalBatches,
        before_batch: BeforeBatch = uninterrupted,
    ) -> Tensor:
        """Mean loss and metrics over all rows as a flat tensor on the device; enqueued, not read.

        Raises EvaluationInterruptedError if `before_batch` does.
        """
        mean, weigh = _Mean(self.device), self.loss_weight
        state = self.metrics.empty(self.device)
        restore = training_modes(model)
        model.eval()
        try:
            with (
                torch.no_grad(),
                nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast),
            ):
                for number, (x, y, rows) in enumerate(batches):
                    before_batch(number)
                    output, loss = self._computed(model, x, y)
                    mean.add(loss, rows if weigh is None else weigh(output, y))
                    self.metrics.add(state, output, y, rows)
        finally:
            restore()
        flat = self.metrics.flat(state)
        return torch.cat((mean.value().type(flat.dtype).reshape(1), flat))

    def _computed(self, model: nn.Module, x: Any, y: Any) -> tuple[Any, Tensor]:
        """Output and loss of a batch, without their graph."""
        if not self.gradients:
            output = model(x)
            return output, self.criterion(output, y)
        with torch.enable_grad():
            output = model(x)
            loss = self.criterion(output, y)
        return mapped(output, Tensor.detach), loss.detach()

    def read(self, values: Tensor) -> tuple[float | None, Scores]:
        """Loss and scores from the host's copy of the result of :meth:`evaluate`; None for a loss that is not finite."""
        loss = finite(float(values[0]))
        return loss, self.metrics.read(values[1:], loss)


class _Mean:
    """The mean of losses, weighted by rows (a number) or by a tensor on the device."""

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros((), device=device)
        self._weight: int | Tensor = 0

    def add(self, loss: Tensor, weight: int | Tensor) -> None:
        """Add the mean loss of a batch; a batch without weight has none."""
        product = loss * weight
        self._total += torch.where(weight > 0, product, 0) if isinstance(weight, Tensor) else product
        self._weight = self._weight + weight

    def value(self) -> Tensor:
        """The mean, 0-d; NaN if there is no weight."""
        return self._total / self._weight
