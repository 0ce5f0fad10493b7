"""The experiment `transfer`: the cost of a copy by size, to a device and back, from pageable and from pinned memory.

A copy takes `latency + bytes / bandwidth`; both are fitted. Without a device, copies within host memory are measured
instead: into a tensor that is reused, and into a new one each time.
"""

from __future__ import annotations

from epochtop.engine.lab.experiment import Experiment, Picture
from epochtop.engine.lab.experiments.transfer.schema import CopyTime, Fields, Limit, PinTime
from epochtop.engine.lab.experiments.transfer.verdict import conclude

EXPERIMENT = Experiment(
    name="transfer",
    title="The cost of moving data",
    measures="copies from 1 KiB to 1 GiB, as time and memory allow, to the device and back, from ordinary (pageable) "
    "memory, from pinned memory, and without waiting for each copy; the cost of pinning itself. Without a device: copies "
    "within host memory, into a reused tensor and into a new one",
    why="each copy takes a latency, however small it is, and then its bytes at some bandwidth. Many small copies pay the "
    "latency many times. Pinned memory raises the bandwidth, but pinning takes time too and can be slower overall",
    reading="the flat part on the left is latency: copies there cost the same at any size. On the right, time grows with "
    "the bytes. Where two curves cross, the other way of copying starts to pay",
    pictures=(
        Picture(
            title="Time of a copy over its size",
            kind="lines",
            x="bytes",
            y="seconds",
            series=("direction", "way"),
            unit="s",
            x_unit="B",
            x_title="bytes",
            y_title="seconds",
            x_log=True,
            y_log=True,
            where={"kind": "copy"},
        ),
        Picture(
            title="Bandwidth over the size",
            kind="lines",
            x="bytes",
            y="rate",
            series=("direction", "way"),
            unit="B/s",
            x_unit="B",
            x_title="bytes",
            y_title="bytes per second",
            x_log=True,
            y_log=True,
            where={"kind": "copy"},
        ),
    ),
    kinds=(CopyTime, PinTime, Limit),
    conclude=conclude,
    fields=Fields,
)
