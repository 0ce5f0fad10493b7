"""The course of the learning rate over a run: a factor of the value that was asked for, a pure function of the step.

Only `plateau` remembers anything: the evaluations it was shown. Everything here is on the host.
"""

from __future__ import annotations

import math

from epochtop.engine.protocol.spec import RunSpec

STEP_STAGES = 3
DROP = 0.1
"""What `step` multiplies with at each stage, and `plateau` each time."""
PLATEAU_PATIENCE = 3
"""Evaluations without a better loss before `plateau` lowers the rate."""

RISE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4
"""`one_cycle` as Smith and Topin propose it: 30 % of the way up from 1/25, down to 1/10,000 of where it began."""
RANGE = 1e-7
"""Where `range_test` begins, as a share of the learning rate asked for, which it reaches with the last step."""


def range_rate(top: float, step: float, total: int) -> float:
    """The learning rate of `range_test` at a step of `total`, up to `top` with the last one."""
    return float(top * RANGE ** (1 - step / max(1, total - 1)))


class Schedule:
    """The learning rate's factor at every step of `total`."""

    def __init__(self, spec: RunSpec, total: int) -> None:
        self._kind, self._warmup, self._total = spec.schedule, spec.warmup, max(total, 1)
        self._reductions = 0
        self._best = math.inf
        self._bad = 0

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 all the time."""
        return self._kind == "constant" and not self._warmup

    def factor(self, step: int) -> float:
        """Factor for the step that is taken when `step` steps are done."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        return self._course(step)

    def _course(self, step: int) -> float:
        share = (step - self._warmup) / max(1, self._total - self._warmup)
        match self._kind:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * share))
            case "linear":
                return 1 - share
            case "step":
                return DROP ** min(STEP_STAGES - 1, int(share * STEP_STAGES))
            case "one_cycle":
                return _one_cycle(step, self._total)
            case "range_test":
                return range_rate(1.0, step, self._total)
            case "plateau":
                return float(DROP**self._reductions)
            case _:
                return 1.0

    # --- plateau ---------------------------------------------------------------------------------------

    def judge(self, loss: float | None) -> bool:
        """Take in the loss of an evaluation; True if the rate is lower from now on (plateau only)."""
        if self._kind != "plateau":
            return False
        if loss is not None and loss < self._best:
            self._best, self._bad = loss, 0
            return False
        self._bad += 1
        if self._bad <= PLATEAU_PATIENCE:
            return False
        self._bad = 0
        self._reductions += 1
        return True

    def state_dict(self) -> dict[str, float | int | None]:
        """What it remembers of the evaluations."""
        best = self._best if math.isfinite(self._best) else None
        return {"plateau_best": best, "plateau_bad": self._bad, "plateau_reductions": self._reductions}

    def load_state_dict(self, values: dict[str, float | int | None]) -> None:
        """Take up what :meth:`state_dict` gave."""
        best = values.get("plateau_best")
        self._best = math.inf if best is None else float(best)
        self._bad = int(values.get("plateau_bad") or 0)
        self._reductions = int(values.get("plateau_reductions") or 0)


def _one_cycle(step: int, total: int) -> float:
    top = RISE * total - 1
    low, end = 1 / START_DIVISOR, 1 / START_DIVISOR / END_DIVISOR
    if step <= top:
        return _anneal(low, 1.0, step / top if top > 0 else 1.0)
    return _anneal(1.0, end, (step - top) / max(1e-9, total - 1 - top))


def _anneal(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))
