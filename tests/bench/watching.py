"""What watching costs a run: its speed with one and three viewers against its own speed with none, moments apart.

One run is trained for each length of a step, beside viewers that are stopped (SIGSTOP) and let go on. A phase takes
about a second, and one without viewers lies before and after each with some, so that a busy neighbor hits both. Rounds
with nobody in both halves are measured too: what they are off 1 is the bench's own error. Speeds come from the run's own
record.

A neighbor on the same silicon slows a core by half for moments, whether somebody watches or not. What viewers take
from the training thread is therefore counted as well: the time that it was ready to run and waited for a core.
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

from epochtop.engine.protocol.events import Changed, Losses, Set
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.reader import Follower
from tests.bench.app import app, seen, until
from tests.bench.tables import Figure, middle, show
from tests.support.engines import Engine, Watch
from tests.support.ui.terminals import Terminal

JOBS: dict[str, dict[str, Any]] = {
    "20 µs": {"dataset": "iris", "hidden": (50,), "executor": "graph"},
    "1 ms": {"dataset": "digits", "hidden": (64,), "executor": "eager"},
    "100 ms": {"dataset": "digits", "hidden": (800, 800), "executor": "eager"},
}
"""Jobs by what a step of theirs takes, about, on one core of 2 to 3 GHz."""
REFRESHES_MS = (20, 100, 1000)
DEFAULT_MS = 100
TARGETS = {0: "", 1: "≥ 0.99", 3: "≥ 0.97"}
"""Of what is left of the speed at the default refresh, by the number of viewers."""
PHASE_S = 1.0
SETTLE_S = 0.25
"""After which a viewer that goes on has read what came while it was stopped."""
APART_S = 0.12
"""Between viewers that go on: at once, all of them would draw at the same moments ever after."""
OPENING_S = 3.0
"""After which a viewer that has been opened does no more than follow."""
LOOK_S = 0.002


@dataclass(frozen=True)
class Effort:
    """How often each number of viewers is tried; more often where a target is set."""

    rounds: int
    target_rounds: int


QUICK, LONG = Effort(3, 16), Effort(20, 100)
TARGETS_ONLY = Effort(0, 40)


@dataclass
class Found:
    """What was found with one job and one refresh."""

    alone: list[float] = field(default_factory=list)
    """Steps per second of the phases without a viewer."""
    ratios: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """Speed with so many viewers against the mean of the phases before and after."""
    waits: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """Share of its time that the training thread waited for a core; empty where nobody counts it."""
    cores: list[float] = field(default_factory=list)
    """CPU time of one viewer a second."""


@dataclass(frozen=True)
class Pace:
    """How fast a run went for a moment."""

    steps_s: float
    waited: float | None
    """Share of the time that the training thread waited for a core; None where nobody counts it."""


class Trained:
    """A run that goes on, and how fast."""

    def __init__(self, run: Path, pid: int) -> None:
        self.run, self._pid = run, pid
        self._follower = Follower(run)

    def pace(self, seconds: float) -> Pace:
        """Between two windows that are about so far apart, the first of which ends after this call."""
        first = self._next()
        waited_s, begun = self._waited_s(), time.perf_counter()
        time.sleep(seconds)
        last = self._next()
        took_s, until_s = time.perf_counter() - begun, self._waited_s()
        steps_s = (_stop(last) - _stop(first)) / (last.seconds - first.seconds)
        return Pace(steps_s, None if waited_s is None or until_s is None else (until_s - waited_s) / took_s)

    def refresh(self, interval_ms: int) -> None:
        """Have losses read at another pace."""
        Watch(self.run).command(Set(field="refresh_ms", value=interval_ms), Changed)

    def _next(self) -> Losses:
        """The first window that comes from now on."""
        for _ in self._follower.read_all():
            pass
        while True:
            windows = [event for event in self._follower.read_all() if isinstance(event, Losses)]
            if windows:
                return windows[0]
            time.sleep(LOOK_S)

    def _waited_s(self) -> float | None:
        """Seconds that the engine's first thread, which trains, was ready to run and had no core."""
        try:
            return int(Path(f"/proc/{self._pid}/task/{self._pid}/schedstat").read_text().split()[1]) / 1e9
        except OSError:
            return None


def _stop(window: Losses) -> int:
    return window.first_step + len(window.values) // 4


@contextmanager
def training(folder: Path, **fields: Any) -> Iterator[Trained]:
    """A run without an end, on one thread of the CPU."""
    spec = RunSpec(**fields, epochs=10**12, learning_rate=1e-4, threads=1, device="cpu", save_every=0)
    with Engine() as engine:
        run = engine.train(spec, folder)
        Watch(run).windows(10)
        yield Trained(run, engine.process.pid)


class Viewers:
    """Apps attached to one run, all stopped but for those that are asked to watch."""

    def __init__(self, run: Path, stack: ExitStack) -> None:
        self._windows = [stack.enter_context(app(run.parent, "attach", run.name)) for _ in range(max(TARGETS))]
        for window in self._windows:
            until(seen(window, "running ●"))
        time.sleep(OPENING_S)
        self._signal(len(self._windows), signal.SIGSTOP)

    @contextmanager
    def watch(self, count: int) -> Iterator[None]:
        """So many of them go on for a while."""
        self._signal(count, signal.SIGCONT)
        yield
        self._signal(count, signal.SIGSTOP)

    def cpu_s(self, count: int) -> float:
        """CPU time of so many of them."""
        return sum(_cpu_s(window) for window in self._windows[:count])

    def _signal(self, count: int, which: signal.Signals) -> None:
        for place, window in enumerate(self._windows[:count]):
            if place and which == signal.SIGCONT:
                time.sleep(APART_S)
            window.process.send_signal(which)


def _cpu_s(window: Terminal) -> float:
    times = psutil.Process(window.process.pid).cpu_times()
    return times.user + times.system


def look(trained: Trained, viewers: Viewers, rounds: int, phase_s: float) -> Found:
    """Phases with and without viewers in turn; the order of their numbers changes from round to round."""
    found = Found()
    before = trained.pace(phase_s)
    for turn in range(rounds):
        for count in sorted(TARGETS, reverse=turn % 2 == 1):
            with viewers.watch(count):
                time.sleep(SETTLE_S)
                used_s, begun = viewers.cpu_s(count), time.perf_counter()
                pace = trained.pace(phase_s)
                used_s, took_s = viewers.cpu_s(count) - used_s, time.perf_counter() - begun
            after = trained.pace(phase_s)
            found.alone += [before.steps_s, after.steps_s]
            found.ratios[count].append(pace.steps_s / statistics.mean((before.steps_s, after.steps_s)))
            found.waits[count] += [] if pace.waited is None else [pace.waited]
            found.cores += [used_s / took_s / count] if count else []
            before = after
    return found


def costs(effort: Effort) -> dict[tuple[str, int], Found]:
    """Every job at every refresh."""
    found = {}
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
                    found[name, interval_ms] = look(trained, viewers, rounds, max(PHASE_S, 2e-3 * interval_ms))
    return found


def rows(found: dict[tuple[str, int], Found]) -> list[Figure]:
    """A line for each number of viewers; at the default refresh with what must be left."""
    made = []
    for (name, interval_ms), cell in found.items():
        steps_s = statistics.median(cell.alone)
        for count, ratios in cell.ratios.items():
            waits = cell.waits[count]
            waited = f" · waits for a core {100 * statistics.mean(waits):.2f} % of its time" if waits else ""
            made.append(
                Figure(
                    f"{name} ({1e6 / steps_s:,.0f} µs) a step, read every {interval_ms} ms, {count} watching",
                    middle(ratios) + waited,
                    TARGETS[count] if interval_ms == DEFAULT_MS else "",
                )
            )
        made.append(Figure("  a viewer takes of a core", f"{100 * statistics.median(cell.cores):.1f} %"))
    return made


def main(quick: bool = True, effort: Effort | None = None) -> None:
    """Print the table. `quick` takes about eleven minutes."""
    begun = time.perf_counter()
    found = costs(effort or (QUICK if quick else LONG))
    took = time.perf_counter() - begun
    title = "Speed of a run while it is watched, against itself unwatched: medians and their 95 % intervals"
    show(f"{title} (measured in {took:.0f} s)", rows(found))


if __name__ == "__main__":
    main(quick="--long" not in sys.argv, effort=TARGETS_ONLY if "--targets" in sys.argv else None)
