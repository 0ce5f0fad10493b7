"""Ways in which rows come to a training step: the engine's own, and torch's DataLoader with and without workers.

Worker processes live as long as the `with` around them, and no longer.
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
from epochtop.engine.job import memory_estimate
from epochtop.engine.job.job import Job
from epochtop.engine.lab.experiment import Row
from epochtop.engine.lab.experiments.loader import SAME
from epochtop.engine.step.batches import DataShard, ResidentBatches, StreamedBatches, move

Batch = Callable[[], tuple[Any, Any]]
"""The next batch on the device that trains: rows and labels."""
AHEAD = 2
"""Batches that torch's DataLoader has under way for every worker."""


@dataclass(frozen=True)
class Feed:
    """One way, to be opened for every measurement."""

    labels: Row
    open: Callable[[], AbstractContextManager[Batch]]
    ahead: int = 0
    """Batches that are made in advance: so many have to be taken before the pace is its own."""


def way(workers: int, pinned: bool) -> str:
    """The name of a DataLoader."""
    return f"{workers} worker{'' if workers == 1 else 's'}{' pinned' if pinned else ''}"


def same(job: Job) -> Feed:
    """The first batch, which lies on the device."""
    whole = job.workload.first(job.spec.batch_size, job.device)
    return Feed({"way": SAME}, lambda: nullcontext(whole))


def own(job: Job) -> list[Feed]:
    """The engine's, for rows in memory; resident rows only where they fit the device."""
    rows, share = job.workload.train, DataShard()
    spec = msgspec.structs.replace(job.spec, placement="auto")
    if not isinstance(rows, Rows):
        return []
    feeds = []
    if memory_estimate.resident(spec, job.workload, job.device)[0]:
        x, y = (torch.from_numpy(array).to(job.device) for array in (rows.x, rows.y))
        feeds.append(_steady("resident", ResidentBatches(x, y, spec.batch_size, spec.seed, share)))
    return [*feeds, _steady("streamed", StreamedBatches(rows, spec.batch_size, spec.seed, share, job.device))]


def _steady(name: str, batches: Batch) -> Feed:
    return Feed({"way": name}, lambda: nullcontext(batches))


def loader(job: Job, workers: int, pinned: bool) -> Feed:
    """torch's DataLoader over the same rows, or over a task's own Dataset."""
    train = job.workload.train
    dataset = TensorDataset(*map(torch.from_numpy, (train.x, train.y))) if isinstance(train, Rows) else train
    order = Endless(len(dataset), job.spec.batch_size, job.spec.seed)  # type: ignore[arg-type]
    labels: Row = {"way": way(workers, pinned), "workers": workers, "pinned": int(pinned)}
    return Feed(labels, lambda: _loading(dataset, order, job.device, workers, pinned), AHEAD * workers)


class Endless(Sampler[list[int]]):
    """Row numbers of batches, in a new order every pass, without end: with an epoch the workers would end too."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, size, seed

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            for chosen in torch.randperm(self._rows, generator=generator).split(self._size):
                yield chosen.tolist()


@contextmanager
def _loading(
    dataset: Dataset[Any], order: Endless, device: torch.device, workers: int, pinned: bool
) -> Iterator[Batch]:
    made = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,  # a user's modules are known here only
        pin_memory=pinned,
        generator=torch.Generator().manual_seed(0),
    )
    batches: Any = iter(made)

    def take() -> tuple[Any, Any]:
        x, y = next(batches)
        return move(x, device), move(y, device)

    try:
        yield take
    finally:
        end = getattr(batches, "_shutdown_workers", None)
        if end is not None:
            end()
