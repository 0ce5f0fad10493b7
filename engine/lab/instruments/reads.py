"""Where a step reads values: lines of the user's that make the host wait for the device.

A read is seen when it happens, so that it is found wherever it is called from: `.item()`, `float()`, `bool()`, an `if`
on a tensor, `.tolist()`, `.numpy()`, `.cpu()`, and operators whose result has a size that the values decide.
"""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from epochtop.engine.lab.experiment import Row
from epochtop.engine.tasks.tracebacks import is_of

OPERATORS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim"})
"""Those that read values: `.item()` and what is made of it, and sizes that values decide."""
FUNCTIONS = frozenset({"tolist", "numpy", "cpu", "__array__"})
"""Of a tensor: those that call no such operator where the tensor lies on the host."""


class Reads(TorchFunctionMode):
    """Counts reads by the line of the user's that they come from. `task` is the spec's, empty for none."""

    def __init__(self, task: str, phase: Any) -> None:
        """`phase` has an attribute `phase`; reads in `work` count."""
        super().__init__()
        self._file = Path(task.rpartition(":")[0]).expanduser().absolute() if task else None
        self._phase = phase
        self.lines: Counter[tuple[str, str, str]] = Counter()
        """By place (`losses.py:12`), function and source; the place is empty where no line of the user's is involved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in FUNCTIONS and self._phase.phase == "work":
            before = sum(self.lines.values())
            result = func(*args, **(kwargs or {}))
            if sum(self.lines.values()) == before:  # else an operator of its own has told it
                self._count()
            return result
        return func(*args, **(kwargs or {}))

    def operator(self, operator: Any, arguments: Any) -> bool:
        """Whether this operator reads; if so, it is counted."""
        if str(operator).removeprefix("aten.").partition(".")[0] not in OPERATORS:
            return False
        self._count()
        return True

    def _count(self) -> None:
        self.lines[self._place(sys._getframe(2))] += 1

    def _place(self, frame: FrameType | None) -> tuple[str, str, str]:
        """The innermost line of the user's."""
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if self._file is not None and is_of(path, self._file):
                source = linecache.getline(str(path), frame.f_lineno).strip()
                return f"{path.name}:{frame.f_lineno}", frame.f_code.co_name, source
            frame = frame.f_back
        return "", "", ""

    def rows(self, device: torch.device) -> list[Row]:
        """`kind` read: one a line."""
        return [
            {
                "kind": "read",
                "device": str(device),
                "place": place,
                "function": function,
                "source": source,
                "reads": many,
            }
            for (place, function, source), many in self.lines.items()
        ]
