"""The experiment `loader`: how rows should reach a training step. Kept on the device, streamed, or from a DataLoader.

Each source feeds the same step of the same job, in turn. Workers are started for each measurement and stopped after it.
Their start is a figure of its own, and batches prepared in advance are used up before the clock starts.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.loader.schema import SAME, BatchTime, Fields, JobFacts, StartTime, StepTime
from epochtop.engine.lab.experiments.loader.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="loader",
    title="How rows should reach a step",
    measures="a batch alone and a training step fed with it, for rows kept on the device, rows streamed from the host, and "
    "torch's DataLoader with no worker up to one per usable CPU, with and without pinned memory on CUDA; the start of the "
    "workers; a step that does not wait for rows",
    why="a DataLoader assembles a batch row by row in Python, and its workers send batches through shared memory. For "
    "small rows that takes longer than the step; for rows that are expensive to make, workers hide the cost",
    reading=f"the bar `{SAME}` is the step itself: no loader can be faster. The rest of each bar is waiting for rows, "
    "and what a step loses because new rows, and after a wait its own data, are not in the processor's caches. A "
    "batch alone may take longer than it adds to a step, because it is made during the step before",
    pictures=(
        Picture(
            title="A training step, by source of rows",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds per step",
            where={"kind": "step"},
        ),
        Picture(
            title="A batch alone",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds per batch",
            where={"kind": "batch"},
        ),
        Picture(
            title="Starting and stopping workers",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            y_title="seconds per epoch",
            where={"kind": "start"},
        ),
    ),
    kinds=(JobFacts, StepTime, BatchTime, StartTime),
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", hidden=(64,), batch_size=64),
)
