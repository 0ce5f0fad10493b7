"""The number of steps after which an executor has made up for its set-up.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.differences import Difference, difference, gap
from epochtop.engine.lab.experiments.executors.schema import CACHES, SetUpTime, StepTime
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.statistics import Figure, by_column, figure, select, values


@dataclass(frozen=True)
class Cost:
    """The costs of one executor on one device, compared with eager there."""

    name: str
    step: Figure
    setups: dict[str, Figure]
    """Set-ups by cache, a key of CACHES, the emptiest first; at least one."""
    against_eager: Difference | None
    """Its steps over eager steps; None for eager itself and if no round has both."""
    saved_s: Figure
    """Seconds saved per step."""

    @property
    def faster(self) -> bool:
        """Whether its steps are faster."""
        return self.against_eager is not None and self.against_eager.faster

    @property
    def slower(self) -> bool:
        """Whether its steps are slower."""
        return self.against_eager is not None and self.against_eager.slower

    @property
    def first(self) -> Figure:
        """The set-up with the emptiest cache."""
        return next(iter(self.setups.values()))

    @property
    def again(self) -> Figure:
        """The set-up with the fullest cache: the cost for later runs of the same job."""
        return list(self.setups.values())[-1]

    def pays_from(self, setup_s: float) -> float | None:
        """Steps after which a set-up pays; None if it never does."""
        return setup_s / self.saved_s.median if self.faster and self.saved_s.median > 0 else None

    def gain_s(self, steps: float, setup_s: float) -> float:
        """Seconds saved in `steps` steps, minus a set-up; negative if steps are not faster."""
        return steps * self.saved_s.median - setup_s if self.faster else -setup_s

    def total_s(self, steps: float) -> float:
        """Seconds of a whole first run."""
        return self.first.median + steps * self.step.median


def costs(rows: Sequence[Measurement]) -> dict[str, Cost]:
    """The costs by executor, from the rows of one device, without executors that lack steps or a set-up."""
    by_executor = by_column(of_kind(rows, StepTime), "executor")
    eager = by_executor.get("eager", [])
    by_name: dict[str, Cost] = {}
    for name, steps in by_executor.items():
        of_name = select(of_kind(rows, SetUpTime), executor=name)
        setups = {cache: values(select(of_name, cache=cache), "seconds") for cache in CACHES}
        setup_figures = {cache: figure(seconds) for cache, seconds in setups.items() if seconds}
        if not setup_figures:
            continue
        against = None if name == "eager" else difference(steps, eager)
        saved_s = gap(eager, steps) or figure([0.0])
        by_name[name] = Cost(name, figure(values(steps, "seconds")), setup_figures, against, saved_s)
    return by_name
