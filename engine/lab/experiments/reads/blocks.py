"""Short blocks of steps with and without reads, in random order within one run.

A neighbor on the machine disturbs all kinds of steps in a block alike, and the median of a block leaves out the steps that
were interrupted. On the CPU the order changes after every step. A device that works behind the host is given several steps
in a row, so that its queue is as full as in a run.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

Work = Callable[[], object]


def nothing(_: Any) -> None:
    """Read no loss."""


def item(loss: Any) -> None:
    """Read the loss as a training loop does."""
    loss.item()


@dataclass
class TimedReads:
    """Times what the host does with each loss."""

    wait: Work | None = None
    """Waits for the device; None if steps are done when they return."""
    spans: dict[str, list[float]] = field(default_factory=dict)
    """Seconds by part of a read."""

    def after(self, step: Callable[[], Any], part: str, action: Callable[[Any], object]) -> Work:
        """A step, and `action` on its loss, whose time counts for `part`."""
        spans = self.spans.setdefault(part, [])

        def stepped() -> None:
            loss = step()
            start = perf_counter()
            action(loss)
            spans.append(perf_counter() - start)

        return stepped

    def apart(self, step: Callable[[], Any]) -> Work:
        """A step and a read; the time until the device is ready counts as `wait`, the rest as `call`."""
        waits, calls = self.spans.setdefault("wait", []), self.spans.setdefault("call", [])
        wait = self.wait or (lambda: None)

        def stepped() -> None:
            loss = step()
            start = perf_counter()
            wait()
            ready = perf_counter()
            item(loss)
            calls.append(perf_counter() - ready)
            waits.append(ready - start)

        return stepped

    def medians(self) -> dict[str, tuple[float, int]]:
        """Median seconds of each part since the last call, without the clock's own, and how often it was timed."""
        parts = {part: (statistics.median(spans), len(spans)) for part, spans in self.spans.items() if spans}
        clock_s = parts["clock"][0] if "clock" in parts else 0.0
        for spans in self.spans.values():
            spans.clear()
        return {
            part: (seconds if part == "clock" else max(0.0, seconds - clock_s), count)
            for part, (seconds, count) in parts.items()
        }


class Alternation:
    """Runs several kinds of steps in random order."""

    def __init__(self, kinds: Mapping[str, Work], wait: Work, steps: int, seed: int = 0) -> None:
        """`wait` waits for the device; `steps` steps of one kind run in a row."""
        self._kinds, self._wait, self._steps = dict(kinds), wait, steps
        self._chance = random.Random(seed)  # noqa: S311 - the order of blocks, repeatable

    def block(self, seconds: float) -> dict[str, tuple[float, int]]:
        """Run a block of about `seconds`; the median seconds of a step of each kind, and the steps behind it."""
        spans: dict[str, list[float]] = {kind: [] for kind in self._kinds}
        end = perf_counter() + seconds
        while not all(spans.values()) or perf_counter() < end:
            for kind in self._chance.sample(list(self._kinds), len(self._kinds)):
                spans[kind].append(self._timed(self._kinds[kind]))
        return {kind: (statistics.median(times), len(times) * self._steps) for kind, times in spans.items()}

    def _timed(self, work: Work) -> float:
        self._wait()
        start = perf_counter()
        for _ in range(self._steps):
            work()
        self._wait()
        return (perf_counter() - start) / self._steps
