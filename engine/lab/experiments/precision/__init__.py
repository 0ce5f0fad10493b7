"""The experiment `precision`: fp32, tf32, bf16 and fp16 on one job, in step time, peak memory and accuracy.

Write-ups promise that mixed precision is 1.5 to 2 times as fast with 40 % less memory. The experiment compares that claim
with this machine.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.precision.schema import MEMORY_SAVED, SPEED_UP, Accuracy, Fields
from epochtop.engine.lab.experiments.precision.verdict import conclude
from epochtop.engine.lab.pairs import MEMORY_PICTURE, STEP_PICTURE, LeftOut, PeakMemory, StepTime
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="precision",
    title="The gain from 16 bits",
    measures="step time, peak memory, and accuracy after the same training from the same start, three times, with fp32, "
    "tf32, bf16 and fp16",
    why=f"mixed precision is said to be {SPEED_UP[0]:g} to {SPEED_UP[1]:g} times as fast with {MEMORY_SAVED:.0%} less memory. "
    "That holds if the hardware has units for it and the job is large enough; otherwise it is slower",
    reading="shorter bars of time and memory are better; accuracy should be the same within its spread",
    pictures=(
        STEP_PICTURE,
        MEMORY_PICTURE,
        Picture(title="Accuracy", kind="bars", y="score", series=("device", "way"), where={"kind": "accuracy"}),
    ),
    kinds=(PeakMemory, StepTime, Accuracy, LeftOut),
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", hidden=(256, 128), batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
