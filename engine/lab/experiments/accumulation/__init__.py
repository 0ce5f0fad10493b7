"""The experiment `accumulation`: several small batches per step against one large batch.

The gradients of the small batches are added as the engine does it, each weighted by its rows, and compared with the
gradients of one batch of the same rows.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.lab.experiments.accumulation.schema import Fields, Gradients
from epochtop.engine.lab.experiments.accumulation.verdict import conclude
from epochtop.engine.lab.pairs import MEMORY_PICTURE, STEP_PICTURE, LeftOut, PeakMemory, StepTime
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="accumulation",
    title="Four small batches for one large one",
    measures="the gradients of the same rows in one batch and in pieces, and the time and peak memory of a step of both",
    why="a batch that does not fit can be split into pieces whose gradients are added. It should be the same step with "
    "less memory, but it costs time",
    reading="the shorter memory bar shows what is saved, the longer time bar what it costs. Gradients count as equal if "
    "they differ only by rounding",
    pictures=(STEP_PICTURE, MEMORY_PICTURE),
    kinds=(Gradients, PeakMemory, StepTime, LeftOut),
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", model="cnn", batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
