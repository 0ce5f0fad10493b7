"""TF32: products and convolutions of fp32 with fewer bits on NVIDIA GPUs. A setting of the whole process.

Since torch 2.9 there are two sets of switches, and reading the old ones raises if the two differ. Both are set here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

ON, OFF = "tf32", "ieee"


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 products and convolutions on NVIDIA GPUs."""
    _set_old((allowed, allowed))
    for owner in _owners():
        owner.fp32_precision = ON if allowed else OFF


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 inside."""
    before = _values()
    try:
        allow_tf32(allowed)
        yield
    finally:
        _restore(before)


def _owners() -> tuple[Any, ...]:
    """Owners of the new switches: of products, convolutions and recurrent layers. Empty for an older torch."""
    backends: Any = torch.backends
    owners = backends.cuda.matmul, getattr(backends.cudnn, "conv", None), getattr(backends.cudnn, "rnn", None)
    return owners if all(hasattr(owner, "fp32_precision") for owner in owners) else ()


def _values() -> tuple[Any, ...]:
    owners = _owners()
    if owners:
        return tuple(owner.fp32_precision for owner in owners)
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _restore(values: tuple[Any, ...]) -> None:
    owners = _owners()
    if not owners:
        _set_old((values[0], values[1]))
        return
    _set_old((values[0] == ON, values[1] == ON))
    for owner, value in zip(owners, values, strict=True):
        owner.fp32_precision = value


def _set_old(values: tuple[bool, bool]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch announce the new switches
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = values
