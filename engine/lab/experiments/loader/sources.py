"""Sources of batches for a training step: the engine's own, and torch's DataLoader with and without workers.

Worker processes live as long as the `with` block around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.row_types import as_input, rows_tensor
from epochtop.engine.job import memory_estimate
from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiments.loader.schema import SAME
from epochtop.engine.models.nested import collated
from epochtop.engine.step.batches import DataShard, ResidentBatches, StreamedBatches, move
from epochtop.engine.step.batches.row_order import is_listed, new_order

NextBatch = Callable[[], tuple[Any, Any]]
"""The next batch on the training device: rows and labels."""
PREFETCH = 2
"""Batches that torch's DataLoader prepares per worker."""


@dataclass(frozen=True)
class Source:
    """One source of batches, opened for each measurement."""

    name: str
    open: Callable[[], AbstractContextManager[NextBatch]]
    workers: int | None = None
    """Worker processes of a DataLoader."""
    pinned: bool | None = None
    """Whether a DataLoader pins memory."""
    ahead: int = 0
    """Batches prepared in advance, which must be used up before the pace is the source's own."""


def loader_name(workers: int, pinned: bool) -> str:
    """The name of a DataLoader."""
    return f"{workers} worker{'' if workers == 1 else 's'}{' pinned' if pinned else ''}"


def same_batch(job: Job) -> Source:
    """The first batch, again and again, on the device."""
    first = job.workload.first(job.spec.batch_size, job.device)
    return Source(SAME, lambda: nullcontext(first))


def engine_sources(job: Job) -> list[Source]:
    """The engine's sources for rows in memory; resident rows only if they fit the device."""
    rows, share = job.workload.train, DataShard()
    spec = msgspec.structs.replace(job.spec, placement="auto")
    if not isinstance(rows, Rows):
        return []
    sources = []
    if memory_estimate.resident(spec, job.workload, job.device)[0]:
        x, y = (rows_tensor(array).to(job.device) for array in (rows.x, rows.y))
        sources.append(_always_open("resident", ResidentBatches(x, y, spec.batch_size, spec.seed, share)))
    streamed = StreamedBatches(rows, spec.batch_size, spec.seed, share, job.device)
    return [*sources, _always_open("streamed", streamed)]


def _always_open(name: str, batches: NextBatch) -> Source:
    return Source(name, lambda: nullcontext(batches))


def loader(job: Job, workers: int, pinned: bool) -> Source:
    """torch's DataLoader over the same rows, or over the Dataset of a task."""
    train = job.workload.train
    dataset = _dataset(train) if isinstance(train, Rows) else train
    order = Endless(len(dataset), job.spec.batch_size, job.spec.seed)  # type: ignore[arg-type]
    return Source(
        loader_name(workers, pinned),
        lambda: _loading(dataset, order, job.device, workers, pinned),
        workers,
        pinned,
        PREFETCH * workers,
    )


def _dataset(rows: Rows) -> TensorDataset:
    return TensorDataset(*(as_input(rows_tensor(array)) for array in (rows.x, rows.y)))


class Endless(Sampler[list[int]]):
    """Row numbers of batches, shuffled again for every pass, without end: workers would end with an epoch."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            order = new_order(self._rows, self._rows, generator, torch.device("cpu"), is_listed(self._rows))
            for first in range(0, self._rows, self._size):
                yield order.numbers(first, min(first + self._size, self._rows)).tolist()


@contextmanager
def _loading(
    dataset: Dataset[Any], order: Endless, device: torch.device, workers: int, pinned: bool
) -> Iterator[NextBatch]:
    data_loader = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collated,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context="fork" if workers else None,  # a user's modules exist in this process only
        pin_memory=pinned,
        generator=torch.Generator().manual_seed(0),
    )
    batches: Any = iter(data_loader)

    def next_batch() -> tuple[Any, Any]:
        x, y = next(batches)
        return move(x, device), move(y, device)

    try:
        yield next_batch
    finally:
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
