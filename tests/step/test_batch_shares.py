"""Every process takes its share of every batch: every row is used once per epoch, with equal weight."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from epochtop.engine.data.dataset import Rows
from epochtop.engine.step.batches import Batches, DataShard, FullBatch, LoaderBatches, ResidentBatches, StreamedBatches

CPU = torch.device("cpu")
ROWS = 53


def batches_of(kind: str, share: DataShard) -> Batches:
    """Batches of 10 rows per process, out of 53 rows; a row's label is its number."""
    x, y = torch.arange(ROWS, dtype=torch.float32).reshape(ROWS, 1), torch.arange(ROWS)
    match kind:
        case "whole":
            return FullBatch(x, y, ROWS, share)
        case "resident":
            return ResidentBatches(x, y, 10, 4, share)
        case "streamed":
            return StreamedBatches(Rows(x.numpy(), y.numpy()), 10, 4, share, CPU)
        case _:
            return LoaderBatches(TensorDataset(x, y), 10, 4, share, CPU, 0)


@pytest.mark.parametrize("of", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["whole", "resident", "streamed", "loaded"])
def test_every_row_is_used_once_per_epoch_with_equal_weight(kind: str, accumulate: int, of: int) -> None:
    everyone = [batches_of(kind, DataShard(rank, of)) for rank in range(of)]
    for _ in range(2):
        seen: list[torch.Tensor] = []
        weight = torch.zeros(ROWS, dtype=torch.float64)
        steps = -(-everyone[0].per_epoch // accumulate)
        for _ in range(steps):
            rows_of_step = []
            for batches in everyone:
                for batch in batches.next_batches(accumulate):
                    if batch.weight:
                        rows_of_step.append(batch.y)
                        # the loss of a batch is a mean over its rows, and the ranks' losses are averaged
                        weight[batch.y] += batch.weight / len(batch.y) / of
                    assert len(batch.y) > 0
            together = torch.cat(rows_of_step)
            torch.testing.assert_close(weight[together], torch.full((len(together),), 1 / len(together)).double())
            seen.append(together)
        assert torch.cat(seen).sort().values.tolist() == list(range(ROWS))
