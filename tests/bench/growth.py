"""What more steps, more parameters and more rows cost: time and memory that must grow as the work does, or not at all.

Every run has an engine of its own, which is ready before the clock starts. Times of a step are those between windows
that the run recorded, the first window left out. The beginning and the end of one run are compared by their medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any

from epochtop.engine.protocol.events import Finished, Losses
from epochtop.engine.protocol.requests import Plan, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import EVENTS
from tests.bench.app import app, seen, until
from tests.bench.tables import Figure, show
from tests.support.engines import Engine, Watch, events
from tests.support.ui.terminals import CTRL_Q

STEPS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LONGEST_S = 120.0
"""A number of steps that would take longer is left out, judged by the one before."""
PARAMETERS = tuple(10**power for power in range(2, 9))
STEPS_OF_PARAMETERS = {10**6: 50, 10**7: 10, 10**8: 4}
"""Few steps of the larger models; of the others FEW."""
FEW = 500
ROWS = (100, 1_000, 10_000, 100_000, 1_000_000)
ROW_SECONDS = 2.0
PART = 0.1
"""The share of a run's windows that is its beginning, or its end."""
LOOK_S = 0.05


@dataclass(frozen=True)
class Memory:
    """Of a process, in MB: resident now, and at most."""

    now: float
    most: float

    def __str__(self) -> str:
        return f"{self.now:,.0f} (at most {self.most:,.0f})"


def memory(pid: int) -> Memory | None:
    """None once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    values = {name: int(line.split()[1]) / 1000 * 1.024 for line in lines if (name := line.split(":")[0])[:2] == "Vm"}
    return Memory(values["VmRSS"], values["VmHWM"]) if "VmRSS" in values else None


@dataclass(frozen=True)
class Trained:
    """A run that is over, and what its engine held at its first window and at its last look."""

    run: Path
    end: Finished
    windows: list[Losses]
    first_loss_s: float
    """From the request to the first loss in the log."""
    ready: Memory
    at_first: Memory
    at_last: Memory
    plan: Plan

    @property
    def steps_us(self) -> list[float]:
        """Microseconds a step, window by window."""
        return list(_step_us(self.windows))


def _step_us(windows: Sequence[Losses]) -> Iterator[float]:
    for before, window in pairwise(windows):
        yield 1e6 * (window.seconds - before.seconds) / (len(window.values) // 4)


def trained(folder: Path, **fields: Any) -> Trained | Refused:
    """Train on one thread of the CPU in an engine of its own; what does not fit is refused."""
    spec = RunSpec(**fields, threads=1, device="cpu", eval_every=0, save_every=0)
    with Engine() as engine:
        pid = engine.process.pid
        plan = engine.describe(spec)  # answered when the engine has warmed up; the data are not kept for long
        ready = memory(pid)
        if isinstance(plan, Refused):
            return plan
        begun = perf_counter()
        watch = Watch(engine.train(spec, folder))
        watch.until(Losses)
        took, at_first = perf_counter() - begun, memory(pid)
        at_last = at_first
        while engine.process.poll() is None:
            at_last = memory(pid) or at_last
            time.sleep(LOOK_S)
    assert ready is not None
    found = events(watch.run)
    assert isinstance(found[-1], Finished), found[-1]
    windows = [event for event in found if isinstance(event, Losses)]
    return Trained(watch.run, found[-1], windows, took, ready, at_first or ready, at_last or ready, plan)


# --- steps -------------------------------------------------------------------------------------------------


def opened(run: Path, steps: int) -> tuple[float, Memory]:
    """Seconds from `epochtop attach` to the whole run on the screen, and the memory of the app then."""
    begun = perf_counter()
    with app(run.parent, "attach", run.name) as terminal:
        until(seen(terminal, f"finished: {steps:,} steps"))
        took, held = perf_counter() - begun, memory(terminal.process.pid)
        terminal.press(CTRL_Q)
    assert held is not None
    return took, held


def of_steps(steps: int) -> tuple[list[Figure], float]:
    """What a run of so many steps of Iris needs, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        found = trained(Path(folder), executor="graph", epochs=steps)
        assert isinstance(found, Trained)
        each = found.steps_us
        size = (found.run / EVENTS).stat().st_size / steps
        took, held = opened(found.run, steps)
    part = max(1, round(PART * len(each)))
    first, last = (statistics.median(values) if len(each) >= 4 else None for values in (each[:part], each[-part:]))
    course = f"{first:.2f} → {last:.2f} µs a step (× {last / first:.2f})" if first and last else "too few windows"
    return [
        Figure(f"{steps:,} steps: beginning → end of the loop", course, "× ≤ 1.05" if first and last else ""),
        Figure("  memory of the engine, first → last window, MB", f"{found.at_first} → {found.at_last}"),
        Figure("  bytes in events.jsonl a step", f"{size:.2f}", "≤ 6" if steps >= 100_000 else ""),
        Figure("  from `epochtop attach` to the whole run on the screen", f"{took:.2f} s", "≤ 3 s"),
        Figure("  memory of the app then, MB", f"{held}", "≤ 150"),
    ], found.end.seconds


def by_steps(counts: Sequence[int] = STEPS) -> list[Figure]:
    """Nothing may depend on the number of steps, but for the log."""
    rows: list[Figure] = []
    before, before_s = 1, 0.0
    for steps in counts:
        if before_s * steps / before > LONGEST_S:
            rows.append(Figure(f"{steps:,} steps", f"left out: about {before_s * steps / before:.0f} s"))
            continue
        more, before_s = of_steps(steps)
        rows, before = [*rows, *more], steps
    return rows


# --- parameters --------------------------------------------------------------------------------------------


def hidden_for(parameters: int) -> int:
    """Units of each of two hidden layers with which an mlp for Iris has about so many parameters: n² + 10 n + 3."""
    return max(1, round(sqrt(25 - 3 + parameters) - 5))


def by_parameters(sizes: Sequence[int] = PARAMETERS) -> list[Figure]:
    """Time a parameter must fall to that of the arithmetic, and memory must be what the plan says."""
    rows = []
    for size in sizes:
        width, steps = hidden_for(size), STEPS_OF_PARAMETERS.get(size, FEW)
        with tempfile.TemporaryDirectory() as folder:
            found = trained(
                Path(folder),
                executor="eager",
                hidden=(width, width),
                epochs=steps,
                learning_rate=1e-5,
                refresh_ms=20,
            )
        if isinstance(found, Refused):
            rows.append(Figure(f"{size:.0e} parameters", found.message))
            continue
        step_us, count = statistics.median(found.steps_us), found.plan.parameters
        held, planned = found.end.peak_memory_bytes or 0, found.plan.memory_bytes
        rows.append(
            Figure(
                f"{count:,} parameters ({width} · {width}), {steps} steps",
                f"{step_us:,.0f} µs a step, {1000 * step_us / count:,.3g} ns a parameter · "
                f"held {held / 1e6:,.1f} MB, planned {planned / 1e6:,.1f} (× {held / planned:.2f})",
            )
        )
    return rows


# --- rows --------------------------------------------------------------------------------------------------


def by_rows(counts: Sequence[int] = ROWS) -> list[Figure]:
    """A step of one batch must take the same; a step of all rows, and the wait for the first loss, what the rows need."""
    rows = []
    for count in counts:
        for batch in (64, 0):
            fields = {"batch_size": batch, "epochs": 10**9, "max_seconds": ROW_SECONDS, "executor": "eager"}
            with tempfile.TemporaryDirectory() as folder:
                found = trained(Path(folder), dataset="moons", samples=count, refresh_ms=20, **fields)
            assert isinstance(found, Trained)
            step_us = statistics.median(found.steps_us)
            taken = found.plan.rows if batch == 0 else min(batch, found.plan.rows)
            rows.append(
                Figure(
                    f"{count:,} rows, {'all' if batch == 0 else batch} in a step",
                    f"first loss after {found.first_loss_s:.2f} s · {step_us:,.0f} µs a step, "
                    f"{1000 * step_us / taken:,.0f} ns a row · held {(found.end.peak_memory_bytes or 0) / 1e6:,.0f} MB",
                )
            )
    return rows


TABLES = {
    "steps": ("More steps (Iris, executor graph)", by_steps),
    "parameters": ("More parameters (Iris, two hidden layers, executor eager)", by_parameters),
    "rows": ("More rows (moons, executor eager)", by_rows),
}


def main(*names: str) -> None:
    """Print the tables, or those of `names`."""
    for name in names or TABLES:
        title, rows = TABLES[name]
        show(title, rows())


if __name__ == "__main__":
    main(*sys.argv[1:])
