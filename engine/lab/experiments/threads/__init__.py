"""The experiment `threads`: the time of a step over the number of intra-op threads, on the CPU.

Threads share the arithmetic of one operator and wait for each other at its end. The wait costs the same however little
there is to share, and more if another program uses one of the CPUs. So the best number depends on the job and on the
load of the machine.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.threads.schema import CpuFacts, StepTime
from epochtop.engine.lab.experiments.threads.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="threads",
    title="How many threads an operator should get",
    measures="the time of a step on the CPU with 1, 2, … threads, up to the number of usable CPUs, in turn and repeatedly",
    why="by default torch uses one thread per core. Large operators share well. Small ones wait longer for the last thread "
    "than they compute, and on a busy machine that wait has no limit",
    reading="where the curve falls, threads help; half the time with twice the threads is the most there is to gain. Where "
    "it rises, threads slow each other down",
    pictures=(
        Picture(
            title="Time of a step over threads",
            kind="lines",
            x="threads",
            y="seconds",
            unit="s",
            x_title="threads",
            y_title="seconds per step",
            where={"kind": "step"},
        ),
    ),
    kinds=(CpuFacts, StepTime),
    conclude=conclude,
    job=RunSpec(),
)
