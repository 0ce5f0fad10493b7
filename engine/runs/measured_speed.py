"""The speed of matrix products that the lab measured on this machine, from the results' files. Never imports torch."""

from __future__ import annotations

import platform
from pathlib import Path

from epochtop.engine.protocol.events import Measured
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.index import run_paths
from epochtop.engine.runs.paths import lab_home
from epochtop.engine.runs.reader import read_events, read_record

EXPERIMENT = "matmul"
MOST = 100
"""Most results to look at, the newest first."""


def measured_gflops(home: Path, device: str, precision: str) -> float | None:
    """The best speed in GFLOP/s of the newest result on this host with this device and precision; None without one."""
    for path in run_paths(lab_home(home))[:MOST]:
        if not path.name.startswith(EXPERIMENT):  # an id starts with the experiment's name
            continue
        try:
            is_ours = read_record(path).host == platform.node()
        except Invalid:
            continue
        if is_ours and (speeds := _speeds(path, device, precision)):
            return max(speeds)
    return None


def _speeds(run: Path, device: str, dtype: str) -> list[float]:
    """Speeds of the products in a result, in GFLOP/s; the rows are those of the experiment `matmul`."""
    rows = [event.values for event in read_events(run) if isinstance(event, Measured)]
    return [
        float(speed)
        for row in rows
        if row.get("kind") == "product" and row.get("device") == device and row.get("dtype") == dtype
        if isinstance(speed := row.get("gflops"), int | float)
    ]
