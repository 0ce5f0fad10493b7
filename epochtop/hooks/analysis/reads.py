"""Finds the lines that read a tensor: each makes the program wait until the device has computed it.

While installed, it wraps the methods of `torch.Tensor` that read; then it restores them. Never imports torch.
"""

from __future__ import annotations

import functools
import os
import sys
from time import perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

METHODS = {
    "item": "item()",
    "tolist": "tolist()",
    "cpu": "cpu()",
    "numpy": "numpy()",
    "nonzero": "nonzero()",
    "to": "to(cpu)",
    "__array__": "numpy()",
    "__float__": "float()",
    "__int__": "int()",
    "__index__": "int()",
    "__bool__": "bool()",
    "__repr__": "print()",
    "__format__": "format()",
}
"""Methods that read, with what the script's author knows them as."""
LINES = 200
"""Most lines that are listed."""
LIBRARIES = ("site-packages", "dist-packages")
"""Folders of installed packages."""


class ReadFinder:
    """Counts and times the reads of every line."""

    def __init__(self, torch: Any) -> None:
        self._tensor = torch.Tensor
        self._torch_folder = os.path.dirname(torch.__file__)
        self._own_folder = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
        self._library = os.path.dirname(os.__file__)
        self._originals: dict[str, Any] = {}
        """What the class itself held under the name of a method; absent if it inherits it."""
        self._inside = False
        self.lines: dict[tuple[str, int, str, str], dict[str, Any]] = {}
        """By file, line, call and device: a `DeviceRead`."""

    def install(self) -> None:
        """Begin to watch."""
        for name, call in METHODS.items():
            original = getattr(self._tensor, name, None)
            if original is not None:
                if name in self._tensor.__dict__:
                    self._originals[name] = self._tensor.__dict__[name]
                setattr(self._tensor, name, self._wrap(original, call))

    def remove(self) -> None:
        """Restore the methods."""
        for name in METHODS:
            if name in self._originals:
                setattr(self._tensor, name, self._originals[name])
            elif name in self._tensor.__dict__:
                delattr(self._tensor, name)
        self._originals.clear()

    def _wrap(self, original: Callable[..., Any], call: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def read(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return original(tensor, *args, **kwargs)
            self._inside = True
            began = perf_counter()
            try:
                result = original(tensor, *args, **kwargs)
            finally:
                self._inside = False
                blocked_ms = (perf_counter() - began) * 1e3
            if call != "to(cpu)" or (result.is_cpu and not tensor.is_cpu):
                self._add(call, str(tensor.device), blocked_ms, sys._getframe(1))
            return result

        return read

    def _add(self, call: str, device: str, blocked_ms: float, caller: FrameType | None) -> None:
        if caller is None or caller.f_code.co_filename.startswith(self._own_folder):  # a hook that reads a loss
            return
        frame = self._leave(caller, self._is_torch)
        library = frame
        frame = self._leave(frame, self._is_library) or frame
        if frame is None:
            return
        code = frame.f_code
        key = (code.co_filename, frame.f_lineno, call, device)
        line = self.lines.get(key)
        if line is None:
            if len(self.lines) == LINES:
                return
            through = f"{library.f_code.co_filename}:{library.f_lineno}" if library and library is not frame else ""
            line = self.lines[key] = {
                "file": code.co_filename,
                "line": frame.f_lineno,
                "function": code.co_name,
                "through": through,
                "call": call,
                "device": device,
                "count": 0,
                "blocked_ms": 0.0,
            }
        line["count"] += 1
        line["blocked_ms"] += blocked_ms

    @staticmethod
    def _leave(frame: FrameType | None, is_inside: Callable[[str], bool]) -> FrameType | None:
        """The nearest caller whose file is not inside."""
        while frame is not None and is_inside(frame.f_code.co_filename):
            frame = frame.f_back
        return frame

    def _is_torch(self, file: str) -> bool:
        return file.startswith((self._torch_folder, self._own_folder))

    def _is_library(self, file: str) -> bool:
        return any(folder in file for folder in LIBRARIES) or file.startswith((self._library, "<"))
