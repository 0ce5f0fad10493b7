"""After how many steps an executor has made up for its set-up, from rows of set-ups and of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epochtop.engine.lab.experiment import Row
from epochtop.engine.lab.statistics import Difference, Figure, difference, figure, gap, select, values

CACHES = {"new": "", "part": " with a part kept from before", "kept": " with all of it kept from before"}
"""What a set-up found in a cache, in words."""


@dataclass(frozen=True)
class Cost:
    """What one executor takes on one device, beside what eager takes there."""

    name: str
    step: Figure
    setups: dict[str, Figure]
    """By what was kept, a key of CACHES, the least first; at least one."""
    against: Difference | None
    """Its steps to eager ones; None for eager itself and where no round has both."""
    saved_s: Figure
    """By a step against an eager one."""

    @property
    def faster(self) -> bool:
        """Whether its steps are, by more than the spread."""
        return self.against is not None and self.against.distinct and self.against.ratio.median < 1

    @property
    def first(self) -> Figure:
        """Set-up with the least kept that was seen."""
        return next(iter(self.setups.values()))

    def pays_from(self, setup_s: float) -> float | None:
        """Steps after which a set-up is made up for; None if it never is."""
        return setup_s / self.saved_s.median if self.faster and self.saved_s.median > 0 else None

    @property
    def again(self) -> Figure:
        """Set-up with the most kept that was seen: what a run of the same job pays from now on."""
        return list(self.setups.values())[-1]

    def gain_s(self, steps: float, setup_s: float) -> float:
        """What is saved in so many steps, less a set-up; below 0 also where steps are not faster."""
        return steps * self.saved_s.median - setup_s if self.faster else -setup_s

    def total_s(self, steps: float) -> float:
        """A whole run, the first of its kind."""
        return self.first.median + steps * self.step.median


def costs(rows: Sequence[Row]) -> dict[str, Cost]:
    """By executor, of the rows of one device; those without steps or set-up are left out."""
    steps = select(rows, kind="step")
    eager = select(steps, executor="eager")
    found: dict[str, Cost] = {}
    for name in dict.fromkeys(str(row.get("executor")) for row in steps):
        mine = select(steps, executor=name)
        setups = {cache: values(select(rows, kind="setup", executor=name, cache=cache), "seconds") for cache in CACHES}
        seen = {cache: figure(seconds) for cache, seconds in setups.items() if seconds}
        taken = values(mine, "seconds")
        if not taken or not seen:
            continue
        against = None if name == "eager" else difference(mine, eager)
        found[name] = Cost(name, figure(taken), seen, against, gap(eager, mine) or figure([0.0]))
    return found
