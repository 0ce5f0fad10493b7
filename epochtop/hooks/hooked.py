"""The hooks of one process: what patches modules, what records, and the analysis that a viewer asks for."""

from __future__ import annotations

import atexit
import os

from epochtop.hooks import frameworks, loggers
from epochtop.hooks.recorder import Recorder
from epochtop.hooks.torch_patches import TorchPatches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from epochtop.hooks.analysis.session import Analysis
    from epochtop.recording.run import Run

STEPS = 20
"""Steps of an analysis whose command names no number."""


class Hooks:
    """Made when the script has imported the first module that is hooked."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._recorder = Recorder(self._is_measured, self._begin)
        self._torch = TorchPatches(self._recorder.emit, self._recorder.report)
        self._meter = self._torch.meter
        self._patches = {
            **self._torch.patches(),
            **loggers.patches(self._recorder),
            **frameworks.patches(self._recorder, self._meter.stepped, self._torch.scaled),
        }
        self._analysis: Analysis | None = None
        atexit.register(self._meter.finish)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave)

    def patch(self, module: Any) -> None:
        """Hook a module that has just been imported."""
        self._patches[module.__name__](module)

    def _leave(self) -> None:
        """In a forked process, leave the run to the parent if it has begun one."""
        if self._recorder.has_begun:
            self._meter.discard()

    def _is_measured(self, name: str) -> bool:
        return self._meter.measures(name)

    def _begin(self, run: Run, first_step: int) -> None:
        self._meter.record_into(run, first_step)
        run.on_command("Analyze", self._analyze)

    # --- analysis ------------------------------------------------------------------------------------------

    def _analyze(self, command: dict[str, Any]) -> None:
        """Begin an analysis at the next step. Called in the writer's thread."""
        if self._analysis is not None:
            self._note("an analysis is running already")
            return
        from epochtop.hooks.analysis.session import Analysis

        steps = command.get("steps")
        self._analysis = Analysis(self._torch, steps if isinstance(steps, int) else STEPS, self._finish_analysis)
        self._meter.on_boundary = self._start_analysis

    def _start_analysis(self, step: int) -> None:
        self._guarded(step, lambda analysis: analysis.start(step))
        if self._analysis is not None:
            self._meter.on_boundary = self._continue_analysis

    def _continue_analysis(self, step: int) -> None:
        self._guarded(step, lambda analysis: analysis.end_step())
        analysis = self._analysis
        if analysis is not None and analysis.is_over:  # a thread describes it; further steps do not belong to it
            self._meter.on_boundary = None

    def _guarded(self, step: int, act: Callable[[Analysis], None]) -> None:
        analysis = self._analysis
        if analysis is None:
            self._meter.on_boundary = None
            return
        try:
            act(analysis)
        except Exception as error:
            self._meter.on_boundary = None
            analysis.abort()
            self._analysis = None
            self._note(f"the analysis failed after step {step}: {type(error).__name__}: {error}")

    def _finish_analysis(self, event: dict[str, Any]) -> None:
        self._meter.on_boundary = None
        self._analysis = None
        self._recorder.event(event)

    def _note(self, message: str) -> None:
        self._recorder.event({"type": "Warned", "message": message, "code": "analysis_failed"})
