"""The experiment `parallel`: the speed-up of one step by several processes that train one model.

The processes are the engine's own ranks with DistributedDataParallel, with one thread each on the CPU or one GPU each.
They are compared with one process, with one process with as many threads, and with DataParallel on several GPUs.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.parallel.schema import Fields, SpeedUp, StepTime
from epochtop.engine.lab.experiments.parallel.verdict import conclude
from epochtop.engine.protocol.spec import RunSpec

EXPERIMENT = Experiment(
    name="parallel",
    title="The gain from several processes or GPUs",
    measures="a training step of the same rows by 1 process, and by 2 or more, up to one per usable CPU or GPU, which "
    "exchange gradients (DistributedDataParallel); by one process with as many threads; by DataParallel on several GPUs",
    why="each process works on its share of the rows, and all wait for the exchange of gradients after every step. With "
    "short steps or large gradients, the exchange costs what sharing gained",
    reading="the line `ideal` is a speed-up equal to the number of processes. The distance to it is the exchange, and "
    "processors that they share. Efficiency is the speed-up divided by their number",
    pictures=(
        Picture(
            title="Speed-up over processes",
            kind="lines",
            x="parts",
            y="speed_up",
            series=("way",),
            unit="×",
            x_title="processes, threads or GPUs",
            y_title="speed-up",
            where={"kind": "speed_up"},
        ),
        Picture(
            title="A step of the same rows",
            kind="bars",
            y="seconds",
            series=("way", "parts"),
            unit="s",
            y_title="seconds per step",
            where={"kind": "step"},
        ),
    ),
    kinds=(StepTime, SpeedUp),
    conclude=conclude,
    fields=Fields,
    several_processes=True,
    job=RunSpec(dataset="sums", hidden=(256, 256), batch_size=2048),
)
