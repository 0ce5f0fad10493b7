"""The experiment `memory`: memory over the batch size, and the largest batch that follows from it.

A step's memory is linear in its rows: weights, gradients and optimizer do not grow with them, activations do. The line
is fitted to what torch really allocates, and checked with a batch that is not in the fit.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.memory.schema import Check, Held, JobFacts, LeftOut, Peak
from epochtop.engine.lab.experiments.memory.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="memory",
    title="Memory over the batch size",
    measures="torch's peak memory in a step for growing batches, as far as they fit; the memory held before, with and "
    "after a job, and after it was released",
    why="memory limits the batch. A fixed amount and an amount per row give the largest batch without trying it",
    reading="the line meets the left edge at the size of weights, gradients and optimizer; its slope is the activations "
    "of one row. The last point is not in the fit, to check it",
    pictures=(
        Picture(
            title="Peak memory over the batch size",
            kind="lines",
            x="batch",
            y="peak_bytes",
            series=("device", "kind"),
            unit="B",
            x_title="rows in a batch",
            y_title="bytes",
        ),
        Picture(
            title="Memory held",
            kind="bars",
            y="bytes",
            series=("device", "what", "when"),
            unit="B",
            where={"kind": "held"},
        ),
    ),
    kinds=(JobFacts, Peak, Check, LeftOut, Held),
    conclude=conclude,
    job=RunSpec(dataset="digits", hidden=(512, 256), batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
