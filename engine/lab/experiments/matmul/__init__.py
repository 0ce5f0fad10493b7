"""The experiment `matmul`: how fast this machine multiplies matrices, by size, arithmetic and device.

Products are most of the work of training, and the only figure that describes a device's speed without a model. The
reference is the machine itself: every figure is a percentage of the best product measured here, not of a data sheet.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.matmul.schema import BestShare, CpuFacts, Fields, Limit, Product
from epochtop.engine.lab.experiments.matmul.verdict import conclude

EXPERIMENT = Experiment(
    name="matmul",
    title="The speed of matrix products",
    measures="products of square matrices from 16 to 8,192, as time and memory allow, in fp32, tf32 (NVIDIA only), bf16 "
    "and fp16, on every device, in turn and repeatedly",
    why="products are most of the work of training. During small ones a device mostly waits. Narrow arithmetics are faster "
    "only if the hardware has them, and often much slower if not",
    reading="a curve rises until the device is busy. Layers and batches should reach the size at which it becomes flat. "
    "The GPU pays from the size at which its curve crosses the CPU's",
    pictures=(
        Picture(
            title="Speed over the size of the matrices",
            kind="lines",
            x="size",
            y="gflops",
            series=("device", "dtype"),
            unit="GFLOP/s",
            x_title="size",
            y_title="GFLOP/s",
            x_log=True,
            y_log=True,
            where={"kind": "product"},
        ),
        Picture(
            title="The best of each, relative to the machine's best",
            kind="bars",
            y="share",
            series=("device", "dtype"),
            unit="%",
            y_title="% of the best",
            where={"kind": "share"},
        ),
    ),
    kinds=(CpuFacts, Limit, Product, BestShare),
    conclude=conclude,
    fields=Fields,
)
