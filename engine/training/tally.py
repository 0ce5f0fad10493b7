"""What the loop keeps count of: training time, losses so far, the best weights, patience. Host values only."""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor


class Clock:
    """Seconds of training: runs between `start` and `stop`, so that a pause does not count."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before = before_s
        self._since: float | None = None

    def start(self) -> None:
        """Go on."""
        self._since = perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.seconds(), None

    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (perf_counter() - self._since if self._since is not None else 0.0)


class Totals:
    """Final and best loss, and the first step whose loss is not a finite number."""

    def __init__(self) -> None:
        self.final: float | None = None
        self.best = math.inf
        self.best_step: int | None = None
        self.bad_step: int | None = None
        self.bad_value = ""

    def add(self, first_step: int, losses: npt.NDArray[Any]) -> bool:
        """Take in a window; True if it holds the first loss that is not finite."""
        if not len(losses):
            return False
        last = float(losses[-1])
        self.final = last if math.isfinite(last) else None
        finite = np.isfinite(losses)
        whole = bool(finite.all())
        place = int(np.argmin(losses if whole else np.where(finite, losses, np.inf)))
        if losses[place] < self.best:
            self.best, self.best_step = float(losses[place]), first_step + place
        if whole or self.bad_step is not None:
            return False
        bad = int(np.argmin(finite))
        self.bad_step, self.bad_value = first_step + bad, "NaN" if np.isnan(losses[bad]) else "infinite"
        return True


class Best:
    """The weights with the lowest test loss so far (training loss where no row is held out)."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None
        self.step = 0
        self.loss: float | None = None
        self.metric: float | None = None
        self.newest_loss: float | None = None
        self.newest_metric: float | None = None
        self.unsaved = False

    def judge(self, step: int, weights: dict[str, Tensor], loss: float | None, metric: float | None) -> None:
        """The numbers of an evaluation and the weights that were evaluated."""
        self.newest_loss, self.newest_metric = loss, metric
        if loss is not None and (self.loss is None or loss < self.loss):
            self.weights, self.step, self.loss, self.metric = weights, step, loss, metric
            self.unsaved = True


class Patience:
    """Counts evaluations without a better loss than before."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._best = math.inf
        self.bad = 0

    @property
    def over(self) -> bool:
        """Whether there were `limit` of them; never for a limit of 0."""
        return 0 < self._limit <= self.bad

    def judge(self, loss: float | None) -> None:
        """The loss of an evaluation."""
        if loss is not None and loss < self._best:
            self._best, self.bad = loss, 0
        else:
            self.bad += 1

    def memory(self) -> dict[str, float | int | None]:
        """What it remembers, as plain values."""
        return {"patience_best": self._best if math.isfinite(self._best) else None, "patience_bad": self.bad}

    def recall(self, values: dict[str, float | int | None]) -> None:
        """Take up what :meth:`memory` gave."""
        best = values.get("patience_best")
        self._best, self.bad = math.inf if best is None else float(best), int(values.get("patience_bad") or 0)
