"""Where a step's rows come from: all at once, picked on the device, or streamed from the host.

The order of every epoch is drawn by a separate generator. So dropout and shuffling do not affect each other, and a run
that continues after a kill draws the same rows. If several processes train, each takes its share of every batch: every row
is used once per epoch (as with DistributedSampler, but the last batch is not padded). Must never read a value back. Never
imports job, execution or training.
"""

from __future__ import annotations

from epochtop.engine.step.batches.batch import Batch, Batches, DataShard, FullBatch, RowsChangedError, RowsWatch, move
from epochtop.engine.step.batches.loader import LoaderBatches
from epochtop.engine.step.batches.shuffled import ResidentBatches, ShuffledBatches, StreamedBatches

__all__ = [
    "Batch",
    "Batches",
    "DataShard",
    "FullBatch",
    "LoaderBatches",
    "ResidentBatches",
    "RowsChangedError",
    "RowsWatch",
    "ShuffledBatches",
    "StreamedBatches",
    "move",
]
