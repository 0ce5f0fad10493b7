"""Pieces that a row of figures is made of: numbers of fixed width, graphs of two minutes, gauges.

Pure functions of facts, so a test reads characters. Must not import Textual.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from epochtop.engine.hardware import Fact, Sample
from epochtop.engine.protocol.quantities import format_gib

BLOCKS = "▁▂▃▄▅▆▇█"
UNKNOWN = "—"
LABEL_WIDTH = 5
SMALLEST_GRAPH = 4
WIDE = 48
"""From this width on there is room for limits beside values."""
HISTORY_LENGTH = 120
"""Samples that a graph shows: two minutes, one a second."""


class Span(NamedTuple):
    """A piece of a row. `style` is `label`, `value`, `graph`, `unknown`, `stale`, `heading`, `bad` or `good`."""

    text: str
    style: str = "value"


Row = tuple[Span, ...]


class Histories:
    """The last percentages of every figure, None where one was unknown."""

    def __init__(self) -> None:
        self._values: defaultdict[Hashable, deque[float | None]] = defaultdict(lambda: deque(maxlen=2 * HISTORY_LENGTH))
        self._count = 0

    def add(self, sample: Sample, limits: Limits | None = None) -> None:
        """Take in one sample of everything; figures that are no percentages are shares of `limits`."""
        self._count += 1
        found = figures_of(sample, limits or {})
        for name in {*self._values, *found}:
            self._values[name].append(found.get(name))

    def graph(self, name: Hashable, width: int) -> str:
        """Two minutes in at most `width` columns, newest at the right; blank where there is nothing.

        A column is the mean of some seconds, always of the same ones, so that only the last column changes.
        """
        columns = max(1, min(width, HISTORY_LENGTH))
        each = -(-HISTORY_LENGTH // columns)
        values = self._values[name]
        first = self._count - len(values)  # when the first value that is still kept came
        bins: dict[int, list[float]] = {}
        for place, value in enumerate(values, first):
            bins.setdefault(place // each, [])
            if value is not None:
                bins[place // each].append(value)
        means = [sum(bins[number]) / len(bins[number]) if bins[number] else None for number in sorted(bins)]
        return graph(means[-columns:]).rjust(width)


Limits = dict[Hashable, float]
"""What a figure's 100 percent is, by its name."""


def figures_of(sample: Sample, limits: Limits) -> dict[Hashable, float | None]:
    """Every figure that has a graph, in percent."""
    found: dict[Hashable, float | None] = {
        "cpu": sample.cpu_percent.value,
        "memory": share(sample.memory_used_bytes, sample.memory_usable_bytes),
        "swap": share(sample.swap_used_bytes.value, sample.swap_total_bytes.value),
    }
    if sample.engine is not None:
        found["engine"] = share(sample.engine.cpu_percent.value, limits.get("engine", 100.0))
        found["engine memory"] = share(sample.engine.memory_bytes.value, sample.memory_usable_bytes)
    for gpu in sample.gpus:
        index = gpu.index
        found["gpu", index] = gpu.utilization_percent.value
        found["gpu memory", index] = share(gpu.memory_used_bytes.value, gpu.memory_total_bytes.value)
        found["sm", index] = gpu.sm_percent.value
        found["tensor", index] = gpu.tensor_percent.value
        found["dram", index] = gpu.dram_percent.value
        found["fan", index] = gpu.fan_percent.value
        found["power", index] = share(gpu.power_w.value, gpu.power_limit_w.value)
        for name, value in (
            ("temperature", gpu.temperature_c.value),
            ("clock", gpu.sm_clock_mhz.value),
            ("sent", gpu.pcie_sent_kbs.value),
            ("received", gpu.pcie_received_kbs.value),
            ("link sent", gpu.nvlink_sent_kbs.value),
            ("link received", gpu.nvlink_received_kbs.value),
        ):
            found[name, index] = share(value, limits.get((name, index)))
    return found


def graph(percents: Iterable[float | None]) -> str:
    """One block a value: `▁` for 0, `█` for 100 percent, blank for unknown."""
    return "".join(" " if percent is None else BLOCKS[_level(percent)] for percent in percents)


def _level(percent: float) -> int:
    return min(7, max(0, int(percent * 8 / 100)))


def share(used: float | None, total: float | None) -> float | None:
    return 100 * used / total if used is not None and total else None


# --- numbers of fixed width -------------------------------------------------------------------------------


def percent(fact: Fact[float]) -> str:
    """` 97 %`, five wide."""
    return f"{UNKNOWN:>3}  " if fact.value is None else f"{fact.value:>3.0f} %"


def celsius(fact: Fact[float]) -> str:
    """` 61 °C`, six wide."""
    return f"{UNKNOWN:>3}   " if fact.value is None else f"{fact.value:>3.0f} °C"


def watts(power: Fact[float], limit: Fact[float], with_limit: bool) -> str:
    """` 412 W`, or ` 412/700 W` with the limit."""
    number = f"{UNKNOWN:>4}" if power.value is None else f"{power.value:>4.0f}"
    return f"{number}{f'/{limit.value:<4.0f}'.rstrip() if with_limit and limit.value is not None else ''} W"


def used_of(used_bytes: float | None, total_bytes: float) -> str:
    """` 1.2 / 23.5 GiB`; as wide as its total for any value up to it."""
    total = format_gib(total_bytes)
    used = UNKNOWN if used_bytes is None else format_gib(used_bytes, total_bytes)
    return f"{used:>{len(total)}} / {total} GiB"


def megabytes_a_second(fact: Fact[float]) -> str:
    """`  1.0 MB/s`, eleven wide, from KiB a second."""
    return f"{UNKNOWN:>6}     " if fact.value is None else f"{fact.value * 1024 / 1e6:>6.1f} MB/s"


def megahertz(clock: Fact[int], limit: Fact[int]) -> str:
    """`1755/1980 MHz`."""
    most = f"/{limit.value}" if limit.value is not None else ""
    return f"{UNKNOWN:>4}{most} MHz" if clock.value is None else f"{clock.value:>4.0f}{most} MHz"


def wrapped(text: str, width: int, most: int) -> list[str]:
    """Words in at most `most` lines of `width` cells; what is left over is cut with a mark."""
    lines = textwrap.wrap(text, max(1, width), break_on_hyphens=False)
    return [*lines[: most - 1], cut(" ".join(lines[most - 1 :]), width)] if len(lines) > most else lines


def cut(text: str, width: int) -> str:
    """Words in at most `width` cells."""
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…" * (width > 0)


# --- gauges ----------------------------------------------------------------------------------------------


class Gauge(NamedTuple):
    """One row of a label, a graph over time and numbers, each of constant width."""

    label: str
    graph: Callable[[int], str]
    numbers: tuple[str, ...]
    reason: str = ""
    """Stands where the graph is when the graphed value is unknown."""
    old: bool = False
    """Whether the figures are of a driver that does not answer any more."""

    @property
    def width(self) -> int:
        """Cells of the numbers."""
        return len(" ".join(self.numbers))

    def row(self, width: int, numbers_width: int, label_width: int = LABEL_WIDTH) -> Row:
        """The row with its numbers in a column of `numbers_width`; without graph, then without numbers, if narrow."""
        room = width - label_width - 1 - numbers_width
        label = Span(self.label.ljust(label_width)[:width], "label")
        style = "stale" if self.old else "value"
        if room < SMALLEST_GRAPH:
            return (label, Span(_that_fit(self.numbers, width - label_width), style))
        numbers = Span(" " + " ".join(self.numbers), style)
        if self.reason:
            return (label, Span(cut(f"{UNKNOWN} {self.reason}", room).ljust(room), "unknown"), numbers)
        return (label, Span(self.graph(room), "stale" if self.old else "graph"), numbers)


def _that_fit(numbers: Sequence[str], width: int) -> str:
    text = ""
    for number in numbers:
        longer = f"{text} {number}" if text else number
        if len(longer) > width:
            break
        text = longer
    return text
