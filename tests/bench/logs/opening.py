"""Reading logs of other tools: CPU time per TensorBoard record next to TensorBoard's own loaders, memory, and a large tree."""

from __future__ import annotations

import importlib.util
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

from epochtop.formats.scan import find_logs
from epochtop.formats.tensorboard import TensorBoardFollower
from tests.bench.tables import Figure, show, spread

STEPS = 50_000
NAMES = ("train/loss", "train/accuracy", "optimizer/learning_rate", "val/loss")
ROUNDS = 5
RUNS = 1_000


def write(folder: Path) -> int:
    """Write an event file with torch's SummaryWriter. Returns the number of its records."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in range(STEPS):
            for name in NAMES:
                writer.add_scalar(name, 1 / (step + 1), step)
    return STEPS * len(NAMES)


def ours(folder: Path) -> int:
    """Read with our follower. Returns the number of values."""
    follower, values = TensorBoardFollower(folder), 0
    while records := follower.read():
        values += sum(len(record.steps) for record in records if hasattr(record, "steps"))
    follower.close()
    return values


def raw_loader(folder: Path) -> int:
    """Read with TensorBoard's raw loader, and parse each event, without keeping anything."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (file,) = folder.iterdir()
    return sum(len(event.summary.value) for event in LegacyEventFileLoader(str(file)).Load())


def accumulator(folder: Path) -> int:
    """Read with TensorBoard's EventAccumulator, which keeps all scalars."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loaded = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return sum(len(loaded.Scalars(name)) for name in loaded.Tags()["scalars"])


def tbparse(folder: Path) -> int:
    """Read with tbparse into a pandas table."""
    from tbparse import SummaryReader

    return len(SummaryReader(str(folder)).scalars)


def per_record(read: Callable[[Path], int], folder: Path, records: int) -> list[float]:
    """Microseconds of CPU per record, in several rounds."""
    times = []
    for _ in range(ROUNDS):
        start = process_time()
        assert read(folder) == records
        times.append(1e6 * (process_time() - start) / records)
    return times


def records() -> list[Figure]:
    """CPU time per record, and memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write(folder)
        figures = [Figure("epochtop, µs of CPU per record", spread(per_record(ours, folder, count)), "≤ 4")]
        for title, library, read in (
            ("TensorBoard's raw loader", "tensorboard", raw_loader),
            ("TensorBoard's EventAccumulator", "tensorboard", accumulator),
            ("tbparse", "tbparse", tbparse),
        ):
            if importlib.util.find_spec(library) is not None:
                figures.append(Figure(f"{title}, µs of CPU per record", spread(per_record(read, folder, count))))
        tracemalloc.start()
        ours(folder)
        figures.append(Figure("epochtop, peak memory, MB", f"{tracemalloc.get_traced_memory()[1] / 2**20:.1f}", "flat"))
        tracemalloc.stop()
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        figures.append(Figure("size of the file, MB", f"{size:.1f}"))
    return figures


def tree() -> list[Figure]:
    """Seconds until all runs in a tree are found."""
    with tempfile.TemporaryDirectory() as name:
        for run in range(RUNS):
            folder = Path(name) / f"sweep{run // 100}" / f"run{run}"
            folder.mkdir(parents=True)
            (folder / "metrics.csv").write_text("step,loss\n0,1\n")
        start = perf_counter()
        assert len(find_logs(Path(name)).logs) == RUNS
        return [Figure(f"{RUNS:,} runs found, s", f"{perf_counter() - start:.2f}")]


def main() -> None:
    """Print the figures."""
    show("logs of other tools", [*records(), *tree()])
