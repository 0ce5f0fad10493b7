"""What the log of a run already holds, for an engine that goes on with it.

Steps after the checkpoint are taken again. Their losses are in the log already: they are compared, not written a
second time, and what was changed live while they were first taken is changed again at the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from epochtop.engine.protocol.events import Changed, Continued, Evaluated, Losses, Started, Switched
from epochtop.engine.runs.reader import Follower


@dataclass(frozen=True)
class History:
    """A log, read to its end."""

    started: Started | None
    losses: npt.NDArray[np.float32]
    """float32 (steps,): of every step from 0."""
    seconds: float
    """Training time at the end of the last window."""
    changes: Sequence[Changed]
    evaluated: int
    """Step of the last evaluation; -1 if there is none."""
    switched: Sequence[Switched] = ()
    """Other executors than the first, by their first step."""
    smaller: tuple[int, int] | None = None
    """Batch size and accumulation that took the place of those asked for, after the run was out of memory."""

    @property
    def steps(self) -> int:
        """Steps whose losses are recorded."""
        return len(self.losses)


def read(run: Path) -> History:
    """Everything an engine needs to know to go on with `run`."""
    started: Started | None = None
    pieces: list[npt.NDArray[np.float32]] = []
    changes: list[Changed] = []
    switched: list[Switched] = []
    seconds, steps, evaluated = 0.0, 0, -1
    smaller: tuple[int, int] | None = None
    follower = Follower(run)
    try:
        for event in follower.read_all():
            match event:
                case Started():
                    started = event
                case Losses() if event.first_step == steps:  # behind a gap nothing can be compared
                    pieces.append(np.frombuffer(event.values, dtype="<f4"))
                    steps, seconds = steps + len(pieces[-1]), event.seconds
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
    losses = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.float32)
    return History(started, losses, seconds, changes, evaluated, switched, smaller)
