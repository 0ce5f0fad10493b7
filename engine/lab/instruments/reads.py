"""Reads of values in a step: lines of user code that make the host wait for the device.

Reads are caught at run time, wherever they are called from: `.item()`, `float()`, `bool()`, an `if` on a tensor,
`.tolist()`, `.numpy()`, `.cpu()`, and operators whose result size depends on the values.
"""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from torch.overrides import TorchFunctionMode

from epochtop.engine.tasks.errors.tracebacks import is_of

OPERATORS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim"})
"""Operators that read values: `.item()` and its relatives, and operators with value-dependent sizes."""
FUNCTIONS = frozenset({"tolist", "numpy", "cpu", "__array__"})
"""Methods of a tensor that call no such operator if the tensor is on the host."""


class Reads(TorchFunctionMode):
    """Counts reads by the line of user code that they come from. `task` is the spec's task; empty for none."""

    def __init__(self, task: str, phase: Any) -> None:
        """Reads count while `phase.phase` is `work`."""
        super().__init__()
        self._file = Path(task.rpartition(":")[0]).expanduser().absolute() if task else None
        self._phase = phase
        self.lines: Counter[tuple[str, str, str]] = Counter()
        """Reads by place (`losses.py:12`), function and source; the place is empty if no line of user code is involved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in FUNCTIONS and self._phase.phase == "work":
            before = sum(self.lines.values())
            result = func(*args, **(kwargs or {}))
            if sum(self.lines.values()) == before:  # otherwise its operator was counted already
                self._count()
            return result
        return func(*args, **(kwargs or {}))

    def operator(self, operator: Any, arguments: Any) -> bool:
        """Whether this operator reads a value; if so, count it."""
        if str(operator).removeprefix("aten.").partition(".")[0] not in OPERATORS:
            return False
        self._count()
        return True

    def _count(self) -> None:
        self.lines[self._place(sys._getframe(2))] += 1

    def _place(self, frame: FrameType | None) -> tuple[str, str, str]:
        """The innermost line of user code."""
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if self._file is not None and is_of(path, self._file):
                source = linecache.getline(str(path), frame.f_lineno).strip()
                return f"{path.name}:{frame.f_lineno}", frame.f_code.co_name, source
            frame = frame.f_back
        return "", "", ""
