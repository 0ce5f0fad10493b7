"""What went wrong in a run, in words: message and advice for :class:`engine.protocol.Failed`."""

from __future__ import annotations

import re
import time
import traceback

import torch

from engine.protocol import Failed


def failed(error: BaseException, step: int) -> Failed:
    """The event for an exception that ended a run before `step` was done."""
    message, advice = explain(error)
    text = "".join(traceback.format_exception(error))
    return Failed(time=time.time(), step=step, message=message, advice=advice, traceback=text)


def explain(error: BaseException) -> tuple[str, str]:
    """What happened and what would help. The advice is empty for what nobody has explained yet."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory on the GPU: {first}", "use a smaller batch_size, smaller hidden layers, or device cpu"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"out of memory: {first}", "use a smaller batch_size or smaller hidden layers"
    if "device-side assert" in text:
        return f"a CUDA kernel stopped: {first}", "run it with device cpu to see which value is wrong"
    if "same device" in text or re.search(r"is on cpu.*expected.*(gpu|cuda)", text, re.IGNORECASE | re.DOTALL):
        return first, "model, inputs and labels must be on one device: move each with .to(device)"
    if re.search(r"CUDA error|cuDNN|CUBLAS", text):
        return first, "the GPU or its driver failed; look at `nvidia-smi`, or run with device cpu"
    return f"{type(error).__name__}: {first}", ""
