"""The experiment `anatomy`: one job's step split into input, host work, launches, compute, transfers and reads.

The whole step is measured without instruments. The parts are measured separately, in turn, and the difference between
their sum and the step is shown as unexplained. On the CPU, parts come from the clock and from replaying the step's
operators (:mod:`epochtop.engine.lab.instruments.phases`). On a GPU they come from a profile of what the device did, and
what the host did while the device was idle (:mod:`epochtop.engine.lab.instruments.timeline`).
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.anatomy.schema import (
    IdleTime,
    JobFacts,
    Kernels,
    LaunchTime,
    LineRead,
    Operators,
    PartTime,
    StepTime,
)
from epochtop.engine.lab.experiments.anatomy.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="anatomy",
    title="Where the time of a step goes",
    measures="the whole step, and separately its parts: getting a batch, Python and autograd, launching operators, "
    "computing, copying to and from the device, reading values; on a GPU also how long it is idle",
    why="a step becomes faster only where its time goes, and by no more than that part takes. A setting that helps a job "
    "bound by launches does nothing for a job that computes",
    reading="each bar is a part of one step; together they make up the step. On a GPU the bars other than compute and "
    "transfers are host work while the device was idle. The bar `unexplained` is the rest of the step",
    pictures=(
        Picture(
            title="Parts of a step",
            kind="bars",
            y="seconds",
            series=("device", "part"),
            unit="s",
            y_title="seconds per step",
            where={"kind": "part"},
        ),
    ),
    kinds=(JobFacts, Operators, Kernels, LineRead, StepTime, LaunchTime, PartTime, IdleTime),
    conclude=conclude,
    job=RunSpec(),
)
