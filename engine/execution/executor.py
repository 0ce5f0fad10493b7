"""The interface of executors to the loop, and the exception for jobs that an executor does not support.

Never imports a concrete executor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from epochtop.engine.step.window import LossWindow

Rate = Callable[[int], float]
"""The learning rate of a step, from the number of steps before it. A pure function between two boundaries."""


class Unsupported(Exception):  # noqa: N818 - the job is unsupported, nothing went wrong
    """An executor does not support a job. The message is the reason, for people."""


class Executor(ABC):
    """Takes the steps of one job and records every loss in a window."""

    name: str
    """`eager`, `graph` or `compile`."""
    note: str = ""
    """What was unusual while it was built, for people; empty if nothing was."""

    @abstractmethod
    def run(self, window: LossWindow, step: int, max_steps: int, rate: Rate) -> int:
        """Take at least one and at most `max_steps` steps after `step` steps; returns how many.

        It only enqueues, and returns after a small part of a refresh, so that commands do not wait.
        """
