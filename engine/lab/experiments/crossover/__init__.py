"""The experiment `crossover`: the size of a model and a batch from which the GPU is faster than the CPU.

It measures steps of an mlp and a cnn over width × batch on every device, and the user's job. The steps are the engine's
eager steps on one batch of the digits that come with scikit-learn: what a run would execute, without the cost of its
data. A step takes `overhead + work / speed`; the work is counted in the operators that it calls.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.crossover.schema import GridStep, JobStep, Limit
from epochtop.engine.lab.experiments.crossover.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="crossover",
    title="The size from which a GPU pays",
    measures="the time and the work of a step of an mlp and a cnn over width × batch on every device, and the step of your "
    "job, in turn and repeatedly",
    why="a GPU computes much faster than a CPU, but each step has more overhead. Small jobs are all overhead, and faster "
    "on the CPU",
    reading="a curve is flat while a step is overhead, and rises where it computes. The GPU pays where its curve is below "
    "the CPU's; `yours` is the step of your job",
    pictures=(
        Picture(
            title="Time of a step over the work in it",
            kind="lines",
            x="mflop",
            y="seconds",
            series=("device", "model"),
            unit="s",
            x_unit="MFLOP",
            x_title="MFLOP",
            y_title="seconds",
            x_log=True,
            y_log=True,
        ),
        Picture(
            title="Time of a step by width and batch",
            kind="table",
            y="seconds",
            series=("model", "width", "batch", "device"),
            unit="s",
            columns=("model", "width", "batch", "device", "seconds"),
        ),
    ),
    kinds=(JobStep, GridStep, Limit),
    conclude=conclude,
    job=RunSpec(),
)
