"""The history of a run, read from its log, for an engine that continues it.

Steps after the checkpoint are taken again. Their losses are in the log already: they are compared, not written again. Live
changes are repeated at the same steps. Must never write into the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epochtop.engine.protocol.events import Changed, Continued, Evaluated, Logged, Losses, Started, Switched
from epochtop.engine.runs.reader import Follower
from epochtop.engine.runs.series import TRAIN_LOSS, SeriesTranslator


@dataclass(frozen=True)
class History:
    """The contents of a log."""

    started: Started | None
    losses: npt.NDArray[np.float32]
    """Losses of all steps from step 0, float32 (steps,)."""
    seconds: float
    """Training time at the end of the last window."""
    changes: Sequence[Changed]
    """Live changes of settings."""
    evaluated: int
    """Step of the last evaluation; -1 if there is none."""
    switched: Sequence[Switched] = ()
    """Switches to other executors than the first."""
    smaller: tuple[int, int] | None = None
    """Batch size and accumulation after the run ran out of memory; None if it did not."""

    @property
    def steps(self) -> int:
        """Number of steps whose losses are recorded."""
        return len(self.losses)


def read(run: Path) -> History:
    """The history of `run`."""
    started: Started | None = None
    windows: list[npt.NDArray[np.float32]] = []
    changes: list[Changed] = []
    switched: list[Switched] = []
    seconds, steps, evaluated = 0.0, 0, -1
    smaller: tuple[int, int] | None = None
    translator = SeriesTranslator()
    follower = Follower(run)
    try:
        for event in follower.read_all():
            match event:
                case Started():
                    started = event
                case Losses() | Logged():
                    for window in translator.windows(event):
                        if window.name == TRAIN_LOSS and window.first_step == steps:  # a gap cannot be compared
                            windows.append(np.frombuffer(window.values, dtype="<f4"))
                            steps, seconds = steps + window.count, window.seconds
                case Switched():
                    switched.append(event)
                case Changed():
                    changes.append(event)
                case Continued(batch_size=size) if size is not None:
                    smaller = (size, event.accumulate)
                case Evaluated():
                    evaluated = max(evaluated, event.step)
                case _:
                    pass
    finally:
        follower.close()
    losses = np.concatenate(windows) if windows else np.empty(0, dtype=np.float32)
    return History(started, losses, seconds, changes, evaluated, switched, smaller)
