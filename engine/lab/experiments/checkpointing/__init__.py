"""The experiment `checkpointing`: activations computed again in the backward pass, memory saved against time."""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.lab.experiments.checkpointing.schema import Gradients
from epochtop.engine.lab.experiments.checkpointing.verdict import conclude
from epochtop.engine.lab.pairs import MEMORY_PICTURE, STEP_PICTURE, LeftOut, PeakMemory, StepTime
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="checkpointing",
    title="Compute activations again, or keep them",
    measures="peak memory and time of a step with all activations kept for the backward pass, and with the activations of "
    "each block computed again when they are needed",
    why="in deep models most memory of a step is activations that wait for the backward pass. Computing them again costs "
    "about one more forward pass",
    reading="the shorter memory bar shows what is saved, the longer time bar what it costs",
    pictures=(MEMORY_PICTURE, STEP_PICTURE),
    kinds=(Gradients, PeakMemory, StepTime, LeftOut),
    conclude=conclude,
    job=RunSpec(dataset="digits", hidden=(128,) * 12, batch_size=1024, optimizer="sgd", learning_rate=0.05, epochs=40),
)
