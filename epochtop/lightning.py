"""Records a Lightning trainer: `Trainer(logger=EpochtopLogger("my run"))`. Works with `lightning` and `pytorch_lightning`.

Imports Lightning and epochtop.recording only.
"""

from __future__ import annotations

import sys
from typing import Any

if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
    from pytorch_lightning.utilities import rank_zero_only
else:
    try:
        from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
        from lightning.pytorch.utilities import rank_zero_only
    except ImportError:
        from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
        from pytorch_lightning.utilities import rank_zero_only

from epochtop.recording.run import Run


class EpochtopLogger(Logger):
    """Records what the trainer and `self.log()` log, with Lightning's steps. The run ends with the script."""

    def __init__(self, name: str = "", *, run: Run | None = None, **options: Any) -> None:
        """`run` is a run to record into; otherwise one is started with `name` and `options`, the arguments of Run."""
        super().__init__()
        self._name, self._options, self._run = name, options, run

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run, which starts when it is first used."""
        if self._run is None:
            self._run = Run(self._name, **self._options)
        return self._run

    @property
    def name(self) -> str:
        """Name of the run; Lightning's folder of checkpoints has it too."""
        return self._name or "epochtop"

    @property
    def version(self) -> str | None:
        """Id of the run; None before it starts."""
        return self._run.id if self._run is not None else None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record values of a step."""
        self.experiment.log(metrics, step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Record hyperparameters as configuration."""
        self.experiment.config.update(params)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}  # a spawned process starts its own, or none
