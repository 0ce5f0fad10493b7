"""The experiment `profile`: the operators that take most of a step, and the time between them, by torch.profiler.

The profiler makes every operator longer, small ones most of all. Steps with and without it run in turn, so that the
result includes the profiler's own cost.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.profile.schema import GapTime, LaneSpan, OperatorTime, StepTime, TraceFile
from epochtop.engine.lab.experiments.profile.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="profile",
    title="Which operators take the time",
    measures="steps of any job under torch.profiler, in turn with steps without it: the self time of every operator, on a "
    "GPU that of its kernels; the time without any operator; a step as a timeline; a Chrome trace in the run's folder",
    why="a step is a few dozen operators. One of them may take most of it, and is worth improving. Or most of the step is "
    "between them, and faster operators do not help",
    reading="self time excludes the operators that an operator calls. On the timeline, `between` is time without an "
    "operator on the host, and `GPU idle` time without a kernel. All times include the profiler's own cost",
    pictures=(
        Picture(
            title="Operators of a step",
            kind="table",
            y="seconds",
            series=("operator",),
            unit="s",
            columns=("operator", "calls", "seconds", "share"),
            where={"kind": "operator"},
        ),
        Picture(
            title="One step",
            kind="timeline",
            x="start",
            y="end",
            series=("lane",),
            unit="s",
            x_unit="s",
            x_title="seconds of the step",
            where={"kind": "span"},
        ),
        Picture(
            title="The cost of the profiler",
            kind="bars",
            y="seconds",
            series=("profiler",),
            unit="s",
            y_title="seconds per step",
            where={"kind": "step"},
        ),
    ),
    kinds=(StepTime, GapTime, OperatorTime, LaneSpan, TraceFile),
    conclude=conclude,
    job=RunSpec(),
)
