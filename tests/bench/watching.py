"""The cost of watching a run: its speed with one and three viewers against its speed without, moments apart.

One run is trained per step length, next to viewers that are stopped (SIGSTOP) and continued. A phase takes about a second, and
each phase with viewers is between two without, so a busy neighbor affects both. Rounds without viewers in both halves are
measured too: their distance from 1 is the error of the benchmark. Speeds come from the run's log.

A neighbor on the same core halves its speed for moments, with or without viewers. The benchmark therefore also counts the time
in which the training thread was ready to run and waited for a core.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from epochtop.engine.protocol.commands import Set
from epochtop.engine.protocol.events import Changed, Logged
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import Follower
from tests.bench.app import app, seen, until
from tests.bench.tables import Figure, middle, show
from tests.support.engines import Engine, Watch
from tests.support.engines import windows as recorded_windows
from tests.support.ui.terminals import Terminal

JOBS: dict[str, dict[str, Any]] = {
    "20 µs": {"dataset": "iris", "hidden": (50,), "executor": "graph"},
    "1 ms": {"dataset": "digits", "hidden": (64,), "executor": "eager"},
    "100 ms": {"dataset": "digits", "hidden": (800, 800), "executor": "eager"},
}
"""Jobs by the approximate time of a step on one core of 2 to 3 GHz."""
REFRESHES_MS = (20, 100, 1000)
DEFAULT_MS = 100
TARGETS = {0: "", 1: "≥ 0.99", 3: "≥ 0.97"}
"""Targets for the relative speed at the default refresh, by number of viewers."""
PHASE_S = 1.0
SETTLE_S = 0.25
"""Seconds after which a continued viewer has caught up."""
APART_S = 0.12
"""Seconds between continuing two viewers; otherwise all of them would draw at the same moments."""
OPENING_S = 3.0
"""Seconds after which an opened viewer only follows."""
LOOK_S = 0.002


@dataclass(frozen=True)
class Effort:
    """Rounds per number of viewers; `target_rounds` apply at the default refresh, which has a target."""

    rounds: int
    target_rounds: int


QUICK, LONG = Effort(3, 16), Effort(20, 100)
TARGETS_ONLY = Effort(0, 40)


@dataclass
class Measurements:
    """The measurements of one job at one refresh."""

    alone: list[float] = field(default_factory=list)
    """Steps per second in the phases without a viewer."""
    ratios: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """Speed by number of viewers, relative to the mean of the phases before and after."""
    waits: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """Fraction of time that the training thread waited for a core; empty if the system does not count it."""
    cores: list[float] = field(default_factory=list)
    """CPU seconds of one viewer per second."""


@dataclass(frozen=True)
class Pace:
    """The speed of a run over one phase."""

    steps_s: float
    waited: float | None
    """Fraction of time that the training thread waited for a core; None if the system does not count it."""


class Trained:
    """A live run and its speed."""

    def __init__(self, run: Path, pid: int) -> None:
        self.run, self._pid = run, pid
        self._follower = Follower(run)

    def pace(self, seconds: float) -> Pace:
        """Speed between two windows about `seconds` apart; the first of them ends after this call."""
        first = self._next()
        waited_s, start = self._waited_s(), time.perf_counter()
        time.sleep(seconds)
        last = self._next()
        elapsed_s, until_s = time.perf_counter() - start, self._waited_s()
        steps_s = (_stop(last) - _stop(first)) / (last.seconds - first.seconds)
        return Pace(steps_s, None if waited_s is None or until_s is None else (until_s - waited_s) / elapsed_s)

    def refresh(self, interval_ms: int) -> None:
        """Change the refresh of the run."""
        Watch(self.run).command(Set(field="refresh_ms", value=interval_ms), Changed)

    def _next(self) -> Logged:
        """The first window that arrives after this call."""
        for _ in self._follower.read_all():
            pass
        while True:
            windows = recorded_windows(self._follower.read_all())
            if windows:
                return windows[0]
            time.sleep(LOOK_S)

    def _waited_s(self) -> float | None:
        """Seconds that the training thread, the engine's first, was ready to run without a core."""
        try:
            return int(Path(f"/proc/{self._pid}/task/{self._pid}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            return None


def _stop(window: Logged) -> int:
    return window.first_step + window.count


@contextmanager
def training(folder: Path, **fields: Any) -> Iterator[Trained]:
    """An endless run on one CPU thread."""
    spec = RunSpec(**fields, epochs=10**12, learning_rate=1e-4, threads=1, device="cpu", save_every=0)
    with Engine() as engine:
        run = engine.train(spec, folder)
        Watch(run).windows(10)
        yield Trained(run, engine.process.pid)


class Viewers:
    """Apps attached to one run. All are stopped except during :meth:`watch`."""

    def __init__(self, run: Path, stack: ExitStack) -> None:
        self._windows = [stack.enter_context(app(run.parent, "attach", run.name)) for _ in range(max(TARGETS))]
        for window in self._windows:
            until(seen(window, "running ●"))
        time.sleep(OPENING_S)
        self._signal(len(self._windows), signal.SIGSTOP)

    @contextmanager
    def watch(self, count: int) -> Iterator[None]:
        """Continue `count` of them for the duration of the context."""
        self._signal(count, signal.SIGCONT)
        yield
        self._signal(count, signal.SIGSTOP)

    def cpu_s(self, count: int) -> float:
        """CPU time of the first `count` of them."""
        return sum(_cpu_s(window) for window in self._windows[:count])

    def _signal(self, count: int, which: signal.Signals) -> None:
        for place, window in enumerate(self._windows[:count]):
            if place and which == signal.SIGCONT:
                time.sleep(APART_S)
            window.process.send_signal(which)


def _cpu_s(window: Terminal) -> float:
    times = psutil.Process(window.process.pid).cpu_times()
    return times.user + times.system


def look(trained: Trained, viewers: Viewers, rounds: int, phase_s: float) -> Measurements:
    """Alternate phases with and without viewers; the order of the numbers of viewers changes every round."""
    cell = Measurements()
    before = trained.pace(phase_s)
    for turn in range(rounds):
        for count in sorted(TARGETS, reverse=turn % 2 == 1):
            with viewers.watch(count):
                time.sleep(SETTLE_S)
                used_s, start = viewers.cpu_s(count), time.perf_counter()
                pace = trained.pace(phase_s)
                used_s, elapsed_s = viewers.cpu_s(count) - used_s, time.perf_counter() - start
            after = trained.pace(phase_s)
            cell.alone += [before.steps_s, after.steps_s]
            cell.ratios[count].append(pace.steps_s / statistics.mean((before.steps_s, after.steps_s)))
            cell.waits[count] += [] if pace.waited is None else [pace.waited]
            cell.cores += [used_s / elapsed_s / count] if count else []
            before = after
    return cell


def costs(effort: Effort) -> dict[tuple[str, int], Measurements]:
    """Measurements of every job at every refresh."""
    cells = {}
    for name, fields in JOBS.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            training(Path(folder), **fields) as trained,
            ExitStack() as stack,
        ):
            viewers = Viewers(trained.run, stack)
            for interval_ms in REFRESHES_MS:
                rounds = effort.target_rounds if interval_ms == DEFAULT_MS else effort.rounds
                if rounds:
                    trained.refresh(interval_ms)
                    cells[name, interval_ms] = look(trained, viewers, rounds, max(PHASE_S, 2e-3 * interval_ms))
    return cells


def rows(cells: dict[tuple[str, int], Measurements]) -> list[Figure]:
    """One line per number of viewers, with the target at the default refresh."""
    figures = []
    for (name, interval_ms), cell in cells.items():
        steps_s = statistics.median(cell.alone)
        for count, ratios in cell.ratios.items():
            waits = cell.waits[count]
            waited = f" · waits for a core {100 * statistics.mean(waits):.2f} % of its time" if waits else ""
            figures.append(
                Figure(
                    f"{name} ({1e6 / steps_s:,.0f} µs) per step, refresh {interval_ms} ms, viewers: {count}",
                    middle(ratios) + waited,
                    TARGETS[count] if interval_ms == DEFAULT_MS else "",
                )
            )
        figures.append(
            Figure("  fraction of a core that a viewer takes", f"{100 * statistics.median(cell.cores):.1f} %")
        )
    return figures


def main(quick: bool = True, effort: Effort | None = None) -> None:
    """Print the table. `quick` takes about eleven minutes."""
    start = time.perf_counter()
    cells = costs(effort or (QUICK if quick else LONG))
    elapsed_s = time.perf_counter() - start
    title = "Speed of a run with viewers against without: medians and their 95 % intervals"
    show(f"{title} (measured in {elapsed_s:.0f} s)", rows(cells))


if __name__ == "__main__":
    main(quick="--long" not in sys.argv, effort=TARGETS_ONLY if "--targets" in sys.argv else None)
