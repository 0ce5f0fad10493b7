"""All experiments, in the order in which they are listed. Importing it imports no torch."""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.lab.experiments.accumulation import EXPERIMENT as ACCUMULATION
from epochtop.engine.lab.experiments.anatomy import EXPERIMENT as ANATOMY
from epochtop.engine.lab.experiments.call import EXPERIMENT as CALL
from epochtop.engine.lab.experiments.checkpointing import EXPERIMENT as CHECKPOINTING
from epochtop.engine.lab.experiments.crossover import EXPERIMENT as CROSSOVER
from epochtop.engine.lab.experiments.executors import EXPERIMENT as EXECUTORS
from epochtop.engine.lab.experiments.loader import EXPERIMENT as LOADER
from epochtop.engine.lab.experiments.matmul import EXPERIMENT as MATMUL
from epochtop.engine.lab.experiments.memory import EXPERIMENT as MEMORY
from epochtop.engine.lab.experiments.parallel import EXPERIMENT as PARALLEL
from epochtop.engine.lab.experiments.precision import EXPERIMENT as PRECISION
from epochtop.engine.lab.experiments.profile import EXPERIMENT as PROFILE
from epochtop.engine.lab.experiments.reads import EXPERIMENT as READS
from epochtop.engine.lab.experiments.threads import EXPERIMENT as THREADS
from epochtop.engine.lab.experiments.transfer import EXPERIMENT as TRANSFER
from epochtop.engine.protocol.spec import Invalid

EXPERIMENTS: tuple[Experiment, ...] = (
    READS,
    ANATOMY,
    CROSSOVER,
    MATMUL,
    TRANSFER,
    PRECISION,
    MEMORY,
    ACCUMULATION,
    CHECKPOINTING,
    LOADER,
    PARALLEL,
    PROFILE,
    CALL,
    THREADS,
    EXECUTORS,
)
NAMES = tuple(experiment.name for experiment in EXPERIMENTS)


def experiments() -> tuple[Experiment, ...]:
    """All experiments."""
    return EXPERIMENTS


def find(name: str) -> Experiment:
    """The experiment called `name`. Raises Invalid if there is none."""
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    raise Invalid("", f"there is no experiment {name!r}; choose one of {', '.join(NAMES)}")
