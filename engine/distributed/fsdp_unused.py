"""Weights that a step does not use, if weights are sharded: all ranks agree to skip those that no rank has used.

FSDP gives them a gradient of zeros, which weight decay and momentum would turn into a change. Torch's optimizers skip a
weight without gradient. Which weights were used is known on the host, so no device is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class UsedWeights:
    """Which weights have got a gradient since the last exchange, on any rank."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        """`model` is sharded, and all of its weights are gathered: the hooks belong to the weights that backward sees."""
        self._used = torch.zeros(len(names), dtype=torch.uint8)
        weights = dict(model.named_parameters())
        for number, name in enumerate(names):
            weights[name].register_post_accumulate_grad_hook(lambda _, number=number: self._note(number))
        exchange_all(model)

    def _note(self, number: int) -> None:
        self._used[number] = 1

    def on_any_rank(self) -> list[bool]:
        """For each weight, whether a rank has used it; forgets it afterwards. All ranks must call it."""
        dist.all_reduce(self._used, dist.ReduceOp.MAX)
        used = [bool(flag) for flag in self._used.tolist()]
        self._used.zero_()
        return used


def exchange_all(model: nn.Module) -> None:
    """Let backward exchange zeros for a weight that this rank has not used: another rank may have used it."""
    exchange = getattr(cast("FSDPModule", model), "set_reduce_scatter_unused_params", None)
    if exchange is not None:  # new in torch 2.13; before, all ranks must use the same weights
        exchange(True)
