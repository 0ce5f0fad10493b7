"""Where another device becomes faster than the CPU, from steps over width × batch.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab.crossings import crossing, faster
from epochtop.engine.lab.differences import difference
from epochtop.engine.lab.experiments.crossover.schema import GridStep
from epochtop.engine.lab.statistics import grouped, select
from epochtop.engine.protocol.experiments import Line
from epochtop.engine.protocol.quantities import format_quantity


def takeover_widths(grid: Sequence[GridStep]) -> dict[str, str]:
    """By model: a sentence on the width from which another device is faster than the CPU, for every batch."""
    sentences: dict[str, str] = {}
    for device, model in _other_pairs(grid):
        steps = select(grid, model=model)
        parts = []
        for batch in sorted({row.batch for row in select(steps, device=device)}):
            cpu, other = (select(steps, batch=batch, device=side) for side in ("cpu", device))
            crossed = crossing(cpu, other, "width")
            if crossed is not None:
                parts.append(f"{_since(crossed.since, crossed.everywhere)} at batch {batch:,}")
        if parts:
            sentences[model] = f"{device} is faster from {', '.join(parts)}"
    return sentences


def _since(since: float | None, everywhere: bool) -> str:
    if since is None:
        return "no width"
    return f"width {since:,.0f}{' (the smallest)' if everywhere else ''}"


def _other_pairs(grid: Sequence[GridStep]) -> list[tuple[str, str]]:
    """Devices other than the CPU, with each model that they measured."""
    return list(dict.fromkeys((row.device, row.model) for row in grid if row.device != "cpu"))


def takeover_mflop(grid: Sequence[GridStep], device: str, model: str) -> float | None:
    """The least work from which `device` is faster than the CPU at every width and batch of a model.

    None if there is none, and if it is faster from the least work on: then no takeover was seen.
    """
    steps = select(grid, model=model)
    wins: dict[float, bool] = {}
    for width, batch, work in grouped(select(steps, device=device), ("width", "batch", "mflop"), "seconds"):
        cpu, other = (select(steps, device=side, width=width, batch=batch) for side in ("cpu", device))
        sides = difference(cpu, other)
        if sides is not None and isinstance(work, int | float):
            wins[work] = wins.get(work, True) and faster(sides)
    lost = max((work for work, won in wins.items() if not won), default=None)
    return None if lost is None else min((work for work in wins if work > lost), default=None)


def _takeovers(grid: Sequence[GridStep]) -> list[tuple[str, str, float]]:
    """Device, model and work of each takeover that was seen."""
    works = ((device, model, takeover_mflop(grid, device, model)) for device, model in _other_pairs(grid))
    return [(device, model, work) for device, model, work in works if work is not None]


def work_sentences(grid: Sequence[GridStep]) -> list[str]:
    """Sentences on the work from which another device is faster."""
    return [
        f"{model}: {device} is faster from {format_quantity(work, 'MFLOP')} per step, at every width and batch measured"
        for device, model, work in _takeovers(grid)
    ]


def upright_lines(grid: Sequence[GridStep], shortest_s: float, longest_s: float) -> list[Line]:
    """Lines at the work from which another device is faster, from the shortest to the longest step."""
    return [
        Line(name=f"{device} is faster ({model})", points=((work, shortest_s), (work, longest_s)))
        for device, model, work in _takeovers(grid)
    ]
