"""The experiment `reads`: the cost of reading the loss, and why time does not follow the number of reads.

Published write-ups leave the question open: reading every 100th loss instead of every loss saved only part of the time,
and the rest bore no relation to the number of reads. The answer is a sum of two costs, which are measured here:
`time = steps × step + reads × read`. The first term does not depend on reads; below some rate only it remains.

A read on the CPU takes a thousandth of what steps vary by, so two runs cannot be compared. Steps with and without a read
alternate in short blocks, and the read itself is timed inside the run.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.reads.schema import Fields, LaunchTime, Operators, ReadTime, RunTime
from epochtop.engine.lab.experiments.reads.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="reads",
    title="The cost of reading the loss",
    measures="steps with `loss.item()`, without it, and with epochtop's loss window, alternating in short blocks of one run; "
    "the call after a step and alone, on a GPU apart from the wait before it; one empty operator; operators in a step",
    why="each read of a loss is a copy and a full stop of the device's queue. Reading less often is the usual advice, but "
    "it cannot save more than the reads cost",
    reading="time rises with the number of reads only where reads cost more than the noise of the machine. The flat part "
    "is the steps themselves: launching their operators, and computing",
    pictures=(
        Picture(
            title="Time of the run over the number of reads",
            kind="lines",
            x="reads",
            y="seconds",
            series=("device", "loop"),
            unit="s",
            x_title="reads",
            y_title="seconds",
            where={"kind": "run"},
        ),
        Picture(
            title="A read",
            kind="bars",
            y="seconds",
            series=("device", "part"),
            unit="s",
            y_title="seconds per read",
            where={"kind": "read"},
        ),
    ),
    kinds=(Operators, RunTime, ReadTime, LaunchTime),
    conclude=conclude,
    fields=Fields,
    job=RunSpec(),
)
