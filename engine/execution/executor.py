"""What an executor is to the loop, and how it says that a job is not for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from epochtop.engine.step.window import LossWindow

Rate = Callable[[int], float]
"""The learning rate of the step that is taken when so many steps are done; a pure function between two boundaries."""


class Unsupported(Exception):  # noqa: N818 - reads as a statement: the job is unfit
    """A job that an executor cannot take. The message says what of it, for people."""


class Executor(ABC):
    """Takes the steps of one job and leaves every loss in the window."""

    name: str
    """`eager`, `graph` or `compile`."""

    @abstractmethod
    def take(self, window: LossWindow, step: int, most: int, rate: Rate) -> int:
        """Take at least one and at most `most` steps after `step` steps; returns how many.

        It returns after a small part of a refresh, so that commands are not kept waiting, and only enqueues.
        """

    def fitting(self, seconds: float) -> float:
        """Steps that the device takes in so many seconds, where enqueueing them is much faster than that."""
        return math.inf
