"""Exceptions explained to people. No logic may depend on these texts."""

from __future__ import annotations

import contextlib
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.job import oom_advice
from epochtop.engine.job.job import Job
from epochtop.engine.job.workload import PARTS, Examples, Workload
from epochtop.engine.models.nested import tensors_of
from epochtop.engine.protocol.events import Failed
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import failed_step
from epochtop.engine.tasks.errors.shape_errors import LABEL
from epochtop.engine.tasks.errors.tracebacks import place, user_line
from epochtop.engine.tasks.loader import function_of
from epochtop.engine.tasks.task import Part, Task


def failed(error: BaseException, step: int, job: Job | None = None, task: str = "") -> Failed:
    """The event for an exception before `step` was done. `job` is None if the exception came before it was built."""
    if isinstance(error, Invalid):
        return Failed(time=time.time(), step=step, message=str(error))
    message, advice = explain(error)
    memory = is_out_of_memory(error)
    if job is not None and memory:
        message, advice = oom_advice.message(error, job.device), oom_advice.advice(job)
    if job is not None and job.workload.task is not None and not memory:
        message, advice = _of_task(error, message, advice, job, job.workload.task)
    elif task := job.spec.task if job is not None else task:
        where = user_line(error, Path(task.rpartition(":")[0]))
        message = f"{where}: {message}" if where else message
    text = "".join(traceback.format_exception(error))
    return Failed(time=time.time(), step=step, message=message, advice=advice, traceback=text)


def _of_task(error: BaseException, message: str, advice: str, job: Job, task: Task) -> tuple[str, str]:
    """Message and advice for an error in the code of a task. A label out of range is looked for in all rows."""
    file, function = Path(job.spec.task.rpartition(":")[0]), function_of(job.spec.task)
    on_device = "device-side assert" in str(error)
    label = LABEL.search(str(error))
    place_of_label = _label_out_of_range(job.workload, int(label[1]) if label else None) if label or on_device else ""
    if place_of_label:
        return f"{place(error, file, (task.loss, function))}: {place_of_label}", ""
    if on_device or is_of_device(error):
        return f"{place(error, file, (function,))}: {message}", advice
    return failed_step.explain(error, task, file, function), advice


def explain(error: BaseException) -> tuple[str, str]:
    """What happened and what would help; no advice for an unknown kind of error."""
    if isinstance(error, Invalid):
        return str(error), ""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if is_out_of_memory(error):
        return f"out of memory: {first}", "use a smaller model or batch_size; `epochtop find-batch` finds a batch_size"
    if "device-side assert" in text:
        return f"a CUDA kernel stopped: {first}", "run with device cpu to see which value is wrong"
    if "same device" in text or re.search(r"is on cpu.*expected.*(gpu|cuda)", text, re.IGNORECASE | re.DOTALL):
        return first, "model, inputs and labels must be on one device; move them with .to(device)"
    if is_of_device(error):
        return first, "the GPU or its driver failed; check `nvidia-smi`, or run with device cpu"
    return f"{type(error).__name__}: {first}", ""


def is_of_device(error: BaseException) -> bool:
    """Whether a GPU or its driver raised the error."""
    return re.search(r"CUDA error|cuDNN|CUBLAS", str(error)) is not None


# --- labels out of range -----------------------------------------------------------------------------------

SEARCH_S = 3.0
"""Longest search for a wrong row, in seconds."""


def _label_out_of_range(workload: Workload, label: int | None) -> str:
    """Where a label is out of range, on the host; empty if none is found in SEARCH_S seconds. None looks for any label."""
    labels = workload.likely_labels
    if labels is None:
        return ""
    deadline = time.perf_counter() + SEARCH_S
    names: tuple[Part, ...] = ("train", "validation", "test")
    for name in names:
        for row, values in _labels_of(getattr(workload, name), deadline):
            first = labels.first_outside(values)
            if first is not None and (label is None or (values[first] == label).any()):
                return labels.problem(PARTS[name], row + first, values[first])
    return ""


def _labels_of(examples: Examples, deadline: float) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The integer labels of a part in pieces (rows, ...), each with the number of its first row."""
    if isinstance(examples, Rows):
        yield 0, examples.y
        return
    with contextlib.suppress(Exception):  # the user's Dataset may raise anything
        for row in range(len(examples)):  # type: ignore[arg-type]
            if time.perf_counter() > deadline:
                return
            _, y = examples[row]
            first = np.asarray(next(tensors_of(y), y))
            if first.dtype.kind in "iu":
                yield row, first[None]
