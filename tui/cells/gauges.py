"""Parts of a row of figures: numbers of fixed width, graphs of the last two minutes, and gauges that combine them.

Pure functions of facts, so that tests read characters. Never imports Textual.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from epochtop.engine.hardware import Fact, GpuSample, Sample
from epochtop.engine.protocol.quantities import UNKNOWN, format_gib
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import FAINT, QUIET, TEXT, cut, role_of, row
from epochtop.tui.state.telemetry import mean_of_known

BLOCKS = "▁▂▃▄▅▆▇█"
LABEL_WIDTH = 5
SMALLEST_GRAPH = 4
WIDE = 48
"""Minimum width for limits next to values."""
HISTORY_LENGTH = 120
"""Samples that a graph shows: two minutes at one sample per second."""
GRAPH = role_of(0)
"""The role of graphs."""
STALE = {TEXT: FAINT, GRAPH: FAINT}
"""Roles of figures that are out of date."""


class Histories:
    """The recent percentages of every figure; None where a reading is unknown."""

    def __init__(self) -> None:
        self._values: defaultdict[Hashable, deque[float | None]] = defaultdict(lambda: deque(maxlen=2 * HISTORY_LENGTH))
        self._count = 0

    def add(self, sample: Sample, limits: Limits | None = None) -> None:
        """Add one sample of every figure. `limits` give the 100 % of figures that are not percentages."""
        self._count += 1
        percents = percents_of(sample, limits or {})
        for name in {*self._values, *percents}:
            self._values[name].append(percents.get(name))

    def graph(self, name: Hashable, width: int) -> str:
        """Two minutes in at most `width` columns, the newest at the right; blank where there are no samples.

        A column is the mean of a fixed set of samples, so only the last column changes.
        """
        columns = max(1, min(width, HISTORY_LENGTH))
        return graph(self._columns(name, columns)).rjust(width)

    def tall_graph(self, name: Hashable, width: int, rows: int) -> list[str]:
        """At least two minutes in a graph of several rows and the whole width."""
        return tall_graph(self._columns(name, max(1, width)), width, rows)

    def gauge(self, label: str, name: Hashable, numbers: tuple[str, ...], reason: str = "", old: bool = False) -> Gauge:
        """The gauge of a figure."""
        return Gauge(label, partial(self.graph, name), numbers, reason, old, partial(self.tall_graph, name))

    def _columns(self, name: Hashable, columns: int) -> list[float | None]:
        size = -(-HISTORY_LENGTH // columns)
        values = list(self._values[name])
        oldest = self._count - len(values)  # index of the oldest stored sample
        starts = range(-(oldest % size), len(values), size)[-columns:]
        return [mean_of_known(values[max(0, start) : start + size]) for start in starts]


Limits = dict[Hashable, float]
"""The 100 % of a figure, by its name."""


def percents_of(sample: Sample, limits: Limits) -> dict[Hashable, float | None]:
    """Every figure that has a graph, in percent."""
    percents: dict[Hashable, float | None] = {
        "cpu": sample.cpu_percent.value,
        "memory": percent_of(sample.memory_used_bytes, sample.memory_usable_bytes),
        "swap": percent_of(sample.swap_used_bytes.value, sample.swap_total_bytes.value),
    }
    if sample.engine is not None:
        percents["engine"] = percent_of(sample.engine.cpu_percent.value, limits.get("engine", 100.0))
        percents["engine memory"] = percent_of(sample.engine.memory_bytes.value, sample.memory_usable_bytes)
    for gpu in sample.gpus:
        percents |= {(name, gpu.index): percent for name, percent in _gpu_percents(gpu, limits)}
    return percents


def _gpu_percents(gpu: GpuSample, limits: Limits) -> Iterator[tuple[str, float | None]]:
    yield "gpu", gpu.utilization_percent.value
    yield "gpu memory", percent_of(gpu.memory_used_bytes.value, gpu.memory_total_bytes.value)
    yield "sm", gpu.sm_percent.value
    yield "tensor", gpu.tensor_percent.value
    yield "dram", gpu.dram_percent.value
    yield "fan", gpu.fan_percent.value
    yield "power", percent_of(gpu.power_w.value, gpu.power_limit_w.value)
    for name, value in (
        ("temperature", gpu.temperature_c.value),
        ("clock", gpu.sm_clock_mhz.value),
        ("sent", gpu.pcie_sent_kbs.value),
        ("received", gpu.pcie_received_kbs.value),
        ("link sent", gpu.nvlink_sent_kbs.value),
        ("link received", gpu.nvlink_received_kbs.value),
    ):
        yield name, percent_of(value, limits.get((name, gpu.index)))


def graph(percents: Iterable[float | None]) -> str:
    """One block per value: `▁` for 0 %, `█` for 100 %, blank for unknown."""
    return "".join(" " if percent is None else BLOCKS[_level(percent)] for percent in percents)


def tall_graph(percents: Sequence[float | None], width: int, rows: int) -> list[str]:
    """A graph of `rows` rows, from top to bottom; 0 % is `▁` in the last one."""
    lines = []
    for below in reversed(range(rows)):
        levels = [
            None if percent is None else max(int(below == 0), min(8, int(percent * rows * 8 / 100) - 8 * below))
            for percent in percents
        ]
        lines.append("".join(BLOCKS[level - 1] if level and level > 0 else " " for level in levels).rjust(width))
    return lines


def _level(percent: float) -> int:
    return min(7, max(0, int(percent * 8 / 100)))


def percent_of(used: float | None, total: float | None) -> float | None:
    """`used` in percent of `total`; None if either is unknown."""
    return 100 * used / total if used is not None and total else None


# --- numbers of fixed width -------------------------------------------------------------------------------


def percent(fact: Fact[float]) -> str:
    """` 97 %`, five cells wide."""
    return f"{UNKNOWN:>3}  " if fact.value is None else f"{fact.value:>3.0f} %"


def celsius(fact: Fact[float]) -> str:
    """` 61 °C`, six cells wide."""
    return f"{UNKNOWN:>3}   " if fact.value is None else f"{fact.value:>3.0f} °C"


def watts(power: Fact[float], limit: Fact[float], with_limit: bool) -> str:
    """` 412 W`, or ` 412/700 W` with the limit."""
    number = f"{UNKNOWN:>4}" if power.value is None else f"{power.value:>4.0f}"
    return f"{number}{f'/{limit.value:<4.0f}'.rstrip() if with_limit and limit.value is not None else ''} W"


def used_of(used_bytes: float | None, total_bytes: float) -> str:
    """` 1.2 / 23.5 GiB`; of constant width for all values up to the total."""
    total = format_gib(total_bytes)
    used = UNKNOWN if used_bytes is None else format_gib(used_bytes, total_bytes)
    return f"{used:>{len(total)}} / {total} GiB"


def megabytes_per_second(fact: Fact[float]) -> str:
    """`  1.0 MB/s`, eleven cells wide, from KiB per second."""
    return f"{UNKNOWN:>6}     " if fact.value is None else f"{fact.value * 1024 / 1e6:>6.1f} MB/s"


def megahertz(clock: Fact[int], limit: Fact[int]) -> str:
    """`1755/1980 MHz`."""
    most = f"/{limit.value}" if limit.value is not None else ""
    return f"{UNKNOWN:>4}{most} MHz" if clock.value is None else f"{clock.value:>4.0f}{most} MHz"


# --- gauges ----------------------------------------------------------------------------------------------


class Gauge(NamedTuple):
    """A row of a label, a graph over time and numbers, each of constant width."""

    label: str
    graph: Callable[[int], str]
    numbers: tuple[str, ...]
    reason: str = ""
    """Why the graphed value is unknown; shown instead of the graph."""
    old: bool = False
    """Whether the driver stopped responding, so that the figures are out of date."""
    tall_graph: Callable[[int, int], list[str]] | None = None
    """The graph in a width and a number of rows."""

    @property
    def width(self) -> int:
        """Cells of the numbers."""
        return len(" ".join(self.numbers))

    def row(self, width: int, numbers_width: int, label_width: int = LABEL_WIDTH) -> Row:
        """The row, with its numbers in a column of `numbers_width`. A narrow row omits the graph, then numbers."""
        room = width - label_width - 1 - numbers_width
        label = (self.label.ljust(label_width)[:width], QUIET)
        numbers_role, graph_role = (FAINT, FAINT) if self.old else (TEXT, GRAPH)
        if room < SMALLEST_GRAPH:
            return row(label, (_leading_numbers(self.numbers, width - label_width), numbers_role))
        numbers = (" " + " ".join(self.numbers), numbers_role)
        if self.reason:
            return row(label, (cut(f"{UNKNOWN} {self.reason}", room).ljust(room), QUIET), numbers)
        return row(label, (self.graph(room), graph_role), numbers)

    def rows(self, width: int, numbers_width: int, graph_rows: int, label_width: int = LABEL_WIDTH) -> list[Row]:
        """The row, and below it its graph in `graph_rows` rows; without them, the graph is in the row."""
        if graph_rows < 2 or self.tall_graph is None or self.reason or width < WIDE:
            return [self.row(width, numbers_width, label_width)]
        blank = self._replace(graph=lambda room: " " * room)
        role, margin = FAINT if self.old else GRAPH, (" " * label_width, QUIET)
        lines = self.tall_graph(width - label_width, graph_rows)
        return [blank.row(width, numbers_width, label_width), *(row(margin, (line, role)) for line in lines)]


def _leading_numbers(numbers: Sequence[str], width: int) -> str:
    text = ""
    for number in numbers:
        longer = f"{text} {number}" if text else number
        if len(longer) > width:
            break
        text = longer
    return text
