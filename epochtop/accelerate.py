"""Records a script that uses Accelerate: `Accelerator(log_with=EpochtopTracker("my run"))`.

Imports accelerate and epochtop.recording only.
"""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from epochtop.recording.run import Run


class EpochtopTracker(GeneralTracker):
    """Records what `accelerator.log()` logs, in the main process. `accelerator.end_training()` ends the run."""

    name = "epochtop"
    requires_logging_directory = False

    def __init__(self, run_name: str = "", **options: Any) -> None:
        """The run is started by `accelerator.init_trackers()`, with `options` as arguments of Run."""
        super().__init__()
        self._run_name, self._options = run_name, options
        self._run: Run | None = None

    @on_main_process
    def start(self) -> None:
        """Start the run."""
        if self._run is None:
            self._run = Run(self._run_name, **self._options)

    @property
    def tracker(self) -> Run | None:
        """The run; None before it starts and in other processes."""
        return self._run

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Record the configuration."""
        self.start()
        assert self._run is not None
        self._run.config.update(values)

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Record values of a step. Tensors stay on their device."""
        self.start()
        assert self._run is not None
        self._run.log(values, step=step)

    @on_main_process
    def finish(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
