"""tf32 is a switch of the whole process and no property of a job: who measures both sets it around every measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions on NVIDIA GPUs may be tf32, as :func:`epochtop.engine.job.job.build` sets it for a job."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def with_tf32(allowed: bool, run: Callable[[int], float]) -> Callable[[int], float]:
    """`run` with the switch set while it runs; the clock of `run` does not see that."""

    def switched(times: int) -> float:
        with tf32(allowed):
            return run(times)

    return switched
