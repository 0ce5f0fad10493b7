"""What watching costs a run: its speed with one and three viewers against its own speed with none, moments apart.

One run is trained for each length of a step. Viewers come and go while it goes on, and phases without any lie between
those with some, so that a busy neighbor hits both. A viewer that starts takes a second of a core: that is not measured.
Speeds come from the run's own record. Beside the speed stands what is left of the steps per second that the training
thread had a core, which others who want the cores do not touch.
"""

from __future__ import annotations

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

from engine.protocol import Changed, Losses, Set
from engine.rundir import Follower
from engine.spec import RunSpec
from tests.bench.app import app, seen, until
from tests.bench.tables import Figure, show, spread
from tests.engines import Engine, Watch
from tests.terminals import Terminal

JOBS: dict[str, dict[str, Any]] = {
    "20 µs": {"dataset": "iris", "hidden": (50,), "executor": "graph"},
    "1 ms": {"dataset": "digits", "hidden": (64,), "executor": "eager"},
    "100 ms": {"dataset": "digits", "hidden": (800, 800), "executor": "eager"},
}
"""Jobs by what a step of theirs takes, about, on one core of 2 to 3 GHz."""
REFRESHES_MS = (20, 100, 1000)
DEFAULT_MS = 100
TARGETS = {1: "≥ 0.99", 3: "≥ 0.97"}
"""Of what is left of the speed at the default refresh, by the number of viewers."""
SETTLE_S = 2.0
"""After which a viewer that has come, or gone, is no burden beyond its share."""


@dataclass(frozen=True)
class Effort:
    """How long a phase is measured, and how often each number of viewers is tried; more often where a target is set."""

    phase_s: float
    rounds: int
    target_rounds: int


QUICK, LONG = Effort(2.5, 2, 6), Effort(5.0, 5, 15)


@dataclass
class Seen:
    """What was found with one job and one refresh."""

    alone: list[float] = field(default_factory=list)
    """Steps per second of the phases without a viewer."""
    ratios: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """Speed with so many viewers against the mean of the phases before and after."""
    own: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in TARGETS})
    """The same for steps per second that the training thread ran: what is left when it never waits for a core."""
    cores: list[float] = field(default_factory=list)
    """CPU time of one viewer a second."""


@dataclass(frozen=True)
class Speed:
    """Steps per second of training, and per second that the training thread had a core; None where nobody counts."""

    wall: float
    own: float | None


class Trained:
    """A run that goes on, and how fast."""

    def __init__(self, run: Path, pid: int) -> None:
        self.run, self._pid = run, pid
        self._follower = Follower(run)
        self._last: Losses | None = None

    def speed(self, phase_s: float) -> Speed:
        """Between two windows that are about so far apart."""
        first, begun, ran_before_s = self._newest(), time.perf_counter(), self._ran_s()
        time.sleep(phase_s)
        ran_s, took = self._ran_s(), time.perf_counter() - begun
        last = self._newest()
        steps, seconds = _stop(last) - _stop(first), last.seconds - first.seconds
        if ran_s is None or ran_before_s is None:
            return Speed(steps / seconds, None)
        return Speed(steps / seconds, steps / seconds * took / (ran_s - ran_before_s))

    def refresh(self, interval_ms: int) -> None:
        """Have losses read at another pace."""
        Watch(self.run).command(Set(field="refresh_ms", value=interval_ms), Changed)

    def _newest(self) -> Losses:
        for event in self._follower.read_all():
            if isinstance(event, Losses):
                self._last = event
        assert self._last is not None
        return self._last

    def _ran_s(self) -> float | None:
        """Seconds that the engine's first thread, which trains, has run so far."""
        try:
            return int(Path(f"/proc/{self._pid}/task/{self._pid}/schedstat").read_text().split()[0]) / 1e9
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


def watched(trained: Trained, viewers: int, phase_s: float) -> tuple[Speed, list[float]]:
    """The speed with so many viewers, and the cores that each takes."""
    with ExitStack() as stack:
        windows = [stack.enter_context(app(trained.run.parent, "attach", trained.run.name)) for _ in range(viewers)]
        for window in windows:
            until(seen(window, "running ●"))
        time.sleep(SETTLE_S)
        before, begun = [_cpu_s(window) for window in windows], time.perf_counter()
        speed = trained.speed(phase_s)
        took = time.perf_counter() - begun
        after = [_cpu_s(window) for window in windows]
    return speed, [(last - first) / took for first, last in zip(before, after, strict=True)]


def _cpu_s(window: Terminal) -> float:
    times = psutil.Process(window.process.pid).cpu_times()
    return times.user + times.system


def look(trained: Trained, effort: Effort, rounds: int) -> Seen:
    """Phases with and without viewers in turn; the order of one and three changes from round to round."""
    found = Seen()
    time.sleep(SETTLE_S / 2)
    before = trained.speed(effort.phase_s)
    for turn in range(rounds):
        for viewers in sorted(TARGETS, reverse=turn % 2 == 1):
            speed, cores = watched(trained, viewers, effort.phase_s)
            time.sleep(SETTLE_S / 4)
            after = trained.speed(effort.phase_s)
            found.alone += [before.wall, after.wall]
            found.ratios[viewers].append(speed.wall / statistics.mean((before.wall, after.wall)))
            if speed.own and before.own and after.own:
                found.own[viewers].append(speed.own / statistics.mean((before.own, after.own)))
            found.cores += cores
            before = after
    return found


def costs(effort: Effort) -> dict[tuple[str, int], Seen]:
    """Every job at every refresh."""
    found = {}
    for name, fields in JOBS.items():
        with tempfile.TemporaryDirectory() as folder, training(Path(folder), **fields) as trained:
            for interval_ms in REFRESHES_MS:
                trained.refresh(interval_ms)
                rounds = effort.target_rounds if interval_ms == DEFAULT_MS else effort.rounds
                found[name, interval_ms] = look(trained, effort, rounds)
    return found


def rows(found: dict[tuple[str, int], Seen]) -> list[Figure]:
    """A line for each number of viewers; at the default refresh with what must be left."""
    made = []
    for (name, interval_ms), cell in found.items():
        step_us = 1e6 / statistics.median(cell.alone)
        for viewers, ratios in cell.ratios.items():
            own = f" · on a core {spread(found_own)}" if (found_own := cell.own[viewers]) else ""
            made.append(
                Figure(
                    f"{name} ({step_us:,.0f} µs) a step, read every {interval_ms} ms, {viewers} watching",
                    f"{spread(ratios)} of {statistics.median(cell.alone):,.5g} steps/s{own}",
                    TARGETS[viewers] if interval_ms == DEFAULT_MS else "",
                )
            )
        made.append(Figure("  a viewer takes of a core", spread([100 * core for core in cell.cores], "{:.1f}") + " %"))
    return made


def main(quick: bool = True) -> None:
    """Print the table. `quick` takes about nine minutes."""
    effort = QUICK if quick else LONG
    begun = time.perf_counter()
    found = costs(effort)
    took = time.perf_counter() - begun
    show(f"Speed of a run while it is watched, against itself unwatched (measured in {took:.0f} s)", rows(found))


if __name__ == "__main__":
    main(quick="--long" not in sys.argv)
