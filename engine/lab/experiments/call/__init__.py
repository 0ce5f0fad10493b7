"""The experiment `call`: what calling a module does besides its `forward`, `model(x)` against `model.forward(x)`.

`nn.Module.__call__` looks for hooks, runs them, and calls `forward` in between. The experiment counts the hooks that ran,
times calls of modules that do almost nothing, and compares that with a step of the job. All of it is Python on the host,
whatever the device.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.call.schema import CallTime, HookCounts, ModuleCalls, StepTime
from epochtop.engine.lab.experiments.call.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="call",
    title="What model(x) does besides model.forward(x)",
    measures="which hooks run with `model(x)` and with `model.forward(x)`, counted; the time of both, with and without a "
    "hook, and of the plain function, on modules that do almost nothing; a step of the job with and without `__call__`",
    why="`model(x)` goes through `nn.Module.__call__`, which runs hooks around `forward`. `model.forward(x)` is a little "
    "faster, but everything that relies on hooks silently does not happen",
    reading="the distance between the bars of `model(x)` and `model.forward(x)` is the cost of `__call__`; a hook adds to "
    "the first and not to the second, which does not run it",
    pictures=(
        Picture(
            title="Time of a call",
            kind="bars",
            y="seconds",
            series=("module", "way"),
            unit="s",
            where={"kind": "call"},
        ),
        Picture(
            title="Time of a step of the job, by how modules are called",
            kind="bars",
            y="seconds",
            series=("device", "way"),
            unit="s",
            where={"kind": "step"},
        ),
    ),
    kinds=(HookCounts, ModuleCalls, CallTime, StepTime),
    conclude=conclude,
    job=RunSpec(),
)
