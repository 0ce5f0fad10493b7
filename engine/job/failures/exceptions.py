"""Exceptions explained to people. No logic may depend on these texts."""

from __future__ import annotations

import re
import time
import traceback
from pathlib import Path

from epochtop.engine.device.oom import is_out_of_memory
from epochtop.engine.job import oom_advice
from epochtop.engine.job.job import Job
from epochtop.engine.protocol.events import Failed
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks.tracebacks import user_line


def failed(error: BaseException, step: int, job: Job | None = None, task: str = "") -> Failed:
    """The event for an exception before `step` was done. `job` is None if the exception came before it was built."""
    if isinstance(error, Invalid):
        return Failed(time=time.time(), step=step, message=str(error))
    message, advice = explain(error)
    if job is not None and is_out_of_memory(error):
        message, advice = oom_advice.message(error, job.device), oom_advice.advice(job)
    task = job.spec.task if job is not None else task
    if task:
        where = user_line(error, Path(task.rpartition(":")[0]))
        message = f"{where}: {message}" if where else message
    text = "".join(traceback.format_exception(error))
    return Failed(time=time.time(), step=step, message=message, advice=advice, traceback=text)


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
    if re.search(r"CUDA error|cuDNN|CUBLAS", text):
        return first, "the GPU or its driver failed; check `nvidia-smi`, or run with device cpu"
    return f"{type(error).__name__}: {first}", ""
