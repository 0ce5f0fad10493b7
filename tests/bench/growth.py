"""The cost of more steps, parameters and rows: time and memory must grow with the work, or not at all.

Every run has its own engine, which is ready before the clock starts. Step times are measured between windows that the run
recorded, without the first window. The beginning and the end of a run are compared by their medians.
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

from epochtop.engine.protocol.events import Finished, Logged
from epochtop.engine.protocol.requests import Plan, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.paths import EVENTS
from tests.bench.app import app, seen, until
from tests.bench.tables import Figure, show
from tests.support.engines import Engine, Watch, events
from tests.support.engines import windows as recorded_windows
from tests.support.ui.terminals import CTRL_Q

STEPS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LONGEST_S = 120.0
"""Limit for a run; longer ones, by extrapolation from the run before, are skipped."""
PARAMETERS = tuple(10**power for power in range(2, 9))
STEPS_OF_PARAMETERS = {10**6: 50, 10**7: 10, 10**8: 4}
"""Steps for the larger models; the others take FEW."""
FEW = 500
ROWS = (100, 1_000, 10_000, 100_000, 1_000_000)
ROW_SECONDS = 2.0
PART = 0.1
"""Fraction of a run's windows that counts as its beginning, or as its end."""
LOOK_S = 0.05


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process in MB: current and peak."""

    now: float
    most: float

    def __str__(self) -> str:
        return f"{self.now:,.0f} (peak {self.most:,.0f})"


def memory(pid: int) -> Memory | None:
    """Memory of a process; None once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    values = {name: int(line.split()[1]) / 1000 * 1.024 for line in lines if (name := line.split(":")[0])[:2] == "Vm"}
    return Memory(values["VmRSS"], values["VmHWM"]) if "VmRSS" in values else None


@dataclass(frozen=True)
class Trained:
    """A finished run, with the engine's memory at its first window and at its last sample."""

    run: Path
    end: Finished
    windows: list[Logged]
    first_loss_s: float
    """Seconds from the request to the first loss in the log."""
    ready: Memory
    at_first: Memory
    at_last: Memory
    plan: Plan

    @property
    def steps_us(self) -> list[float]:
        """Microseconds per step, for each window."""
        return list(_step_us(self.windows))


def _step_us(windows: Sequence[Logged]) -> Iterator[float]:
    for before, window in pairwise(windows):
        yield 1e6 * (window.seconds - before.seconds) / window.count


def trained(folder: Path, **fields: Any) -> Trained | Refused:
    """Train on one CPU thread in a separate engine. A run that does not fit is refused."""
    spec = RunSpec(**fields, threads=1, device="cpu", eval_every=0, save_every=0)
    with Engine() as engine:
        pid = engine.process.pid
        plan = engine.describe(spec)  # the answer comes after the engine has warmed up
        ready = memory(pid)
        if isinstance(plan, Refused):
            return plan
        start = perf_counter()
        watch = Watch(engine.train(spec, folder))
        watch.until(Logged)
        elapsed_s, at_first = perf_counter() - start, memory(pid)
        at_last = at_first
        while engine.process.poll() is None:
            at_last = memory(pid) or at_last
            time.sleep(LOOK_S)
    assert ready is not None
    log = events(watch.run)
    assert isinstance(log[-1], Finished), log[-1]
    windows = recorded_windows(log)
    return Trained(watch.run, log[-1], windows, elapsed_s, ready, at_first or ready, at_last or ready, plan)


# --- steps -------------------------------------------------------------------------------------------------


def opened(run: Path, steps: int) -> tuple[float, Memory]:
    """Seconds from `epochtop attach` to the whole run on the screen, and the memory of the app then."""
    start = perf_counter()
    with app(run.parent, "attach", run.name) as terminal:
        until(seen(terminal, f"finished: {steps:,} steps"))
        elapsed_s, app_memory = perf_counter() - start, memory(terminal.process.pid)
        terminal.press(CTRL_Q)
    assert app_memory is not None
    return elapsed_s, app_memory


def of_steps(steps: int) -> tuple[list[Figure], float]:
    """Figures of a run of `steps` steps of Iris, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = trained(Path(folder), executor="graph", epochs=steps)
        assert isinstance(result, Trained)
        steps_us = result.steps_us
        size = (result.run / EVENTS).stat().st_size / steps
        elapsed_s, app_memory = opened(result.run, steps)
    part = max(1, round(PART * len(steps_us)))
    first, last = (
        statistics.median(values) if len(steps_us) >= 4 else None for values in (steps_us[:part], steps_us[-part:])
    )
    change = f"{first:.2f} → {last:.2f} µs per step (× {last / first:.2f})" if first and last else "too few windows"
    return [
        Figure(f"{steps:,} steps: beginning → end of the loop", change, "× ≤ 1.05" if first and last else ""),
        Figure("  memory of the engine, first → last window, MB", f"{result.at_first} → {result.at_last}"),
        Figure("  bytes in events.jsonl per step", f"{size:.2f}", "≤ 6" if steps >= 100_000 else ""),
        Figure("  from `epochtop attach` to the whole run on the screen", f"{elapsed_s:.2f} s", "≤ 3 s"),
        Figure("  memory of the app then, MB", f"{app_memory}", "≤ 150"),
    ], result.end.seconds


def by_steps(counts: Sequence[int] = STEPS) -> list[Figure]:
    """Figures by number of steps. Only the size of the log may depend on it."""
    rows: list[Figure] = []
    before, before_s = 1, 0.0
    for steps in counts:
        if before_s * steps / before > LONGEST_S:
            rows.append(Figure(f"{steps:,} steps", f"skipped: about {before_s * steps / before:.0f} s"))
            continue
        more, before_s = of_steps(steps)
        rows, before = [*rows, *more], steps
    return rows


# --- parameters --------------------------------------------------------------------------------------------


def hidden_for(parameters: int) -> int:
    """Units of each of two hidden layers, so that an mlp for Iris has about `parameters` parameters: n² + 10 n + 3."""
    return max(1, round(sqrt(25 - 3 + parameters) - 5))


def by_parameters(sizes: Sequence[int] = PARAMETERS) -> list[Figure]:
    """Figures by number of parameters. Time per parameter must fall to that of the arithmetic; memory must match the plan."""
    rows = []
    for size in sizes:
        width, steps = hidden_for(size), STEPS_OF_PARAMETERS.get(size, FEW)
        with tempfile.TemporaryDirectory() as folder:
            result = trained(
                Path(folder),
                executor="eager",
                hidden=(width, width),
                epochs=steps,
                learning_rate=1e-5,
                refresh_ms=20,
            )
        if isinstance(result, Refused):
            rows.append(Figure(f"{size:.0e} parameters", result.message))
            continue
        step_us, count = statistics.median(result.steps_us), result.plan.parameters
        peak, planned = result.end.peak_memory_bytes or 0, result.plan.memory_bytes
        rows.append(
            Figure(
                f"{count:,} parameters ({width} · {width}), {steps} steps",
                f"{step_us:,.0f} µs per step, {1000 * step_us / count:,.3g} ns per parameter · "
                f"used {peak / 1e6:,.1f} MB, planned {planned / 1e6:,.1f} (× {peak / planned:.2f})",
            )
        )
    return rows


# --- rows --------------------------------------------------------------------------------------------------


def by_rows(counts: Sequence[int] = ROWS) -> list[Figure]:
    """Figures by number of rows. A step of one batch must take constant time; a step of all rows, time in proportion."""
    rows = []
    for count in counts:
        for batch in (64, 0):
            fields = {"batch_size": batch, "epochs": 10**9, "max_seconds": ROW_SECONDS, "executor": "eager"}
            with tempfile.TemporaryDirectory() as folder:
                result = trained(Path(folder), dataset="moons", samples=count, refresh_ms=20, **fields)
            assert isinstance(result, Trained)
            step_us = statistics.median(result.steps_us)
            batch_rows = result.plan.rows if batch == 0 else min(batch, result.plan.rows)
            rows.append(
                Figure(
                    f"{count:,} rows, {'all' if batch == 0 else batch} per step",
                    f"first loss after {result.first_loss_s:.2f} s · {step_us:,.0f} µs per step, "
                    f"{1000 * step_us / batch_rows:,.0f} ns per row · used {(result.end.peak_memory_bytes or 0) / 1e6:,.0f} MB",
                )
            )
    return rows


TABLES = {
    "steps": ("More steps (Iris, executor graph)", by_steps),
    "parameters": ("More parameters (Iris, two hidden layers, executor eager)", by_parameters),
    "rows": ("More rows (moons, executor eager)", by_rows),
}


def main(*names: str) -> None:
    """Print all tables, or those named in `names`."""
    for name in names or TABLES:
        title, rows = TABLES[name]
        show(title, rows())


if __name__ == "__main__":
    main(*sys.argv[1:])
