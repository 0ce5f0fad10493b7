"""The experiment `executors`: the set-up and the step of each executor for one job, and when the set-up pays.

A program made from a step costs time before the first step and saves some in each. It pays after
`set-up / saved per step` steps. `graph` on the CPU is set up in an empty cache, as for a first run, and from a full one.
`compile` runs in its own process and only while time allows, because its compiler cannot be interrupted.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.executors.schema import Fields, JobFacts, LeftOut, SetUpTime, StepTime
from epochtop.engine.lab.experiments.executors.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

_SERIES = ("device", "executor")
_SET_UP = {"kind": "setup"}

EXPERIMENT = Experiment(
    name="executors",
    title="Which executor, and from how many steps",
    measures="for eager, graph and compile on one job: the seconds to set each up, from an empty and from a full cache, and "
    "the seconds of a step, in turn and repeatedly",
    why="a program made from a whole step saves the cost of calling its operators one by one, in every step, but has to be "
    "made first. That pays only after a number of steps, which depends on the machine and the job",
    reading="curves start at the time of the set-up. Where two cross, both take the same time; to the right, the one with "
    "the longer set-up is ahead. Points are measured, for as many steps as the job has",
    pictures=(
        Picture(
            title="Time of a run over its number of steps",
            kind="lines",
            x="steps",
            y="run_seconds",
            series=_SERIES,
            unit="s",
            x_title="steps",
            y_title="seconds",
            x_log=True,
            y_log=True,
            where={"kind": "step"},
        ),
        Picture(title="Time of a step", kind="bars", y="seconds", series=_SERIES, unit="s", where={"kind": "step"}),
        Picture(title="Time to set up", kind="bars", y="seconds", series=(*_SERIES, "cache"), unit="s", where=_SET_UP),
    ),
    kinds=(JobFacts, SetUpTime, StepTime, LeftOut),
    conclude=conclude,
    fields=Fields,
    job=RunSpec(),
)
