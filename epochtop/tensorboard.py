"""Records scripts that were written for TensorBoard: `from epochtop.tensorboard import SummaryWriter`.

Imports epochtop.recording only; TensorBoard need not be installed.
"""

from __future__ import annotations

import os
from typing import Any

from epochtop.recording.run import Run
from epochtop.recording.values.ignored import Ignored


class SummaryWriter:
    """Records scalars, as `torch.utils.tensorboard.SummaryWriter` does; images, graphs and the like are ignored."""

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        *_: Any,
        run: Run | None = None,
        **__: Any,
    ) -> None:
        """The run is named after the last part of `log_dir`, and `comment`. `run` is a run to record into."""
        name = os.path.basename(os.path.normpath(os.fspath(log_dir))) if log_dir else ""  # noqa: PTH119 - may be remote
        self._is_own = run is None
        self.run = run if run is not None else Run(f"{name}{comment}")
        self._next: dict[str, int] = {}

    def add_scalar(self, tag: str, scalar_value: Any, global_step: Any = None, *_: Any, **__: Any) -> None:
        """Record a value. Without `global_step`, it belongs to the next step of this tag. A tensor stays on its device."""
        if global_step is None:
            global_step = self._next.get(tag, 0)
            self._next[tag] = global_step + 1
        self.run.log({tag: scalar_value}, step=global_step)

    def add_scalars(self, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: Any = None, *_: Any) -> None:
        """Record several values of a step, as `main_tag/name`."""
        for name, value in tag_scalar_dict.items():
            self.add_scalar(f"{main_tag}/{name}", value, global_step)

    def add_hparams(self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], *_: Any, **__: Any) -> None:
        """Record the configuration and results."""
        self.run.config.update(hparam_dict)
        self.run.summary.update(metric_dict)

    @property
    def log_dir(self) -> str:
        """A folder for files of the script, in the run directory; a temporary one if nothing is recorded."""
        return str(self.run.dir)

    def get_logdir(self) -> str:
        """The same as `log_dir`."""
        return self.log_dir

    def flush(self) -> None:
        """Nothing to do: values are written by the clock."""

    def close(self) -> None:
        """End the run, unless it was given."""
        if self._is_own:
            self.run.finish()

    def __getattr__(self, name: str) -> Ignored:
        if name.startswith("add_"):
            return Ignored(name)
        raise AttributeError(f"SummaryWriter has no attribute {name!r}")

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
