"""All experiments, in the order in which they are listed."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.spec import Invalid

NAMES = (
    "reads",
    "anatomy",
    "crossover",
    "matmul",
    "transfer",
    "precision",
    "memory",
    "accumulation",
    "checkpointing",
    "loader",
    "parallel",
    "profile",
    "call",
    "threads",
    "executors",
)
"""Each is a package in :mod:`epochtop.engine.lab.experiments`."""


@cache
def experiments() -> tuple[Experiment, ...]:
    """All of them."""
    # by name, so that who lists them has not imported, for a linter, what they measure with
    return tuple(import_module(f"epochtop.engine.lab.experiments.{name}").EXPERIMENT for name in NAMES)


def find(name: str) -> Experiment:
    """The experiment called `name`. Raises Invalid if there is none."""
    for experiment in experiments():
        if experiment.name == name:
            return experiment
    raise Invalid("", f"there is no experiment {name!r}; there are {', '.join(NAMES)}")
