"""TF32 is switched whichever of torch's two sets of switches a task has used, and is put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from epochtop.engine.device.tf32 import allow_tf32, tf32

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn

needs_new_switches = pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="torch 2.9 or later")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with tf32(False):
        yield


def new_values() -> tuple[str, str, str]:
    return MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision  # type: ignore[attr-defined]


@needs_new_switches
@pytest.mark.parametrize("allowed", [False, True])
def test_both_sets_of_switches_agree(allowed: bool) -> None:
    """Reading the old ones raises RuntimeError if they do not."""
    MATMUL.fp32_precision = "tf32"
    CUDNN.conv.fp32_precision = "ieee"
    allow_tf32(allowed)
    assert new_values() == (("tf32" if allowed else "ieee"),) * 3
    assert (MATMUL.allow_tf32, CUDNN.allow_tf32) == (allowed, allowed)


@needs_new_switches
def test_what_a_task_has_set_for_everything_does_not_win() -> None:
    torch.backends.fp32_precision = "tf32"
    try:
        allow_tf32(False)
        assert new_values() == ("ieee",) * 3
    finally:
        torch.backends.fp32_precision = "none"


@needs_new_switches
def test_switches_are_put_back() -> None:
    MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = "tf32", "ieee", "tf32"
    with tf32(True):
        assert new_values() == ("tf32",) * 3
    assert new_values() == ("tf32", "ieee", "tf32")
