"""TF32 is a process-wide setting, so each measurement sets and restores it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 products and convolutions on NVIDIA GPUs, as :func:`epochtop.engine.job.job.build` does."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def with_tf32(allowed: bool, run: Callable[[int], float]) -> Callable[[int], float]:
    """`run` with the setting; the clock of `run` does not include setting it."""

    def switched(times: int) -> float:
        with tf32(allowed):
            return run(times)

    return switched
