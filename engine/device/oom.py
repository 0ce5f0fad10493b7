"""Recognizes errors that mean a device is out of memory."""

from __future__ import annotations

import re

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"can't allocate memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED", str(error))
    )
