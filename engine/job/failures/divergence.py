"""Why a loss is not finite: rows, labels, or what a step computes from them.

Called after training has ended, so it may read the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from epochtop.engine.data.dataset import Rows
from epochtop.engine.data.scaling import ALL_ROWS, blocks
from epochtop.engine.job.failures import replay
from epochtop.engine.job.job import Job
from epochtop.engine.job.state import Values
from epochtop.engine.job.workload import Examples
from epochtop.engine.models.nested import tensors_of

SEARCH_S = 3.0
"""Longest search for a wrong row, in seconds."""


def divergence_advice(
    job: Job,
    step: int,
    rate: Callable[[int], float],
    saved: Mapping[str, Tensor],
    saved_values: Values,
    saved_step: int,
) -> str:
    """What helps a run of `job` whose loss at `step` is not finite.

    Looks at a task's rows and labels first, then takes its steps again to find what is the first to be not finite: outputs,
    loss, gradients or weights. `rate` is the learning rate of a step; `saved` is the last checkpoint before `step`, empty if
    there is none.
    """
    if job.workload.task is not None:
        place = _place_of_nan(job.workload.train)
        if place:
            return f"{place} is NaN or infinite (rows count from 0): fix or drop it, or skip it in the loss"
        cause = replay.first_not_finite(job, step, rate, saved, saved_values, saved_step, SEARCH_S)
        if cause:
            return cause
    if step == 0:
        precision = "" if job.spec.precision == "fp32" else ", or use precision fp32"
        return (
            "it is not finite before the first update, so look for a division by 0 or a logarithm of 0 in the model and the "
            f"loss{precision}"
        )
    learning_rate = rate(step)
    return f"lower the learning rate: {learning_rate:g} is too high, try {learning_rate / 10:g}"


def _place_of_nan(examples: Examples) -> str:
    """The first training row or label that is not finite; empty if none is found in SEARCH_S seconds."""
    deadline = time.perf_counter() + SEARCH_S
    if isinstance(examples, Rows):
        labels = _first_bad_row(examples.y, deadline)
        if labels is not None:
            return f"the label of training row {labels:,}"
        row = _first_bad_row(examples.x, deadline)
        return "" if row is None else f"a value of training row {row:,}"
    try:
        for number in range(len(examples)):  # type: ignore[arg-type]
            if time.perf_counter() > deadline:
                return ""
            x, y = examples[number]
            if not _is_finite(y):
                return f"the label of training row {number:,}"
            if not _is_finite(x):
                return f"a value of training row {number:,}"
    except Exception:  # the user's Dataset may raise anything; the run has its result already
        return ""
    return ""


def _first_bad_row(values: npt.NDArray[Any], deadline: float) -> int | None:
    if values.dtype.kind not in "fc" or not len(values):
        return None
    start = 0
    for block in blocks(values, ALL_ROWS):
        finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))
        start += len(block)
        if time.perf_counter() > deadline:
            return None
    return None


def _is_finite(value: Any) -> bool:
    """Whether every tensor in a row or label, or the number or array that it is, is finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, np.ndarray | np.floating):
        return bool(np.isfinite(value).all()) if value.dtype.kind in "fc" else True
    return all(bool(tensor.isfinite().all()) for tensor in tensors_of(value))
