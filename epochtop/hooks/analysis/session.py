"""One analysis: times the parts of the next steps, finds the lines that read tensors, then profiles a few more steps.

Called at the boundary of every step while it lasts. Removes everything it installed, also after an error.
"""

from __future__ import annotations

import sys
import threading
import time
from time import perf_counter

from epochtop.hooks.analysis.forward import ForwardTimer
from epochtop.hooks.analysis.operators import OperatorProfile
from epochtop.hooks.analysis.reads import ReadFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from epochtop.hooks.torch_patches import TorchPatches

PROFILED_STEPS = 5
"""Most of the steps that are profiled; the profiler slows them down, so their times do not count."""
LONGEST_S = 60.0
"""Time after which an analysis ends with the steps it has."""
PARTS = ("data_wait", "forward", "backward", "optimizer")


class Analysis:
    """Measures `steps` steps. `on_result` gets an `Analyzed` event, in another thread."""

    def __init__(self, patches: TorchPatches, steps: int, on_result: Callable[[dict[str, Any]], None]) -> None:
        self._patches, self._on_result = patches, on_result
        self._torch: Any = sys.modules["torch"]
        steps = max(2, min(steps, 10_000))
        self._profiled = min(PROFILED_STEPS, steps // 2)
        self._timed = steps - self._profiled
        self._first_step = 0
        self._steps = 0
        """Steps so far, of the present phase."""
        self._began = 0.0
        self._totals_s = dict.fromkeys(PARTS, 0.0)
        self._optimizer_began: tuple[float, float] | None = None
        self._reads = ReadFinder(self._torch)
        self._forward = ForwardTimer(self._torch, self.add)
        self._pre_hook: Any = None
        self._profile: OperatorProfile | None = None
        self._event: dict[str, Any] = {}
        self._notes: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether every step is measured."""
        return bool(self._event) and self._profile is None

    def add(self, part: str, began: float) -> None:
        """A part of a step that began at `began` ends now."""
        self._totals_s[part] += perf_counter() - began

    def start(self, step: int) -> None:
        """Begin, after `step` steps of the script."""
        self._first_step = step
        self._patches.spans = self
        self._reads.install()
        self._forward.install()
        optimizer = sys.modules["torch.optim.optimizer"]
        self._pre_hook = optimizer.register_optimizer_step_pre_hook(self._before_step)
        self._began = perf_counter()

    def _before_step(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._optimizer_began = perf_counter(), self._nested_s()

    def _nested_s(self) -> float:
        """Time of the parts that a closure computes within an optimizer's step."""
        return self._totals_s["forward"] + self._totals_s["backward"] + self._totals_s["data_wait"]

    def end_step(self) -> None:
        """A step has ended."""
        now = perf_counter()
        self._steps += 1
        if self._profile is not None:
            if self._steps >= self._profiled:
                self._end_profile()
            return
        if self._optimizer_began is not None:
            began, nested_s = self._optimizer_began
            self._totals_s["optimizer"] += now - began - (self._nested_s() - nested_s)
            self._optimizer_began = None
        if self._steps >= self._timed or now - self._began > LONGEST_S:
            self._end_timing(now)

    def abort(self) -> None:
        """Remove everything that is installed."""
        if self._pre_hook is not None:
            self._pre_hook.remove()
            self._pre_hook = None
            self._patches.spans = None
            self._forward.remove()
            self._reads.remove()

    def _end_timing(self, now: float) -> None:
        self.abort()
        step_ms = (now - self._began) / self._steps * 1e3
        parts = {name: total / self._steps * 1e3 for name, total in self._totals_s.items()}
        parts["rest"] = max(0.0, step_ms - sum(parts.values()))
        self._event = {
            "type": "Analyzed",
            "time": time.time(),
            "first_step": self._first_step,
            "steps": self._steps,
            "step_ms": step_ms,
            "parts_ms": parts,
            "reads": sorted(self._reads.lines.values(), key=lambda line: -line["blocked_ms"]),
            "operators": [],
            "profiled_steps": 0,
            "device_idle_percent": None,
            "notes": self._notes,
        }
        self._steps = 0
        self._start_profile()

    def _start_profile(self) -> None:
        if self._torch.autograd._profiler_enabled():
            self._notes.append("operators are unknown: the script profiles itself")
        else:
            try:
                self._profile = OperatorProfile(self._torch)
                self._profile.start()
                return
            except Exception as error:
                self._profile = None
                self._notes.append(f"operators are unknown: torch.profiler: {error}")
        self._on_result(self._event)

    def _end_profile(self) -> None:
        profile, self._profile = self._profile, None
        assert profile is not None
        profile.stop()
        threading.Thread(target=self._describe, args=(profile, self._steps), daemon=True).start()

    def _describe(self, profile: OperatorProfile, steps: int) -> None:
        try:
            self._event["operators"] = profile.operators()
            self._event["profiled_steps"] = steps
            self._event["device_idle_percent"] = profile.device_idle_percent()
        except Exception as error:
            self._notes.append(f"operators are unknown: torch.profiler: {error}")
        self._on_result(self._event)
