"""Learning rate schedules: a factor of the configured learning rate for every step.

The factor is a pure function of the step, except for `plateau`, whose state is the evaluations so far. Everything here
runs on the host. Imports the spec and the standard library only.
"""

from __future__ import annotations

import math

from epochtop.engine.protocol.spec import RunSpec

STEP_STAGES = 3
"""Stages of `step`, of equal length."""
DROP = 0.1
"""Factor of each reduction by `step` and `plateau`."""
PLATEAU_PATIENCE = 3
"""Evaluations without a better loss that `plateau` accepts; the next one lowers the rate."""

RISE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4
"""`one_cycle` (Smith and Topin 2018): rises from 1/25 over 30 % of the steps, then falls to 1/10,000 of its start."""
RANGE = 1e-7
"""First learning rate of `range_test`, as a share of the configured one, which the last step reaches."""


def range_rate(top: float, step: float, total: int) -> float:
    """The learning rate of `range_test` at `step` of `total` steps; the last step has `top`."""
    return float(top * RANGE ** (1 - step / max(1, total - 1)))


class Schedule:
    """The factor of the learning rate at every step of a run of `total` steps."""

    def __init__(self, spec: RunSpec, total: int) -> None:
        self._kind, self._warmup, self._total = spec.schedule, spec.warmup, max(total, 1)
        self._reductions = 0
        self._best = math.inf
        self._stale = 0

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at every step."""
        return self._kind == "constant" and not self._warmup

    def factor(self, step: int) -> float:
        """The factor of step `step`, counted from 0."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        return self._decay(step)

    def _decay(self, step: int) -> float:
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

    def observe(self, loss: float | None) -> bool:
        """Record the loss of an evaluation. True if `plateau` has lowered the rate; other schedules ignore it."""
        if self._kind != "plateau":
            return False
        if loss is not None and loss < self._best:
            self._best, self._stale = loss, 0
            return False
        self._stale += 1
        if self._stale <= PLATEAU_PATIENCE:
            return False
        self._stale = 0
        self._reductions += 1
        return True

    def state_dict(self) -> dict[str, float | int | None]:
        """State of `plateau`: best loss, evaluations without a better one, reductions so far."""
        best = self._best if math.isfinite(self._best) else None
        return {"plateau_best": best, "plateau_bad": self._stale, "plateau_reductions": self._reductions}

    def load_state_dict(self, values: dict[str, float | int | None]) -> None:
        """Restore a state from :meth:`state_dict`."""
        best = values.get("plateau_best")
        self._best = math.inf if best is None else float(best)
        self._stale = int(values.get("plateau_bad") or 0)
        self._reductions = int(values.get("plateau_reductions") or 0)


def _one_cycle(step: int, total: int) -> float:
    top = RISE * total - 1
    low, end = 1 / START_DIVISOR, 1 / START_DIVISOR / END_DIVISOR
    if step <= top:
        return _anneal(low, 1.0, step / top if top > 0 else 1.0)
    return _anneal(1.0, end, (step - top) / max(1e-9, total - 1 - top))


def _anneal(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))
